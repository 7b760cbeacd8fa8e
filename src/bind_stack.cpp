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

void within(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  throw py::value_error(std::string(name) + ": expected " + std::to_string(least) + " to " +
                        std::to_string(most) + ", got " + std::to_string(value));
}

// The kernels' cell for what callers call one.
int find_cell(const std::string& cell, const std::string& nonlinearity, bool coupled,
              bool reset_after) {
  std::string name = cell;
  if (cell == "rnn") name += "_" + nonlinearity;
  if (coupled) name += "_coupled";
  if (!reset_after) name += "_reset_before";
  const int found = rnncore::cell_named(name.c_str());
  if (found < 0) throw py::value_error("cell: expected one of csrc/cells, got '" + name + "'");
  return found;
}

rnncore::Activation make_activation(const py::handle& given) {
  const auto [name, alpha, beta] = given.cast<std::tuple<std::string, double, double>>();
  const int kind = rnncore::activation_named(name.c_str());
  if (kind < 0) throw py::value_error("activations: expected ONNX' names, got '" + name + "'");
  return {kind, alpha, beta};
}

// Those of gates, candidate and output; a cell without gates has a candidate alone.
void take_activations(StackSpec& spec, const py::object& given) {
  if (given.is_none()) return;
  const py::tuple list = given;
  const size_t expected = spec.gates() == 1 ? 1 : spec.carries_c() ? 3 : 2;
  if (list.size() != expected) {
    throw py::value_error("activations: expected " + std::to_string(expected) + ", got " +
                          std::to_string(list.size()));
  }
  spec.default_activations = false;
  size_t next = 0;
  if (expected > 1) spec.gate = make_activation(list[next++]);
  spec.candidate = make_activation(list[next++]);
  if (expected > 2) spec.output = make_activation(list[next]);
}

void take_options(StackSpec& spec, bool peephole, bool layer_norm,
                  const std::pair<double, double>& zoneout, const py::object& activations,
                  const py::object& clip) {
  const auto rate = [](double p) {
    if (p >= 0 && p < 1) return p;
    throw py::value_error("zoneout: expected rates from 0 to below 1, got " + std::to_string(p));
  };
  if (peephole && !spec.carries_c()) throw py::value_error("peephole: only an LSTM has them");
  if (zoneout.second != 0 && !spec.carries_c()) {
    throw py::value_error("zoneout: only an LSTM has a second rate");
  }
  spec.peephole = peephole;
  spec.layer_norm = layer_norm;
  spec.zoneout_h = rate(zoneout.first);
  spec.zoneout_c = rate(zoneout.second);
  take_activations(spec, activations);
  if (clip.is_none()) return;
  spec.clip = clip.cast<double>();
  if (!(spec.clip > 0)) throw py::value_error("clip: expected a number above 0");
}

StackSpec make_spec(const std::string& cell, int64_t input_size, int64_t hidden_size,
                    int64_t num_layers, int64_t num_directions, int64_t proj_size, bool bias,
                    const std::string& nonlinearity, const std::string& dtype,
                    const std::string& weights, bool peephole, bool coupled, bool reset_after,
                    bool layer_norm, const std::pair<double, double>& zoneout,
                    const py::object& activations, const py::object& clip) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  within("input_size", input_size, 1, kLargest);
  within("hidden_size", hidden_size, 1, kLargest);
  within("num_layers", num_layers, 1, 1 << 20);
  within("num_directions", num_directions, 1, 2);
  within("proj_size", proj_size, 0, hidden_size);
  StackSpec spec;
  spec.cell = find_cell(cell, nonlinearity, coupled, reset_after);
  if (proj_size && !spec.carries_c()) throw py::value_error("proj_size: only an LSTM has one");
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
  take_options(spec, peephole, layer_norm, zoneout, activations, clip);
  return spec;
}

