// ForwardRun: what happens before and after the team runs. See forward_run.h.
#include <algorithm>
#include <cstring>

#include "core/forward_run.h"

namespace rnncore {

Work work_of(const PackedStack::Content& packed, const Sequences& sequences) {
  const StackSpec& s = packed.spec;
  Work work;
  work.steps = sequences.steps();
  work.live = sequences.live();
  work.rows = sequences.batch();
  work.directions = s.num_directions;
  work.layers = s.num_layers;
  work.groups = padded(s.hidden_size) / kGroup;
  work.gates = packed.shape.recurrent_gates;
  work.inputs = s.layer_inputs(s.num_layers > 1 ? 1 : 0);
  work.outputs = s.outputs();
  work.item_size = s.item_size();
  work.weight_size = s.weights == Weights::int8       ? 1
                     : s.weights == Weights::bfloat16 ? 2
                                                      : static_cast<double>(s.item_size());
  work.lanes = s.dtype == Dtype::float32 ? packed.table->f32.lanes : packed.table->f64.lanes;
  const int64_t phases = packed.shape.second_gates() ? 2 : 1;
  work.meetings = phases * (s.layer_norm ? 2 : 1) + (s.proj_size ? 1 : 0);
  return work;
}

Share share_of(const StackSpec& spec, const Plan& plan, const Member& member, Range steps,
               const Sequences& sequences, StepGate& gate) {
  const Range groups = part_of(padded(spec.hidden_size) / kGroup, member.unit, plan.units);
  const Range outputs = part_of(padded(spec.outputs()) / kGroup, member.unit, plan.units);
  Share share;
  share.step_begin = steps.begin;
  share.step_end = steps.end;
  share.group_begin = groups.begin;
  share.group_end = groups.end;
  share.output_group_begin = outputs.begin;
  share.output_group_end = outputs.end;
  share.row_begin = member.row;
  share.row_stride = plan.rows;
  share.member = member.unit;
  share.members = plan.units;
  share.offsets = sequences.offsets();
  share.proceed = StepGate::proceed;
  share.context = &gate;
  return share;
}

template <class T>
ForwardRun<T>::ForwardRun(const PackedStack& packed, const ForwardCall& call, Tape::Content* tape,
                          int threads)
    : packed_(packed.content()),
      spec_(packed_.spec),
      kernels_(kernels_of<T>(*packed_.table)),
      weights_(weight_kernels<T>(*packed_.table, packed_.spec.weights)),
      tape_(tape) {
  if (tape) {
    tape->lay_out<T>(packed_, call);
    tape->clear_unused<T>(packed_);
  } else {
    own_sequences_ = Sequences(call.steps, call.batch, call.lengths, call.resets);
  }
  sequences_ = tape ? &tape->sequences : &own_sequences_;
  state_stride_ = padded(std::max(spec_.hidden_size, spec_.outputs()));
  slots_stride_ = slots_stride_of<T>(packed_.slot_row());
  masks_ = call.masks.inputs;
  masks_.resize(static_cast<size_t>(spec_.num_layers));
  make_crew(together_, threads);
  crew_ = &together_;
  chunk_ = together_.plan.chunk;
  // Masked inputs have a buffer for each layer, of a turn's steps.
  const bool masked =
      std::any_of(masks_.begin(), masks_.end(), [](const Sequence& mask) { return mask.data; });
  const int64_t turn = masked ? chunk_ : together_.plan.turn;
  turn_ = std::max(chunk_, std::min(turn, sequences_->steps()));
  allocate_states();
  allocate_between();
  choose_options(call);
}

template <class T>
void ForwardRun<T>::make_crew(Crew& crew, int threads) const {
  crew.plan = make_plan(work_of(packed_, *sequences_), threads);
  Plan& plan = crew.plan;
  plan.chunk = std::max<int64_t>(1, std::min(plan.chunk, sequences_->steps()));
  const int64_t rows_of_step = (sequences_->batch() + plan.rows - 1) / plan.rows;
  const int64_t rows = plan.chunk * rows_of_step;
  const int64_t units = padded(spec_.hidden_size);
  crew.scratch.resize(static_cast<size_t>(plan.members()));
  for (Scratch& scratch : crew.scratch) {
    scratch.a = Buffer::of<const T*>(std::max(rows, 2 * rows_of_step));
    scratch.c = Buffer::of<T*>(rows);
    if (spec_.layer_norm) scratch.row = Buffer::of<T>(units);
    if (spec_.weights == Weights::int8) allocate_records(scratch);
  }
  crew.row_barriers = std::vector<Barrier>(static_cast<size_t>(plan.rows));
  for (Barrier& barrier : crew.row_barriers) barrier.reset(plan.directions * plan.units);
  crew.unit_barriers = std::vector<Barrier>(static_cast<size_t>(plan.rows * plan.directions));
  for (Barrier& barrier : crew.unit_barriers) barrier.reset(plan.units);
}

// Records of a step's rows, which serve the products of a whole chunk, too.
template <class T>
void ForwardRun<T>::allocate_records(Scratch& scratch) const {
  int64_t inputs = 0;
  for (int64_t layer = 0; layer < std::min<int64_t>(2, spec_.num_layers); ++layer) {
    inputs = std::max(inputs, weights_.record_bytes(spec_.layer_inputs(layer)));
  }
  const int64_t states = weights_.record_bytes(std::max(spec_.hidden_size, spec_.outputs()));
  const int64_t rows = std::max(sequences_->batch(), kRecordsAtOnce);
  scratch.x_records = Buffer::of<char>(inputs * rows);
  scratch.h_records = Buffer::of<char>(states * rows);
}

template <class T>
void ForwardRun<T>::prepare_alone() {
  if (alone_.scratch.empty()) make_crew(alone_, 1);
}

template <class T>
void ForwardRun<T>::fit(int threads) {
  crew_ = &together_;
  if (threads >= members()) return;
  prepare_alone();
  crew_ = &alone_;
}

// Steps that a buffer between layers holds.
template <class T>
int64_t ForwardRun<T>::inner_steps() const {
  return takes_turns() ? turn_ : sequences_->steps();
}

template <class T>
void ForwardRun<T>::allocate_states() {
  const int64_t batch = sequences_->batch();
  const int64_t wide = padded(spec_.hidden_size);
  const size_t count = static_cast<size_t>(spec_.num_layers * spec_.num_directions);
  directions_.resize(count);
  for (size_t i = 0; i < count; ++i) {
    Direction& d = directions_[i];
    for (int side = 0; side < 2; ++side) {
      d.h_block[side] = Buffer::zeros<T>(batch * state_stride_);
      d.h[side] = d.h_block[side].template as<T>();
    }
    d.c_block = Buffer::zeros<T>(spec_.carries_c() ? batch * state_stride_ : 0);
    d.c = d.c_block.template as<T>();
    d.x.allocate(batch);
    d.y.allocate(batch);
    if (spec_.has_hidden() && !keeps_gates()) d.hidden = Buffer::of<T>(batch * wide);
  }
}

// What lies between the input and the last layer's output, where no tape has it.
template <class T>
void ForwardRun<T>::allocate_between() {
  const int64_t batch = sequences_->batch(), layers = spec_.num_layers;
  const int64_t outputs = spec_.num_directions * spec_.outputs();
  for (int64_t i = 0; !tape_ && i + 1 < layers && i < 2; ++i) {
    inner_.push_back(Buffer::of<T>(inner_steps() * batch * outputs));
  }
  for (int64_t layer = 0; !tape_ && layer < layers; ++layer) {
    const bool has = masks_[static_cast<size_t>(layer)].data != nullptr;
    const int64_t values = inner_steps() * batch * spec_.layer_inputs(layer);
    masked_.push_back(has ? Buffer::of<T>(values) : Buffer());
  }
  const int64_t rows = chunk_ * batch, wide = padded(spec_.hidden_size);
  for (int64_t d = 0; d < spec_.num_directions && !keeps_gates(); ++d) {
    Chunk& chunk = chunks_.emplace_back();
    chunk.slots = Buffer::of<T>(rows * slots_stride_);
    if (!spec_.layer_norm) continue;
    chunk.norm_input = Buffer::of<T>(rows * packed_.shape.input_gates * wide);
    chunk.norm_recurrent = Buffer::of<T>(rows * packed_.shape.recurrent_gates * wide);
    chunk.inverse = Buffer::of<T>(rows * kInverses);
  }
}

// What each layer and direction does beyond its plain equations; masks come with bind().
template <class T>
void ForwardRun<T>::choose_options(const ForwardCall& call) {
  optional_ = has_options(spec_, call.masks, *sequences_);
  if (!optional_) return;
  zeros_ = Buffer::zeros<T>(state_stride_);
  for (size_t i = 0; i < directions_.size(); ++i) {
    Direction& d = directions_[i];
    d.options = cell_options<T>(spec_, packed_.panels[i]);
    d.options.fresh = sequences_->fresh(i % static_cast<size_t>(spec_.num_directions) == 1);
    d.options.zeros = zeros_.template as<T>();
    if (call.masks.recurrent.empty() || !call.masks.recurrent[i]) continue;
    for (int side = 0; side < 2; ++side) {
      d.entering_block[side] = Buffer::zeros<T>(sequences_->batch() * state_stride_);
      d.entering[side] = d.entering_block[side].template as<T>();
    }
  }
}

template <class T>
void ForwardRun<T>::bind(const ForwardCall& call) {
  locate_arrays(call);
  set_states(static_cast<const T*>(call.h0), static_cast<const T*>(call.c0));
}

// Each layer's input and output rows, in each direction.
template <class T>
void ForwardRun<T>::locate_arrays(const ForwardCall& call) {
  const Sequences& seq = *sequences_;
  const int64_t batch = seq.batch(), layers = spec_.num_layers, outputs = spec_.outputs();
  const int64_t wide = spec_.num_directions * outputs;
  std::vector<Buffer>& inner = tape_ ? tape_->outputs : inner_;
  const auto inner_of = [&](int64_t layer) {
    const int64_t i = tape_ ? layer : layer % 2;
    return inner[static_cast<size_t>(i)].template as<T>();
  };
  for (int64_t layer = 0; layer < layers; ++layer) {
    const Buffer& masked = (tape_ ? tape_->masked : masked_)[static_cast<size_t>(layer)];
    const int64_t inputs = spec_.layer_inputs(layer);
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      Direction& d = directions_[static_cast<size_t>(layer * spec_.num_directions + k)];
      if (masked) {
        d.x.step = seq.locate<const T>(masked.template as<T>(), batch * inputs, inputs, k == 1,
                                       true, d.x.first);
      } else if (layer) {
        d.x.step = seq.locate<const T>(inner_of(layer - 1), batch * inputs, inputs, k == 1, true,
                                       d.x.first);
      } else {
        d.x.step = seq.locate(static_cast<const T*>(call.x.data), call.x.time_stride,
                              call.x.row_stride, k == 1, false, d.x.first);
      }
      if (layer + 1 < layers) {
        d.y.step =
            seq.locate(inner_of(layer) + k * outputs, batch * wide, wide, k == 1, true, d.y.first);
      } else {
        d.y.step = seq.locate(static_cast<T*>(call.y.data) + k * outputs, call.y.time_stride,
                              call.y.row_stride, k == 1, false, d.y.first);
      }
    }
  }
  masks_ = call.masks.inputs;
  masks_.resize(static_cast<size_t>(layers));
  for (size_t i = 0; i < directions_.size() && optional_; ++i) {
    directions_[i].random.locate(spec_, call.masks, seq, i);
    directions_[i].random.put_into(directions_[i].options);
  }
  x_ = call.x;
  if (!seq.ragged()) return;
  for (int64_t r = 0; r < batch; ++r) {
    T* row = static_cast<T*>(call.y.data) + seq.order()[r] * call.y.row_stride;
    for (int64_t t = seq.length()[r]; t < call.steps; ++t) {
      std::fill_n(row + t * call.y.time_stride, wide, T(0));
    }
  }
}

