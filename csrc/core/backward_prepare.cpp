// BackwardRun: what happens before and after the team runs. See backward_run.h.
#include <algorithm>
#include <cstring>

#include "core/backward_run.h"

namespace rnncore {
namespace {

// Where row gate * units + unit of a weight's gradient is found in a slot row.
Buffer slot_columns(const CellShape& shape, const int* order, int first_slot, int64_t units) {
  Buffer columns = Buffer::of<int64_t>(shape.gates * units);
  for (int place = 0; place < shape.gates; ++place) {
    int64_t* to = columns.as<int64_t>() + order[place] * units;
    for (int64_t u = 0; u < units; ++u) {
      to[u] = (u / kGroup * shape.slots + first_slot + place) * kGroup + u % kGroup;
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
  input_columns_ = slot_columns(shape, shape.input_order, shape.input_slot, spec_.hidden_size);
  recurrent_columns_ =
      slot_columns(shape, shape.recurrent_order, shape.recurrent_slot, spec_.hidden_size);
  output_columns_ = Buffer::of<int64_t>(spec_.outputs());
  for (int64_t p = 0; p < spec_.outputs(); ++p) output_columns_.as<int64_t>()[p] = p;
  choose_scratch();
  allocate();
  locate();
  fill_states();
  retain_tape();
  fit(threads);
}

template <class T>
void BackwardRun<T>::fit(int threads) {
  if (!scratch_.empty() && threads >= threads_) return;
  plan_ = make_plan(work_of(packed_, sequences_), threads);
  // Products over all steps split evenly whatever the recurrence does, where they are worth it.
  const int64_t products =
      sequences_.live() * spec_.hidden_size * spec_.gates() * (spec_.outputs() + spec_.input_size);
  threads_ = products > 2'000'000 ? std::max(threads, plan_.members()) : plan_.members();
  scratch_.clear();
  scratch_.resize(static_cast<size_t>(threads_));
  for (Scratch& scratch : scratch_) {
    scratch.a = Buffer::of<const T*>(2 * kRowsAtOnce);
    scratch.c = Buffer::of<T*>(kRowsAtOnce);
    scratch.outer = Buffer::of<T>(kOuterScratch);
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
  adds_at_once_ = weights * static_cast<double>(sequences_.live()) < kShort;
  sums_wait_ = !adds_at_once_ || sequences_.live() > kRowsAtOnce;
}

template <class T>
void BackwardRun<T>::allocate() {
  const int64_t batch = sequences_.batch(), live = sequences_.live();
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs(), gates = spec_.gates();
  const bool reads_h = packed_.shape.reads_h;
  for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      Direction& d = direction(layer, k);
      const int64_t states = batch * state_stride_;
      d.dh = Buffer::zeros<T>(states);
      d.dc = Buffer::zeros<T>(spec_.carries_c() ? states : 0);
      d.c_initial = Buffer::zeros<T>(spec_.carries_c() ? states : 0);
      d.direct = Buffer::zeros<T>(reads_h ? states : 0);
      d.h_initial = Buffer::zeros<T>(states);
      if (spec_.proj_size) d.doutput = Buffer::of<T>(live * padded(outputs));
      d.x.allocate(batch);
      d.y.allocate(batch);
      d.dy.allocate(batch);
      const int64_t matrices = gates * units * (spec_.layer_inputs(layer) + outputs);
      const int64_t biases = spec_.bias ? 2 * gates * units : 0;
      const int64_t projection = spec_.proj_size * units;
      if (sums_wait_) d.weights = Buffer::of<T>(matrices + biases + projection);
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

// With `retain` the gradients go to a copy of the gates, else over them.
template <class T>
void BackwardRun<T>::retain_tape() {
  for (size_t i = 0; i < directions_.size(); ++i) {
    const Buffer& slots = tape_.layers[i].slots;
    Direction& d = directions_[i];
    if (call_.retain) {
      d.retained = Buffer(slots.size());
      std::memcpy(d.retained.template as<char>(), slots.as<char>(), slots.size());
    }
    d.slots = (call_.retain ? d.retained : slots).template as<T>();
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
      std::copy_n(dc, units, static_cast<T*>(call_.dc0) + row * units);
    }
  }
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
