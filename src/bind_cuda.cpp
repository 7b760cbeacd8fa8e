// The CUDA backend's host side. Arrays on a device come as addresses and strides: Python has
// checked them, and nothing here may look at what they hold.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <tuple>

#include "core/cuda_backward.h"
#include "core/cuda_driver.h"
#include "core/cuda_plan.h"
#include "core/cuda_sequence.h"
#include "gil.h"

namespace py = pybind11;

namespace rnncore_python {
namespace {

using rnncore::BackwardCall;
using rnncore::CudaCall;
using rnncore::CudaKernel;
using rnncore::CudaProgram;
using rnncore::CudaSequence;
using rnncore::CudaStack;
using rnncore::CudaType;
using rnncore::ForwardCall;
using rnncore::StackSpec;

using Address = std::uintptr_t;
using Strided = std::tuple<Address, int64_t, int64_t>;  // address, time and row stride in values
using MaskLists = std::tuple<std::vector<Strided>, std::vector<Address>, std::vector<Address>,
                             std::vector<Address>>;

template <class Pointer>
Pointer pointer(Address address) {
  return reinterpret_cast<Pointer>(address);
}

CudaType find_type(const std::string& name) {
  const char* const names[] = {"float16", "bfloat16", "float32", "float64"};
  for (int i = 0; i < 4; ++i) {
    if (name == names[i]) return static_cast<CudaType>(i);
  }
  throw py::value_error("dtype: expected float16, bfloat16, float32 or float64, got " + name);
}

// Compiled kernels by the host's names for them.
std::unique_ptr<CudaProgram> make_program(Address device,
                                          const std::map<std::string, Address>& kernels,
                                          int64_t width) {
  auto program = std::make_unique<CudaProgram>();
  program->width = width;
  program->device = pointer<const rnncore::CudaDevice*>(device);
  const char* const names[] = {
#define RNNCORE_NAME(name) #name,
      RNNCORE_CUDA_KERNELS(RNNCORE_NAME)
#undef RNNCORE_NAME
  };
  for (const auto& [name, kernel] : kernels) {
    const auto found = std::find(std::begin(names), std::end(names), name);
    if (found == std::end(names)) throw py::value_error("kernels: unknown name " + name);
    program->kernels[found - std::begin(names)] = pointer<void*>(kernel);
  }
  return program;
}

// Lengths int64 [rows] on the device, clamped to int32 [rows]; `beyond` is marked where any was not
// in 0 .. steps.
void take_lengths(const CudaProgram& program, Address stream, int64_t steps, int64_t rows,
                  Address lengths, Address taken, Address beyond) {
  rnncore::cuda::TakeLengths take;
  take.steps = steps;
  take.rows = rows;
  take.lengths = pointer<const rnncore::cuda::Index*>(lengths);
  take.taken = pointer<int*>(taken);
  take.beyond = pointer<int*>(beyond);
  const CudaCall call(program, pointer<void*>(stream), false);
  call.for_each_row(CudaKernel::take_lengths, rows ? 1 : 0, take);
}

// Addresses in the order of the spec's parameters.
template <class Pointer>
std::vector<rnncore::LayerArrays<Pointer>> layer_addresses(const StackSpec& s,
                                                           const std::vector<Address>& list) {
  std::vector<rnncore::LayerArrays<Pointer>> all(
      static_cast<size_t>(s.num_layers * s.num_directions));
  size_t next = 0;
  const auto take = [&](bool there) {
    return there ? pointer<Pointer>(list.at(next++)) : Pointer();
  };
  const bool norm_c = s.layer_norm && s.carries_c();
  for (auto& arrays : all) {
    arrays.weight_ih = take(true);
    arrays.weight_hh = take(true);
    arrays.bias_ih = take(s.bias);
    arrays.bias_hh = take(s.bias);
    arrays.weight_hr = take(s.proj_size > 0);
    arrays.peephole = take(s.peephole);
    arrays.norm_ih = take(s.layer_norm);
    arrays.norm_hh = take(s.layer_norm);
    arrays.norm_c = take(norm_c);
    arrays.norm_c_bias = take(norm_c);
  }
  if (next != list.size()) throw py::value_error("too many addresses of parameters");
  return all;
}

rnncore::Sequence sequence(const Strided& given) {
  const auto [data, time_stride, row_stride] = given;
  return {pointer<const void*>(data), time_stride, row_stride};
}
rnncore::MutableSequence writable(const Strided& given) {
  const auto [data, time_stride, row_stride] = given;
  return {pointer<void*>(data), time_stride, row_stride};
}

rnncore::Masks take_masks(const MaskLists& given) {
  rnncore::Masks masks;
  const auto& [inputs, recurrent, kept_h, kept_c] = given;
  for (const Strided& mask : inputs) masks.inputs.push_back(sequence(mask));
  for (const Address mask : recurrent) masks.recurrent.push_back(pointer<const void*>(mask));
  for (const Address mask : kept_h) masks.kept_h.push_back(pointer<const unsigned char*>(mask));
  for (const Address mask : kept_c) masks.kept_c.push_back(pointer<const unsigned char*>(mask));
  return masks;
}

std::unique_ptr<CudaSequence> make_sequence(const CudaStack& stack, int64_t steps, int64_t batch,
                                            const std::optional<std::vector<int64_t>>& host_lengths,
                                            Address lengths, Address resets, const Strided& x,
                                            Address h0, Address c0,
                                            const std::optional<MaskLists>& masks) {
  ForwardCall call;
  call.steps = steps;
  call.batch = batch;
  call.resets = pointer<const unsigned char*>(resets);
  call.x = sequence(x);
  call.h0 = pointer<const void*>(h0);
  call.c0 = pointer<const void*>(c0);
  if (masks) call.masks = take_masks(*masks);
  const int64_t* known = host_lengths && batch ? host_lengths->data() : nullptr;
  return std::make_unique<CudaSequence>(stack, call, known, pointer<const int32_t*>(lengths));
}

void run_forward(CudaSequence& self, const CudaProgram& program, Address stream, bool allow_tf32,
                 Address tape, Address workspace, bool keep, const Strided& y, Address hn,
                 Address cn) {
  self.call().y = writable(y);
  self.call().hn = pointer<void*>(hn);
  self.call().cn = pointer<void*>(cn);
  const ReleasedGil released;
  self.forward(CudaCall(program, pointer<void*>(stream), allow_tf32), pointer<void*>(tape),
               pointer<void*>(workspace), keep);
}

void run_backward(CudaSequence& self, const CudaProgram& program, Address stream, bool allow_tf32,
                  Address tape, Address workspace, const Strided& dy, Address dhn, Address dcn,
                  const Strided& dx, Address dh0, Address dc0,
                  const std::vector<Address>& gradients, bool retain) {
  BackwardCall call;
  call.dy = sequence(dy);
  call.dhn = pointer<const void*>(dhn);
  call.dcn = pointer<const void*>(dcn);
  call.dx = writable(dx);
  call.dh0 = pointer<void*>(dh0);
  call.dc0 = pointer<void*>(dc0);
  call.gradients = layer_addresses<void*>(self.spec(), gradients);
  call.retain = retain;
  const ReleasedGil released;
  self.backward(CudaCall(program, pointer<void*>(stream), allow_tf32), call, pointer<void*>(tape),
                pointer<void*>(workspace));
}

// The cells that kernels are compiled for, by name.
struct CudaCell {
  int phases;
  bool has_plain;
};
std::map<std::string, CudaCell> cuda_cells() {
  std::map<std::string, CudaCell> all;
  for (int cell = 0; cell < rnncore::num_cells(); ++cell) {
    const rnncore::CellShape& shape = rnncore::cell_shape(cell);
    all[shape.name] = {shape.second_gates() ? 2 : 1, shape.has_plain};
  }
  return all;
}

// Every width that a cell's persistent blocks may have.
std::vector<int64_t> cuda_widths(const std::string& cell, const std::string& dtype) {
  StackSpec spec;
  spec.cell = rnncore::cell_named(cell.c_str());
  if (spec.cell < 0) throw py::value_error("cell: expected a name of cuda_cells(), got " + cell);
  std::vector<int64_t> all;
  for (const int64_t width : rnncore::kPersistentWidths) {
    spec.hidden_size = width;
    if (rnncore::persistent_width(spec, find_type(dtype)) == width) all.push_back(width);
  }
  return all;
}

void raise_device_errors(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const rnncore::CudaError& error) {
    const py::object kind = py::module_::import("rnncore.errors").attr("DeviceError");
    PyErr_SetString(kind.ptr(), error.what());
  }
}

}  // namespace

