// Safetensors files as dictionaries of NumPy arrays.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <string>
#include <vector>

#include "gil.h"
#include "rnncore/safetensors.h"

namespace py = pybind11;

namespace {

struct DtypeName {
  const char* file;
  const char* numpy;
};

constexpr DtypeName kDtypes[] = {{"F32", "float32"},   {"F64", "float64"}, {"F16", "float16"},
                                 {"BF16", "bfloat16"}, {"I64", "int64"},   {"I32", "int32"},
                                 {"I16", "int16"},     {"I8", "int8"},     {"U64", "uint64"},
                                 {"U32", "uint32"},    {"U16", "uint16"},  {"U8", "uint8"},
                                 {"BOOL", "bool"}};

py::dtype numpy_dtype(const std::string& name) {
  if (name == "BF16") {
    return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  }
  for (const DtypeName& pair : kDtypes) {
    if (name == pair.file) return py::dtype(pair.numpy);
  }
  throw rnncore::FormatError("unknown dtype " + name);
}

std::string file_dtype(const std::string& tensor, const py::dtype& dtype) {
  const std::string name = py::str(dtype.attr("name"));
  for (const DtypeName& pair : kDtypes) {
    if (name == pair.numpy) return pair.file;
  }
  throw py::type_error("tensor " + tensor + ": dtype " + name + " has no place in a file");
}

// str as UTF-8; TypeError for anything else, UnicodeEncodeError for lone surrogates.
std::string utf8(const py::handle& text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) throw py::error_already_set();
  return std::string(bytes, static_cast<size_t>(size));
}

const std::string& checked(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw py::value_error("path: a zero byte in it");
  return path;
}

void write_file(const std::string& path, const py::dict& tensors, const py::dict& metadata) {
  std::vector<rnncore::TensorData> data;
  std::vector<py::array> kept;  // holds contiguous copies until they are written
  for (const auto& [key, value] : tensors) {
    rnncore::TensorData tensor;
    tensor.name = utf8(key);
    const py::array array = py::array::ensure(value, py::array::c_style);
    if (!array) throw py::type_error("tensor " + tensor.name + ": expected an array");
    tensor.dtype = file_dtype(tensor.name, array.dtype());
    if (!array.dtype().attr("isnative").cast<bool>()) {
      throw py::type_error("tensor " + tensor.name + ": expected the machine's byte order");
    }
    tensor.shape.assign(array.shape(), array.shape() + array.ndim());
    tensor.data = array.data();
    data.push_back(std::move(tensor));
    kept.push_back(array);
  }
  rnncore::Metadata words;
  for (const auto& [key, value] : metadata) words[utf8(key)] = utf8(value);
  const rnncore_python::ReleasedGil released;
  rnncore::write_safetensors(checked(path), std::move(data), std::move(words));
}

py::tuple read_file(const std::string& path) {
  rnncore::SafetensorsReader reader(checked(path));
  py::dict tensors;
  std::vector<void*> destinations;
  for (const rnncore::TensorInfo& info : reader.tensors()) {
    py::array array(numpy_dtype(info.dtype), info.shape);
    destinations.push_back(array.mutable_data());
    tensors[py::str(info.name)] = array;
  }
  {
    const rnncore_python::ReleasedGil released;
    reader.read(destinations);
  }
  return py::make_tuple(tensors, py::cast(reader.metadata()));
}

void translate(std::exception_ptr raised) {
  try {
    if (raised) std::rethrow_exception(raised);
  } catch (const rnncore::FormatError& error) {
    const py::object type = py::module_::import("rnncore.errors").attr("FormatError");
    // The message holds the path, whose bytes need not be UTF-8.
    const py::object text =
        py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.what()));
    PyErr_SetObject(type.ptr(), text.ptr());
  } catch (const rnncore::FileError& error) {
    errno = error.code();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, error.what());
  }
}

}  // namespace

void bind_safetensors(py::module_& m) {
  py::register_local_exception_translator(translate);
  m.def("write_safetensors", &write_file, py::arg("path"), py::arg("tensors"), py::arg("metadata"));
  m.def("read_safetensors", &read_file, py::arg("path"));
}
