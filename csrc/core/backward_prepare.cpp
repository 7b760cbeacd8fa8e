// BackwardRun: what happens before and after the team runs. See backward_run.h.
#include <algorithm>
#include <cstring>

#include "core/backward_run.h"

namespace rnncore {
namespace {

// Where row gate * units + unit of a weight's gradient is found in rows of so many slots.
Buffer slot_columns(const CellShape& shape, const int* order, int gates, int slots, int first_slot,
                    int64_t units) {
  Buffer columns = Buffer::zeros<int64_t>(shape.parameter_gates * units);
  for (int place = 0; place < gates; ++place) {
    int64_t* to = columns.as<int64_t>() + order[place] * units;
    for (int64_t u = 0; u < units; ++u) {
      to[u] = (u / kGroup * slots + first_slot + place) * kGroup + u % kGroup;
    }
  }
  return columns;
}

}  // namespace

template <class T>
BackwardRun<T>::BackwardRun(const PackedStack& packed, Tape::Content& tape,
                            const BackwardCall& call, int threads)
    : packed_(packed.content()),
      spec_(packed_.spec),
      kernels_(kernels_of<T>(*packed_.table)),
      tape_(tape),
      call_(call),
      sequences_(tape.sequences) {
  state_stride_ = padded(std::max(spec_.hidden_size, spec_.outputs()));
  directions_.resize(static_cast<size_t>(spec_.num_layers * spec_.num_directions));
  const CellShape& shape = packed_.shape;
  const int64_t units = spec_.hidden_size;
  const bool norm = spec_.layer_norm;
  input_columns_ =
      slot_columns(shape, shape.input_order, shape.input_gates,
                   norm ? shape.input_gates : shape.slots, norm ? 0 : shape.input_slot, units);
  recurrent_columns_ = slot_columns(shape, shape.recurrent_order, shape.recurrent_gates,
                                    norm ? shape.recurrent_gates : shape.slots,
                                    norm ? 0 : shape.recurrent_slot, units);
  output_columns_ = Buffer::of<int64_t>(spec_.outputs());
  for (int64_t p = 0; p < spec_.outputs(); ++p) output_columns_.as<int64_t>()[p] = p;
  choose_scratch();
  choose_options();
  allocate();
  locate();
  fill_states();
  take_gates();
  fit(threads);
}

template <class T>
void BackwardRun<T>::fit(int threads) {
  if (!scratch_.empty() && threads >= threads_) return;
  Work work = work_of(packed_, sequences_);
  if (tape_.recompute) work.directions = 1;  // one after the other, block by block
  plan_ = make_plan(work, threads);
  // Products over all steps split evenly whatever the recurrence does, where they are worth it.
  const int64_t products =
      sequences_.live() * spec_.hidden_size * spec_.gates() * (spec_.outputs() + spec_.input_size);
  threads_ = products > 2'000'000 ? std::max(threads, plan_.members()) : plan_.members();
  scratch_.clear();
  scratch_.resize(static_cast<size_t>(threads_));
  for (Scratch& scratch : scratch_) {
    scratch.a = Buffer::of<const T*>(2 * kRowsAtOnce);
    scratch.c = Buffer::of<T*>(kRowsAtOnce);
    scratch.outer = Buffer::of<T>(outer_scratch(most_rows(), widest_factor()));
    if (spec_.layer_norm) scratch.row = Buffer::of<T>(3 * padded(spec_.hidden_size));
    if (drops_h_) {
      scratch.entering = Buffer::of<T>(kRowsAtOnce * spec_.outputs());
    }
    if (tape_.recompute) scratch.known = Buffer::of<const T*>(2 * kRebuiltAtOnce);
    if (spec_.num_directions == 2) {
      const int64_t widest =
          std::max(spec_.input_size, spec_.num_layers > 1 ? spec_.layer_inputs(1) : 0);
      scratch.second = Buffer::of<T>(dx_rows_at_once() * widest);
    }
  }
  unit_barriers_ = std::vector<Barrier>(static_cast<size_t>(plan_.rows * plan_.directions));
  for (Barrier& barrier : unit_barriers_) barrier.reset(plan_.units);
  all_.reset(threads_);
}

// Of products over all steps: rows at a time, and columns of what gradients are multiplied by.
template <class T>
int64_t BackwardRun<T>::most_rows() const {
  return std::min(kRowsAtOnce, tape_.recompute ? block_rows() : sequences_.live());
}
template <class T>
int64_t BackwardRun<T>::widest_factor() const {
  return std::max({spec_.input_size, spec_.layer_inputs(spec_.num_layers - 1), spec_.outputs(),
                   spec_.hidden_size});
}

// By sizes alone: the products that nobody may interrupt take a tenth of a second or two.
template <class T>
void BackwardRun<T>::choose_scratch() {
  constexpr double kShort = 1e10;  // multiply-adds
  double weights = 0;
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    const int64_t across = spec_.layer_inputs(layer) + spec_.outputs();
    weights += static_cast<double>(spec_.num_directions * spec_.gates() * spec_.hidden_size) *
               static_cast<double>(across);
  }
  const double products = weights * static_cast<double>(sequences_.live());
  adds_at_once_ = products < kShort && !tape_.recompute && !call_.report.finished;
  sums_wait_ = !adds_at_once_ || sequences_.live() > kRowsAtOnce;
}