template <class T>
void ForwardRun<T>::set_states(const T* h, const T* c) {
  const int64_t batch = sequences_->batch(), units = spec_.hidden_size, outputs = spec_.outputs();
  const int64_t values = static_cast<int64_t>(directions_.size()) * batch * outputs;
  from_zeros_ = !h || std::all_of(h, h + values, [](T value) { return value == T(0); });
  for (size_t i = 0; i < directions_.size(); ++i) {
    Direction& d = directions_[i];
    const int64_t at = static_cast<int64_t>(i) * batch;
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t row = at + sequences_->order()[r];
      T* to = d.h[0] + r * state_stride_;
      h ? std::copy_n(h + row * outputs, outputs, to) : std::fill_n(to, outputs, T(0));
      if (d.entering[0]) {
        kernels_.multiply(d.entering[0] + r * state_stride_, to, d.random.entering[r], outputs);
      }
      if (!spec_.carries_c()) continue;
      to = d.c + r * state_stride_;
      c ? std::copy_n(c + row * units, units, to) : std::fill_n(to, units, T(0));
    }
  }
}

// The state at a sequence's end: a sequence of no steps ends where it starts.
template <class T>
const T* ForwardRun<T>::final_row(int64_t which, int64_t rank, bool of_c) const {
  const Direction& d = directions_[static_cast<size_t>(which)];
  const int64_t length = sequences_->length()[rank];
  if (!of_c) return d.h[length % 2] + rank * state_stride_;
  if (!tape_ || length == 0) return d.c + rank * state_stride_;
  const T* kept = tape_->layers[static_cast<size_t>(which)].c.template as<T>();
  return kept + (sequences_->offsets()[length - 1] + rank) * padded(spec_.hidden_size);
}