// Addresses of a flat list of parameters or gradients, in their order. Where not `all`, the vectors
// that belong to options may be None.
template <class Pointer>
std::vector<rnncore::LayerArrays<Pointer>> layer_arrays(const StackSpec& s, const py::list& list,
                                                        const char* name, bool writable,
                                                        bool all = true) {
  const bool norm_c = s.layer_norm && s.carries_c();
  const size_t each = 2 + (s.bias ? 2 : 0) + (s.proj_size ? 1 : 0) + (s.peephole ? 1 : 0) +
                      (s.layer_norm ? 2 : 0) + (norm_c ? 2 : 0);
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
  const auto take_vector = [&](int64_t length) -> Pointer {
    if (all || !list[next].is_none()) return take({length});
    ++next;
    return nullptr;
  };
  const int64_t height = s.gates() * s.hidden_size;
  for (size_t i = 0; i < layers; ++i) {
    const int64_t layer = static_cast<int64_t>(i) / s.num_directions;
    arrays[i].weight_ih = take({height, s.layer_inputs(layer)});
    arrays[i].weight_hh = take({height, s.outputs()});
    if (s.bias) arrays[i].bias_ih = take({height});
    if (s.bias) arrays[i].bias_hh = take({height});
    if (s.proj_size) arrays[i].weight_hr = take({s.proj_size, s.hidden_size});
    if (s.peephole) arrays[i].peephole = take_vector(3 * s.hidden_size);
    if (s.layer_norm) arrays[i].norm_ih = take_vector(height);
    if (s.layer_norm) arrays[i].norm_hh = take_vector(height);
    if (norm_c) arrays[i].norm_c = take_vector(s.hidden_size);
    if (norm_c) arrays[i].norm_c_bias = take_vector(s.hidden_size);
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
  PyTape() = default;
  PyTape(void* at, int64_t bytes) : tape(at, bytes) {}
  rnncore::Tape tape;
  py::object memory;  // what it lies in, if that is the caller's
  std::vector<int64_t> x_shape;
};

// Uninitialised numbers of the stack's dtype, (steps, batch, width), for a tape to lie in.
py::array tape_memory(const StackSpec& s, int64_t steps, int64_t batch, int64_t width) {
  within("steps", steps, 0, int64_t{1} << 40);
  within("batch", batch, 0, int64_t{1} << 20);
  within("width", width, 0, int64_t{1} << 40);
  const int64_t item = s.item_size();
  if (batch && width && steps > INT64_MAX / item / batch / width) throw std::bad_alloc();
  auto memory = std::make_unique<rnncore::TapeMemory>(steps * batch * width * item);
  void* data = memory->data();
  const py::capsule owner(memory.release(),
                          [](void* held) { delete static_cast<rnncore::TapeMemory*>(held); });
  return py::array(py::dtype(item == 4 ? "f4" : "f8"),
                   std::vector<py::ssize_t>{steps, batch, width}, data, owner);
}

// A tape in memory of its own, or in a contiguous array of the caller's.
std::unique_ptr<PyTape> make_tape(const StackSpec& s, const py::object& memory) {
  if (memory.is_none()) return std::make_unique<PyTape>();
  const py::array array = memory;
  if (array.size() == 0) return std::make_unique<PyTape>();  // at no address in particular
  void* data = contiguous("memory", memory, 'f', s.item_size(), shape_of(array), true);
  auto tape = std::make_unique<PyTape>(data, array.nbytes());
  tape->memory = memory;
  return tape;
}

// A list of masks with an entry, or None, for each of `count`.
template <class Take>
auto mask_list(const char* name, const py::handle& list, int64_t count, const Take& take) {
  std::vector<decltype(take(int64_t{}, py::object()))> all;
  if (list.is_none()) return all;
  const py::sequence given = py::reinterpret_borrow<py::sequence>(list);
  if (static_cast<int64_t>(given.size()) != count) {
    throw py::value_error(std::string(name) + ": expected " + std::to_string(count) +
                          " entries, got " + std::to_string(given.size()));
  }
  for (int64_t i = 0; i < count; ++i) all.push_back(take(i, given[static_cast<size_t>(i)]));
  return all;
}

// (inputs, recurrent, zoneout_h, zoneout_c), as rnncore.masks.Masks has them.
rnncore::Masks take_masks(const StackSpec& s, py::handle given, int64_t steps, int64_t batch) {
  rnncore::Masks masks;
  if (given.is_none()) return masks;
  const py::sequence parts = py::reinterpret_borrow<py::sequence>(given);
  if (parts.size() != 4) throw py::value_error("masks: expected 4 lists");
  const int64_t item = s.item_size(), directions = s.num_layers * s.num_directions;
  const py::object inputs = parts[0], recurrent = parts[1], kept_h = parts[2], kept_c = parts[3];
  masks.inputs = mask_list("masks.inputs", inputs, s.num_layers, [&](int64_t i, py::object mask) {
    const std::vector<int64_t> shape = {steps, batch, s.layer_inputs(i)};
    return as_const(sequence_or_none("masks.inputs", mask, item, shape, false));
  });
  const auto rows = [&](int64_t, py::object mask) -> const void* {
    return contiguous_or_none("masks.recurrent", mask, 'f', item, {batch, s.outputs()}, false);
  };
  masks.recurrent = mask_list("masks.recurrent", recurrent, directions, rows);
  const auto flags = [&](const char* name, int64_t width) {
    return [=](int64_t, py::object mask) {
      void* data = contiguous_or_none(name, mask, 'b', 1, {steps, batch, width}, false);
      return static_cast<const unsigned char*>(data);
    };
  };
  masks.kept_h =
      mask_list("masks.zoneout_h", kept_h, directions, flags("masks.zoneout_h", s.outputs()));
  masks.kept_c =
      mask_list("masks.zoneout_c", kept_c, directions, flags("masks.zoneout_c", s.hidden_size));
  return masks;
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
  call.masks = take_masks(s, masks, steps, batch);
  call.y = sequence("y", y, item, {steps, batch, s.num_directions * s.outputs()}, y_writable);
  call.num_threads = num_threads;
  call.interrupt = python_interrupt();
  return call;
}

void take_rows(rnncore::ForwardCall& call, py::handle lengths, py::handle resets) {
  if (!lengths.is_none()) {
    call.lengths =
        static_cast<const int64_t*>(contiguous("lengths", lengths, 'i', 8, {call.batch}, false));
    for (int64_t i = 0; i < call.batch; ++i) {
      if (call.lengths[i] >= 0 && call.lengths[i] <= call.steps) continue;
      throw py::value_error("lengths: expected 0 to " + std::to_string(call.steps));
    }
  }
  const std::vector<int64_t> places = {call.steps, call.batch};
  call.resets = static_cast<const unsigned char*>(
      contiguous_or_none("resets", resets, 'b', 1, places, false));
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
                   py::handle lengths, py::handle resets, py::handle y, py::handle hn,
                   py::handle cn, py::handle masks, bool keep, bool recompute, int num_threads,
                   const py::object& memory) {
  const StackSpec& s = packed.spec;
  rnncore::ForwardCall call = make_call(s, x, h0, c0, masks, y, true, num_threads);
  const int64_t item = s.item_size(), layers = s.num_layers * s.num_directions;
  auto tape = keep ? make_tape(s, memory) : nullptr;
  take_rows(call, lengths, resets);
  call.recompute = recompute;
  call.hn = contiguous("hn", hn, 'f', item, {layers, call.batch, s.outputs()}, true);
  if (s.carries_c()) {
    call.cn = contiguous("cn", cn, 'f', item, {layers, call.batch, s.hidden_size}, true);
  }
  released([&] { rnncore::forward(*packed.stack, call, tape ? &tape->tape : nullptr); });
  if (!tape) return py::none();
  tape->x_shape = {call.steps, call.batch};
  return py::cast(std::move(tape));
}

// A layer's number, told to Python; an error there stops the call.
bool tell_python(void* listener, int64_t layer) {
  py::gil_scoped_acquire acquire;
  PyObject* nothing = PyObject_CallFunction(static_cast<PyObject*>(listener), "L", layer);
  Py_XDECREF(nothing);
  return !nothing;
}

// (totals, finished): arrays as gradients are, and a callable that takes a layer's number.
rnncore::LayerReport take_report(const StackSpec& s, py::handle given) {
  rnncore::LayerReport report;
  if (given.is_none()) return report;
  const py::sequence parts = py::reinterpret_borrow<py::sequence>(given);
  if (parts.size() != 2) throw py::value_error("report: expected (totals, finished)");
  const py::object totals = parts[0], finished = parts[1];
  report.totals = layer_arrays<void*>(s, py::list(totals), "report", true, false);
  report.finished = tell_python;
  report.context = finished.ptr();
  return report;
}

// The tape that a forward call of these shapes left in `memory`.
std::unique_ptr<PyTape> tape_in(const Packed& packed, const py::object& memory, int64_t steps,
                                int64_t batch, py::handle lengths, py::handle resets,
                                py::handle masks, bool recompute) {
  rnncore::ForwardCall call;
  call.steps = steps;
  call.batch = batch;
  call.masks = take_masks(packed.spec, masks, steps, batch);
  call.recompute = recompute;
  take_rows(call, lengths, resets);
  auto tape = make_tape(packed.spec, memory);
  rnncore::find_again(*packed.stack, call, tape->tape);
  tape->x_shape = {steps, batch};
  return tape;
}

void backward(const Packed& packed, PyTape& tape, const py::array& x, py::handle y, py::handle h0,
              py::handle c0, py::handle masks, py::handle dy, py::handle dhn, py::handle dcn,
              py::handle dx, py::handle dh0, py::handle dc0, const py::list& grads, bool retain,
              int num_threads, bool overwrite, py::handle report) {
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
  call.report = take_report(s, report);
  call.overwrite = overwrite;
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
           py::arg("weights") = "full", py::arg("peephole") = false, py::arg("coupled") = false,
           py::arg("reset_after") = true, py::arg("layer_norm") = false,
           py::arg("zoneout") = std::make_pair(0.0, 0.0), py::arg("activations") = py::none(),
           py::arg("clip") = py::none())
      .def_property_readonly("cell_name", [](const StackSpec& s) { return s.shape().name; })
      .def_property_readonly("has_options", &StackSpec::has_options);
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
        py::arg("lengths"), py::arg("resets"), py::arg("y"), py::arg("hn"), py::arg("cn"),
        py::arg("masks"), py::arg("keep"), py::arg("recompute"), py::arg("num_threads"),
        py::arg("memory") = py::none());
  m.def("tape_width", &rnncore::tape_width, py::arg("spec"), py::arg("masked"),
        py::arg("recompute"));
  m.def("tape_memory", &tape_memory, py::arg("spec"), py::arg("steps"), py::arg("batch"),
        py::arg("width"));
  m.def("tape_in", &tape_in, py::arg("packed"), py::arg("memory"), py::arg("steps"),
        py::arg("batch"), py::arg("lengths"), py::arg("resets"), py::arg("masks"),
        py::arg("recompute"));
  m.def("backward", &backward, py::arg("packed"), py::arg("tape"), py::arg("x"), py::arg("y"),
        py::arg("h0"), py::arg("c0"), py::arg("masks"), py::arg("dy"), py::arg("dhn"),
        py::arg("dcn"), py::arg("dx"), py::arg("dh0"), py::arg("dc0"), py::arg("grads"),
        py::arg("retain"), py::arg("num_threads"), py::arg("overwrite") = false,
        py::arg("report") = py::none());
}

}  // namespace rnncore_python