template <class T>
void BackwardRun<T>::choose_options() {
  const bool norm = spec_.layer_norm;
  const CellShape& shape = packed_.shape;
  unit_places_ = UnitGradients(spec_.peephole, norm, shape.carries_c, padded(spec_.hidden_size),
                               shape.input_gates, shape.recurrent_gates);
  optional_ = has_options(spec_, call_.forward.masks, sequences_);
  if (!optional_) return;
  zeros_ = Buffer::zeros<T>(state_stride_);
  vector_sums_ = Buffer::of<T>(unit_places_.size * static_cast<int64_t>(directions_.size()));
  for (size_t i = 0; i < directions_.size(); ++i) {
    Direction& d = directions_[i];
    d.options = cell_options<T>(spec_, packed_.panels[i]);
    d.options.fresh = sequences_.fresh(i % static_cast<size_t>(spec_.num_directions) == 1);
    d.options.zeros = zeros_.template as<T>();
    d.random.locate(spec_, call_.forward.masks, sequences_, i);
    d.random.put_into(d.options);
    if (d.random.entering) drops_h_ = true;
    d.unit_gradients = Buffer::zeros<T>(sequences_.batch() * unit_places_.size);
  }
}

template <class T>
void BackwardRun<T>::allocate() {
  const int64_t batch = sequences_.batch();
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs(), gates = spec_.gates();
  const bool skips =
      packed_.shape.input_gates < gates;  // rows of gradients that nothing is added to
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      Direction& d = direction(layer, k);
      const int64_t states = batch * state_stride_;
      d.dh = Buffer::zeros<T>(states);
      d.dc = Buffer::zeros<T>(spec_.carries_c() ? states : 0);
      d.c_initial = Buffer::zeros<T>(spec_.carries_c() ? states : 0);
      if (packed_.shape.reads_h || d.options.zoneout_h.acts()) d.direct = Buffer::zeros<T>(states);
      d.bias_sums = Buffer::of<T>(spec_.bias ? packed_.slot_row() : 0);
      d.h_initial = Buffer::zeros<T>(states);
      if (spec_.layer_norm) d.row_gradients = Buffer::zeros<T>(states);
      d.x.allocate(batch);
      d.y.allocate(batch);
      d.dy.allocate(batch);
      const int64_t matrices = gates * units * (spec_.layer_inputs(layer) + outputs);
      const int64_t biases = spec_.bias ? 2 * gates * units : 0;
      const int64_t projection = spec_.proj_size * units;
      const int64_t all = matrices + biases + projection;
      if (sums_wait_) d.weights = skips ? Buffer::zeros<T>(all) : Buffer::of<T>(all);
    }
    if (layer + 1 == spec_.num_layers) continue;
    inner_.push_back(Buffer::of<T>(sequences_.steps() * batch * spec_.num_directions * outputs));
  }
}

template <class T>
void BackwardRun<T>::locate() {
  const Sequences& seq = sequences_;
  const int64_t batch = seq.batch(), outputs = spec_.outputs(), layers = spec_.num_layers;
  const int64_t wide = spec_.num_directions * outputs;
  const ForwardCall& f = call_.forward;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const size_t l = static_cast<size_t>(layer);
    const int64_t inputs = spec_.layer_inputs(layer);
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      Direction& d = direction(layer, k);
      const bool back = k == 1;
      if (tape_.masked[l] || layer) {
        const Buffer& from = tape_.masked[l] ? tape_.masked[l] : tape_.outputs[l - 1];
        d.x.step = seq.locate<const T>(from.as<T>(), batch * inputs, inputs, back, true, d.x.first);
      } else {
        d.x.step = seq.locate(static_cast<const T*>(f.x.data), f.x.time_stride, f.x.row_stride,
                              back, false, d.x.first);
      }
      if (layer + 1 < layers) {
        const T* y = tape_.outputs[l].template as<T>() + k * outputs;
        const T* dy = inner_[l].template as<T>() + k * outputs;
        d.y.step = seq.locate(y, batch * wide, wide, back, true, d.y.first);
        d.dy.step = seq.locate(dy, batch * wide, wide, back, true, d.dy.first);
        continue;
      }
      const T* y = static_cast<const T*>(f.y.data) + k * outputs;
      d.y.step = seq.locate(y, f.y.time_stride, f.y.row_stride, back, false, d.y.first);
      if (!call_.dy.data) continue;
      const T* dy = static_cast<const T*>(call_.dy.data) + k * outputs;
      d.dy.step =
          seq.locate(dy, call_.dy.time_stride, call_.dy.row_stride, back, false, d.dy.first);
    }
  }
}

