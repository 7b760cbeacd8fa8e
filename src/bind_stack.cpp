// Spec, Packed, Tape, forward and backward: whole sequences.

#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "arrays.h"
#include "gil.h"
#include "rnncore/c_api.h"
#include "rnncore/limits.h"
#include "rnncore/stack.h"
#include "rnncore/threads.h"

namespace rnncore_python {
namespace {

using rnncore::StackSpec;

StackSpec make_spec(const std::string& cell, int64_t input_size, int64_t hidden_size,
                    int64_t num_layers, int64_t num_directions, int64_t proj_size, bool bias,
                    const std::string& nonlinearity, const std::string& dtype,
                    const std::string& weights) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  const auto within = [&](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return;
    throw py::value_error(std::string(name) + ": expected " + std::to_string(least) + " to " +
                          std::to_string(most) + ", got " + std::to_string(value));
  };
  within("input_size", input_size, 1, kLargest);
  within("hidden_size", hidden_size, 1, kLargest);
  within("num_layers", num_layers, 1, 1 << 20);
  within("num_directions", num_directions, 1, 2);
  within("proj_size", proj_size, 0, hidden_size);
  StackSpec spec;
  if (cell == "lstm") {
    spec.cell = rnncore::CellKind::lstm;
  } else if (cell == "gru") {
    spec.cell = rnncore::CellKind::gru;
  } else if (cell == "rnn" && nonlinearity == "tanh") {
    spec.cell = rnncore::CellKind::rnn_tanh;
  } else if (cell == "rnn" && nonlinearity == "relu") {
    spec.cell = rnncore::CellKind::rnn_relu;
  } else {
    throw py::value_error("cell: expected 'rnn' (tanh or relu), 'lstm' or 'gru', got '" + cell +
                          "' with '" + nonlinearity + "'");
  }
  if (proj_size && cell != "lstm") throw py::value_error("proj_size: only an LSTM has one");
  if (dtype != "float32" && dtype != "float64") {
    throw py::type_error("dtype: expected 'float32' or 'float64', got '" + dtype + "'");
  }
  spec.dtype = dtype == "float32" ? rnncore::Dtype::float32 : rnncore::Dtype::float64;
  if (weights == "bfloat16") {
    spec.weights = rnncore::Weights::bfloat16;
  } else if (weights == "int8") {
    spec.weights = rnncore::Weights::int8;
  } else if (weights != "full") {
    throw py::value_error("weights: expected 'full', 'bfloat16' or 'int8', got '" + weights + "'");
  }
  spec.input_size = input_size;
  spec.hidden_size = hidden_size;
  spec.num_layers = num_layers;
  spec.num_directions = num_directions;
  spec.proj_size = proj_size;
  spec.bias = bias;
  return spec;
}

const char* cell_name(const StackSpec& spec) {
  if (spec.cell == rnncore::CellKind::lstm) return "lstm";
  return spec.cell == rnncore::CellKind::gru ? "gru" : "rnn";
}

// Addresses of a flat list of parameters or gradients, in their order.
template <class Pointer>
std::vector<rnncore::LayerArrays<Pointer>> layer_arrays(const StackSpec& s, const py::list& list,
                                                        const char* name, bool writable) {
  const size_t each = 2 + (s.bias ? 2 : 0) + (s.proj_size ? 1 : 0);
  const size_t layers = static_cast<size_t>(s.num_layers * s.num_directions);
  if (list.size() != each * layers) {
    throw py::value_error(std::string(name) + ": expected " + std::to_string(each * layers) +
                          " arrays, got " + std::to_string(list.size()));
  }
  std::vector<rnncore::LayerArrays<Pointer>> arrays(layers);
  size_t next = 0;
  const auto take = [&](const std::vector<int64_t>& shape) -> Pointer {
    const py::object item = list[next++];
    return contiguous(name, item, 'f', s.item_size(), shape, writable);
  };
  const int64_t height = s.gates() * s.hidden_size;
  for (size_t i = 0; i < layers; ++i) {
    const int64_t layer = static_cast<int64_t>(i) / s.num_directions;
    arrays[i].weight_ih = take({height, s.layer_inputs(layer)});
    arrays[i].weight_hh = take({height, s.outputs()});
    if (s.bias) arrays[i].bias_ih = take({height});
    if (s.bias) arrays[i].bias_hh = take({height});
    if (s.proj_size) arrays[i].weight_hr = take({s.proj_size, s.hidden_size});
  }
  return arrays;
}

// Packed weights, and the arrays that they were packed from.
struct Packed {
  StackSpec spec;
  py::list arrays;
  std::unique_ptr<rnncore::PackedStack> stack;

