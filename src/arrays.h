// NumPy arrays as the core's addresses, checked: a wrong shape must not reach a kernel even when
// the Python layer above has a mistake.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "rnncore/types.h"

namespace rnncore_python {

namespace py = pybind11;

inline std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::vector<int64_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

[[noreturn]] inline void wrong_shape(const char* name, const std::vector<int64_t>& expected,
                                     const py::array& array) {
  throw py::value_error(std::string(name) + ": expected " + shape_text(expected) + ", got " +
                        shape_text(shape_of(array)));
}

inline bool is_native(const py::array& array, char kind, int64_t item_size) {
  const py::dtype dtype = array.dtype();
  const bool native = dtype.byteorder() == '=' || dtype.byteorder() == '|' ||
                      dtype.byteorder() == (PY_BIG_ENDIAN ? '>' : '<');
  return dtype.kind() == kind && dtype.itemsize() == item_size && native;
}

inline py::array checked(const char* name, py::handle object, char kind, int64_t item_size,
                         const std::vector<int64_t>& shape, bool writable) {
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(std::string(name) + ": expected a NumPy array");
  }
  py::array array = py::reinterpret_borrow<py::array>(object);
  if (!is_native(array, kind, item_size)) {
    throw py::type_error(std::string(name) + ": expected dtype " + kind +
                         std::to_string(item_size) + ", got " +
                         std::string(py::str(array.dtype())));
  }
  if (shape_of(array) != shape) wrong_shape(name, shape, array);
  if (writable && !array.writeable()) {
    throw py::value_error(std::string(name) + ": expected a writable array");
  }
  return array;
}

inline void check_aligned(const char* name, const py::array& array, int64_t item_size) {
  if (reinterpret_cast<uintptr_t>(array.data()) % static_cast<uintptr_t>(item_size)) {
    throw py::value_error(std::string(name) + ": expected an aligned array");
  }
}

// The address of a contiguous array.
inline void* contiguous(const char* name, py::handle object, char kind, int64_t item_size,
                        const std::vector<int64_t>& shape, bool writable) {
  const py::array array = checked(name, object, kind, item_size, shape, writable);
  if (!(array.flags() & py::array::c_style)) {
    throw py::value_error(std::string(name) + ": expected a C-contiguous array");
  }
  check_aligned(name, array, item_size);
  return const_cast<void*>(array.data());
}

// The same; null for None.
inline void* contiguous_or_none(const char* name, py::handle object, char kind, int64_t item_size,
                                const std::vector<int64_t>& shape, bool writable) {
  return object.is_none() ? nullptr : contiguous(name, object, kind, item_size, shape, writable);
}

// An array (T, N, F) of any strides but the last.
inline rnncore::MutableSequence sequence(const char* name, py::handle object, int64_t item_size,
                                         const std::vector<int64_t>& shape, bool writable) {
  const py::array array = checked(name, object, 'f', item_size, shape, writable);
  const bool empty = shape[0] == 0 || shape[1] == 0 || shape[2] == 0;
  if (!empty && shape[2] > 1 && array.strides(2) != item_size) {
    throw py::value_error(std::string(name) + ": expected unit stride on the last axis");
  }
  // A step that no index takes may be any number of bytes.
  const auto stride = [&](int axis) { return array.shape(axis) > 1 ? array.strides(axis) : 0; };
  if (!empty && (stride(0) % item_size || stride(1) % item_size)) {
    throw py::value_error(std::string(name) + ": expected strides of whole values");
  }
  check_aligned(name, array, item_size);
  return {const_cast<void*>(array.data()), stride(0) / item_size, stride(1) / item_size};
}

// The same; data is null for None.
inline rnncore::MutableSequence sequence_or_none(const char* name, py::handle object,
                                                 int64_t item_size,
                                                 const std::vector<int64_t>& shape, bool writable) {
  if (object.is_none()) return {};
  return sequence(name, object, item_size, shape, writable);
}

inline rnncore::Sequence as_const(const rnncore::MutableSequence& s) {
  return {s.data, s.time_stride, s.row_stride};
}

}  // namespace rnncore_python