template <class T>
void ForwardRun<T>::write_states(void* hn, void* cn) const {
  const int64_t batch = sequences_->batch(), outputs = spec_.outputs();
  for (int64_t i = 0; i < static_cast<int64_t>(directions_.size()); ++i) {
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t row = i * batch + sequences_->order()[r];
      if (hn) std::copy_n(final_row(i, r, false), outputs, static_cast<T*>(hn) + row * outputs);
      if (!cn || !spec_.carries_c()) continue;
      std::copy_n(final_row(i, r, true), spec_.hidden_size,
                  static_cast<T*>(cn) + row * spec_.hidden_size);
    }
  }
}

template <class T>
void ForwardRun<T>::carry_states() {
  for (Direction& d : directions_) {
    if (sequences_->steps() % 2) std::swap(d.h[0], d.h[1]);
  }
  from_zeros_ = false;
}

template <class T>
void ForwardRun<T>::point_at(const T* x, int64_t x_row_stride, T* y, int64_t y_row_stride) {
  Direction& first = directions_.front();
  Direction& last = directions_.back();
  for (int64_t r = 0; r < sequences_->batch(); ++r) {
    first.x.first[r] = x + r * x_row_stride;
    last.y.first[r] = y + r * y_row_stride;
  }
}

template <class T>
void ForwardRun<T>::clear_states(const unsigned char* rows) {
  for (Direction& d : directions_) {
    for (int64_t r = 0; r < sequences_->batch(); ++r) {
      if (rows && !rows[r]) continue;
      std::fill_n(d.h[0] + r * state_stride_, state_stride_, T(0));
      if (spec_.carries_c()) std::fill_n(d.c + r * state_stride_, state_stride_, T(0));
    }
  }
  if (!rows) from_zeros_ = true;
}

template <class T>
void ForwardRun<T>::get_states(T* h, T* c) const {
  const int64_t batch = sequences_->batch(), outputs = spec_.outputs();
  for (size_t i = 0; i < directions_.size(); ++i) {
    const Direction& d = directions_[i];
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t row = static_cast<int64_t>(i) * batch + sequences_->order()[r];
      std::copy_n(d.h[0] + r * state_stride_, outputs, h + row * outputs);
      if (!c) continue;
      std::copy_n(d.c + r * state_stride_, spec_.hidden_size, c + row * spec_.hidden_size);
    }
  }
}

template class ForwardRun<float>;
template class ForwardRun<double>;

}  // namespace rnncore