  Packed(const StackSpec& s, const py::sequence& params, int num_threads) : spec(s) {
    for (const py::handle item : params) arrays.append(item);
    auto weights = layer_arrays<const void*>(spec, arrays, "params", false);
    const ReleasedGil released;
    stack = std::make_unique<rnncore::PackedStack>(spec, std::move(weights), num_threads);
  }
};

struct PyTape {
  rnncore::Tape tape;
  std::vector<int64_t> x_shape;
};

std::vector<rnncore::Sequence> mask_sequences(const StackSpec& s, py::handle masks, int64_t steps,
                                              int64_t batch) {
  std::vector<rnncore::Sequence> all;
  if (masks.is_none()) return all;
  const py::sequence list = py::reinterpret_borrow<py::sequence>(masks);
  if (static_cast<int64_t>(list.size()) != s.num_layers) {
    throw py::value_error("masks: expected one entry a layer");
  }
  for (int64_t layer = 0; layer < s.num_layers; ++layer) {
    const py::object item = list[static_cast<size_t>(layer)];
    all.push_back(as_const(sequence_or_none("masks", item, s.item_size(),
                                            {steps, batch, s.layer_inputs(layer)}, false)));
  }
  return all;
}

// x's steps and batch.
std::pair<int64_t, int64_t> extent_of(const StackSpec& s, const py::array& x) {
  if (x.ndim() != 3 || x.shape(2) != s.input_size) wrong_shape("x", {-1, -1, s.input_size}, x);
  return {x.shape(0), x.shape(1)};
}

rnncore::ForwardCall make_call(const StackSpec& s, const py::array& x, py::handle h0, py::handle c0,
                               py::handle masks, py::handle y, bool y_writable, int num_threads) {
  const auto [steps, batch] = extent_of(s, x);
  const int64_t item = s.item_size(), layers = s.num_layers * s.num_directions;
  rnncore::ForwardCall call;
  call.steps = steps;
  call.batch = batch;
  call.x = as_const(sequence("x", x, item, {steps, batch, s.input_size}, false));
  call.h0 = contiguous_or_none("h0", h0, 'f', item, {layers, batch, s.outputs()}, false);
  if (s.carries_c()) {
    call.c0 = contiguous_or_none("c0", c0, 'f', item, {layers, batch, s.hidden_size}, false);
  }
  call.masks = mask_sequences(s, masks, steps, batch);
  call.y = sequence("y", y, item, {steps, batch, s.num_directions * s.outputs()}, y_writable);
  call.num_threads = num_threads;
  call.interrupt = python_interrupt();
  return call;
}

// Runs without the GIL; a signal handler that raised is Python's error to report.
template <class Work>
void released(const Work& work) {
  try {
    const ReleasedGil without;
    work();
  } catch (const rnncore::Interrupted&) {
    throw py::error_already_set();
  }
}

py::object forward(const Packed& packed, const py::array& x, py::handle h0, py::handle c0,
                   py::handle lengths, py::handle y, py::handle hn, py::handle cn, py::handle masks,
                   bool keep, int num_threads) {
  const StackSpec& s = packed.spec;
  rnncore::ForwardCall call = make_call(s, x, h0, c0, masks, y, true, num_threads);
  const int64_t item = s.item_size(), layers = s.num_layers * s.num_directions;
  auto tape = keep ? std::make_unique<PyTape>() : nullptr;
  if (!lengths.is_none()) {
    call.lengths =
        static_cast<const int64_t*>(contiguous("lengths", lengths, 'i', 8, {call.batch}, false));
    for (int64_t i = 0; i < call.batch; ++i) {
      if (call.lengths[i] >= 0 && call.lengths[i] <= call.steps) continue;
      throw py::value_error("lengths: expected 0 to " + std::to_string(call.steps));
    }
  }
  call.hn = contiguous("hn", hn, 'f', item, {layers, call.batch, s.outputs()}, true);
  if (s.carries_c()) {
    call.cn = contiguous("cn", cn, 'f', item, {layers, call.batch, s.hidden_size}, true);
  }
  released([&] { rnncore::forward(*packed.stack, call, tape ? &tape->tape : nullptr); });
  if (!tape) return py::none();
  tape->x_shape = {call.steps, call.batch};
  return py::cast(std::move(tape));
}

void backward(const Packed& packed, PyTape& tape, const py::array& x, py::handle y, py::handle h0,
              py::handle c0, py::handle masks, py::handle dy, py::handle dhn, py::handle dcn,
              py::handle dx, py::handle dh0, py::handle dc0, const py::list& grads, bool retain,
              int num_threads) {
  const StackSpec& s = packed.spec;
  rnncore::BackwardCall call;
  call.forward = make_call(s, x, h0, c0, masks, y, false, num_threads);
  const int64_t steps = call.forward.steps, batch = call.forward.batch, item = s.item_size();
  const int64_t layers = s.num_layers * s.num_directions;
  if (tape.tape.spent()) throw std::runtime_error("tape: it was consumed by an earlier backward");
  if (tape.x_shape != std::vector<int64_t>{steps, batch}) {
    throw std::runtime_error("tape: it is of another call");
  }
  const std::vector<int64_t> h_shape = {layers, batch, s.outputs()};
  const std::vector<int64_t> c_shape = {layers, batch, s.hidden_size};
  call.dy = as_const(
      sequence_or_none("dy", dy, item, {steps, batch, s.num_directions * s.outputs()}, false));
  call.dhn = contiguous_or_none("dhn", dhn, 'f', item, h_shape, false);
  call.dx = sequence_or_none("dx", dx, item, {steps, batch, s.input_size}, true);
  call.dh0 = contiguous_or_none("dh0", dh0, 'f', item, h_shape, true);
  if (s.carries_c()) {
    call.dcn = contiguous_or_none("dcn", dcn, 'f', item, c_shape, false);
    call.dc0 = contiguous_or_none("dc0", dc0, 'f', item, c_shape, true);
  }
  call.gradients = layer_arrays<void*>(s, grads, "grads", true);
  call.retain = retain;
  released([&] { rnncore::backward(*packed.stack, tape.tape, call); });
}

double stream_seconds(const Packed& packed, int64_t batch, int64_t steps) {
  if (packed.spec.num_directions != 1) {
    throw py::value_error("packed: expected a stack in one direction");
  }
  if (batch < 1) throw py::value_error("batch: expected 1 or more, got " + std::to_string(batch));
  const ReleasedGil released;
  return rnncore::measure_stream_step(*packed.stack, batch, steps, rnncore::get_num_threads());
}

// The core's object for other languages; the capsule keeps this one alive.
py::object packed_capsule(const py::object& self) {
  void* stack = self.cast<const Packed&>().stack.get();
  PyObject* capsule = PyCapsule_New(stack, RNNCORE_PACKED_CAPSULE, [](PyObject* ending) {
    Py_XDECREF(static_cast<PyObject*>(PyCapsule_GetContext(ending)));
  });
  if (!capsule) throw py::error_already_set();
  PyCapsule_SetContext(capsule, self.inc_ref().ptr());
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace

void bind_stream_limit(py::module_& m) {
  m.def("stream_seconds", &stream_seconds, py::arg("packed"), py::arg("batch"), py::arg("steps"));
}

void bind_stack(py::module_& m) {
  py::class_<StackSpec>(m, "Spec")
      .def(py::init(&make_spec), py::arg("cell"), py::arg("input_size"), py::arg("hidden_size"),
           py::arg("num_layers"), py::arg("num_directions"), py::arg("proj_size") = 0,
           py::arg("bias") = true, py::arg("nonlinearity") = "tanh", py::arg("dtype") = "float32",
           py::arg("weights") = "full")
      .def_property_readonly("cell", &cell_name)
      .def_readonly("input_size", &StackSpec::input_size)
      .def_readonly("hidden_size", &StackSpec::hidden_size)
      .def_readonly("num_layers", &StackSpec::num_layers)
      .def_readonly("num_directions", &StackSpec::num_directions)
      .def_readonly("proj_size", &StackSpec::proj_size)
      .def_readonly("bias", &StackSpec::bias)
      .def_property_readonly("nonlinearity",
                             [](const StackSpec& s) {
                               return s.cell == rnncore::CellKind::rnn_relu ? "relu" : "tanh";
                             })
      .def_property_readonly("dtype",
                             [](const StackSpec& s) {
                               return s.dtype == rnncore::Dtype::float32 ? "float32" : "float64";
                             })
      .def_property_readonly("weights", [](const StackSpec& s) {
        if (s.weights == rnncore::Weights::full) return "full";
        return s.weights == rnncore::Weights::bfloat16 ? "bfloat16" : "int8";
      });
  py::class_<Packed>(m, "Packed")
      .def(py::init<const StackSpec&, const py::sequence&, int>(), py::arg("spec"),
           py::arg("params"), py::arg("num_threads"))
      .def_readonly("spec", &Packed::spec)
      .def_property_readonly("nbytes", [](const Packed& p) { return p.stack->nbytes(); })
      .def_property_readonly("_capsule", &packed_capsule);
  py::class_<PyTape>(m, "Tape")
      .def_property_readonly("nbytes", [](const PyTape& t) { return t.tape.nbytes(); })
      .def_property_readonly("spent", [](const PyTape& t) { return t.tape.spent(); });
  m.def("forward", &forward, py::arg("packed"), py::arg("x"), py::arg("h0"), py::arg("c0"),
        py::arg("lengths"), py::arg("y"), py::arg("hn"), py::arg("cn"), py::arg("masks"),
        py::arg("keep"), py::arg("num_threads"));
  m.def("backward", &backward, py::arg("packed"), py::arg("tape"), py::arg("x"), py::arg("y"),
        py::arg("h0"), py::arg("c0"), py::arg("masks"), py::arg("dy"), py::arg("dhn"),
        py::arg("dcn"), py::arg("dx"), py::arg("dh0"), py::arg("dc0"), py::arg("grads"),
        py::arg("retain"), py::arg("num_threads"));
}

}  // namespace rnncore_python