void bind_cuda(py::module_& m) {
  py::register_exception_translator(&raise_device_errors);
  py::class_<CudaCell>(m, "CudaCell")
      .def_readonly("phases", &CudaCell::phases)
      .def_readonly("has_plain", &CudaCell::has_plain);
  m.def("cuda_cells", &cuda_cells);
  m.def("cuda_widths", &cuda_widths, py::arg("cell"), py::arg("dtype"));
  m.def(
      "cuda_width",
      [](const StackSpec& spec, const std::string& dtype) {
        return rnncore::persistent_width(spec, find_type(dtype));
      },
      py::arg("spec"), py::arg("dtype"));
  m.def(
      "cuda_tape_width",
      [](const StackSpec& spec, const std::string& dtype, const std::vector<bool>& masked,
         bool ragged) { return rnncore::cuda_tape_width(spec, find_type(dtype), masked, ragged); },
      py::arg("spec"), py::arg("dtype"), py::arg("masked"), py::arg("ragged"));
  m.def("cuda_device", [] { return reinterpret_cast<Address>(rnncore::cuda_device()); });
  py::class_<CudaProgram>(m, "CudaProgram")
      .def(py::init(&make_program), py::arg("device"), py::arg("kernels"), py::arg("width"))
      .def("take_lengths", &take_lengths, py::arg("stream"), py::arg("steps"), py::arg("rows"),
           py::arg("lengths"), py::arg("taken"), py::arg("beyond"));
  py::class_<CudaStack>(m, "CudaStack")
      .def(py::init([](const StackSpec& spec, const std::string& dtype,
                       const std::vector<Address>& params) {
             return std::make_unique<CudaStack>(spec, find_type(dtype),
                                                layer_addresses<const void*>(spec, params));
           }),
           py::arg("spec"), py::arg("dtype"), py::arg("params"))
      .def_property_readonly("nbytes", &CudaStack::nbytes)
      .def(
          "pack",
          [](CudaStack& self, const CudaProgram& program, Address stream, Address block) {
            self.pack(CudaCall(program, pointer<void*>(stream), false), pointer<void*>(block));
          },
          py::arg("program"), py::arg("stream"), py::arg("block"));
  py::class_<CudaSequence>(m, "CudaSequence")
      .def(py::init(&make_sequence), py::keep_alive<1, 2>(), py::arg("stack"), py::arg("steps"),
           py::arg("batch"), py::arg("host_lengths"), py::arg("lengths"), py::arg("resets"),
           py::arg("x"), py::arg("h0"), py::arg("c0"), py::arg("masks"))
      .def("tape_bytes", &CudaSequence::tape_bytes, py::arg("keep"))
      .def("forward_bytes", &CudaSequence::forward_bytes)
      .def(
          "backward_bytes",
          [](const CudaSequence& self, bool retain) {
            BackwardCall call;
            call.retain = retain;
            return self.backward_bytes(call);
          },
          py::arg("retain"))
      .def(
          "resume", [](CudaSequence& self, const Strided& y) { self.call().y = writable(y); },
          py::arg("y"))
      .def("forward", &run_forward, py::arg("program"), py::arg("stream"), py::arg("allow_tf32"),
           py::arg("tape"), py::arg("workspace"), py::arg("keep"), py::arg("y"), py::arg("hn"),
           py::arg("cn"))
      .def("backward", &run_backward, py::arg("program"), py::arg("stream"), py::arg("allow_tf32"),
           py::arg("tape"), py::arg("workspace"), py::arg("dy"), py::arg("dhn"), py::arg("dcn"),
           py::arg("dx"), py::arg("dh0"), py::arg("dc0"), py::arg("gradients"), py::arg("retain"));
}

}  // namespace rnncore_python