template <class T>
void BackwardRun<T>::fill_states() {
  const int64_t batch = sequences_.batch(), units = spec_.hidden_size, outputs = spec_.outputs();
  const auto fill = [&](const void* from, int64_t i, int64_t width, const Buffer& buffer) {
    for (int64_t r = 0; from && buffer.size() && r < batch; ++r) {
      const T* row = static_cast<const T*>(from) + (i * batch + sequences_.order()[r]) * width;
      std::copy_n(row, width, buffer.as<T>() + r * state_stride_);
    }
  };
  for (int64_t i = 0; i < static_cast<int64_t>(directions_.size()); ++i) {
    Direction& d = directions_[static_cast<size_t>(i)];
    fill(call_.dhn, i, outputs, d.dh);
    fill(call_.dcn, i, units, d.dc);
    fill(call_.forward.h0, i, outputs, d.h_initial);
    fill(call_.forward.c0, i, units, d.c_initial);
  }
  if (!call_.dx.data || !sequences_.ragged()) return;
  for (int64_t r = 0; r < batch; ++r) {
    T* row = static_cast<T*>(call_.dx.data) + sequences_.order()[r] * call_.dx.row_stride;
    for (int64_t t = sequences_.length()[r]; t < sequences_.all_steps(); ++t) {
      std::fill_n(row + t * call_.dx.time_stride, spec_.input_size, T(0));
    }
  }
}

// Room for some rows of gates; what a block makes again, or a copy of the tape's.
template <class T>
void BackwardRun<T>::allocate_gates(Gates& gates, int64_t rows) {
  const CellShape& shape = packed_.shape;
  const int64_t wide = padded(spec_.hidden_size);
  gates.slots_block = Buffer::of<T>(rows * tape_.slots_stride);
  if (!spec_.layer_norm) return;
  gates.norm_input_block = Buffer::of<T>(rows * shape.input_gates * wide);
  gates.norm_recurrent_block = Buffer::of<T>(rows * shape.recurrent_gates * wide);
}

// Gradients overwrite the tape's gates, with `retain` a copy of them, and where the tape has none
// those that a block makes again.
template <class T>
void BackwardRun<T>::take_gates() {
  const auto copy = [](const Buffer& from, Buffer& to) {
    if (from.size()) std::memcpy(to.as<char>(), from.as<char>(), from.size());
  };
  const auto point = [&](Gates& gates, const Buffer& slots, const Buffer& input,
                         const Buffer& recurrent, const Buffer& inverse, const Buffer& hidden) {
    gates.slots = slots.as<T>();
    gates.hidden = hidden.as<T>();
    if (!spec_.layer_norm) return;
    gates.normalised =
        normalised_rows<T>(packed_.shape, spec_.hidden_size, input, recurrent, inverse);
  };
  const int64_t outputs = spec_.proj_size ? padded(spec_.outputs()) : 0;
  if (tape_.recompute) {
    Gates& g = block_gates_;
    const int64_t rows = block_rows(), wide = padded(spec_.hidden_size);
    allocate_gates(g, rows);
    if (spec_.layer_norm) g.inverse_block = Buffer::of<T>(rows * kInverses);
    if (spec_.has_hidden()) g.hidden_block = Buffer::of<T>(rows * wide);
    g.doutput = Buffer::of<T>(rows * outputs);
    point(g, g.slots_block, g.norm_input_block, g.norm_recurrent_block, g.inverse_block,
          g.hidden_block);
    return;
  }
  for (size_t i = 0; i < directions_.size(); ++i) {
    const LayerTape& tape = tape_.layers[i];
    Gates& g = directions_[i].gates;
    g.doutput = Buffer::of<T>(sequences_.live() * outputs);
    if (!call_.retain) {
      point(g, tape.slots, tape.norm_input, tape.norm_recurrent, tape.inverse, tape.hidden);
      continue;
    }
    allocate_gates(g, sequences_.live());
    copy(tape.slots, g.slots_block);
    copy(tape.norm_input, g.norm_input_block);
    copy(tape.norm_recurrent, g.norm_recurrent_block);
    point(g, g.slots_block, g.norm_input_block, g.norm_recurrent_block, tape.inverse, tape.hidden);
  }
}

template <class T>
void BackwardRun<T>::write_states() const {
  const int64_t batch = sequences_.batch(), units = spec_.hidden_size, outputs = spec_.outputs();
  for (int64_t i = 0; i < static_cast<int64_t>(directions_.size()); ++i) {
    const Direction& d = directions_[static_cast<size_t>(i)];
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t row = i * batch + sequences_.order()[r];
      const T* dh = d.dh.template as<T>() + r * state_stride_;
      if (call_.dh0) std::copy_n(dh, outputs, static_cast<T*>(call_.dh0) + row * outputs);
      if (!call_.dc0 || !spec_.carries_c()) continue;
      const T* dc = d.dc.template as<T>() + r * state_stride_;
      T* to = static_cast<T*>(call_.dc0) + row * units;
      const unsigned char* fresh = sequences_.fresh(i % spec_.num_directions == 1);
      const bool replaced = fresh && sequences_.length()[r] && fresh[r];  // by the first segment's
      replaced ? std::fill_n(to, units, T(0)) : std::copy_n(dc, units, to);
    }
  }
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
