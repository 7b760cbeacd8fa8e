// ForwardRun: what each member of the team does. See forward_run.h.
#include "core/forward_run.h"

#include <algorithm>

namespace rnncore {
template <class T>
void ForwardRun<T>::job(void* self, Run& run, int index) {
  static_cast<ForwardRun*>(self)->work(run, index);
}

template <class T>
bool ForwardRun<T>::run(Lease& lease, const Interrupt& interrupt) {
  return lease.run(members(), interrupt, job, this);
}

template <class T>
bool ForwardRun<T>::meet_rows(Run& run, int index) {
  if (index == 0) run.poll();
  const size_t row = static_cast<size_t>(member_of(crew_->plan, index).row);
  return crew_->row_barriers[row].wait(run);
}

// A stack in one direction takes a turn of steps through all layers before the next one, so that
// what lies between layers does not grow with T; both directions need a layer's every step first.
template <class T>
void ForwardRun<T>::work(Run& run, int index) {
  const int64_t width = takes_turns() ? turn_ : std::max<int64_t>(1, sequences_->steps());
  for (int64_t begin = 0; begin < sequences_->steps(); begin += width) {
    const Range steps = {begin, std::min(begin + width, sequences_->steps())};
    for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
      if (!run_layer(run, index, layer, steps)) return;
    }
  }
}

template <class T>
bool ForwardRun<T>::run_layer(Run& run, int index, int64_t layer, Range steps) {
  const Member member = member_of(crew_->plan, index);
  if (masks_[static_cast<size_t>(layer)].data) {
    apply_mask(index, layer, steps);
    if (!meet_rows(run, index)) return false;
  }
  for (int64_t k = member.direction; k < spec_.num_directions; k += crew_->plan.directions) {
    if (!run_direction(run, index, layer, k, steps)) return false;
  }
  return meet_rows(run, index);
}

template <class T>
bool ForwardRun<T>::run_direction(Run& run, int index, int64_t layer, int64_t direction,
                                  Range steps) {
  for (int64_t begin = steps.begin; begin < steps.end; begin += chunk_) {
    const Range chunk = {begin, std::min(begin + chunk_, steps.end)};
    const int64_t origin = takes_turns() ? steps.begin : 0;
    if (!is_fused(layer)) project(index, layer, direction, chunk, origin);
    recur(run, index, layer, direction, chunk, origin);
    if (!run.live()) return false;
  }
  return true;
}

// A layer's input rows. What lies between layers begins at step `origin`.
template <class T>
SequenceRows<const T> ForwardRun<T>::inputs_of(int64_t layer, int64_t direction,
                                               int64_t origin) const {
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + direction);
  const bool buffered = layer || masks_[0].data;
  return directions_[which].x.from(buffered ? origin : 0);
}

// Slot rows of the chunk = start + x W, for this member's rows and units.
template <class T>
void ForwardRun<T>::project(int index, int64_t layer, int64_t direction, Range steps,
                            int64_t origin) {
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + direction);
  const Member member = member_of(crew_->plan, index);
  const Sequences& seq = *sequences_;
  const SequenceRows<const T> x = inputs_of(layer, direction, origin);
  const bool norm = spec_.layer_norm, keeps = keeps_gates();
  const NormalisedRows<T> rows = normalised_of(which, direction);
  T* to = norm ? rows.input : slots_of(which, direction);
  const ptrdiff_t stride = norm ? rows.input_stride : slots_stride_;
  const Scratch& scratch = crew_->scratch[static_cast<size_t>(index)];
  const T** a = scratch.a.template as<const T*>();
  T** c = scratch.c.template as<T*>();
  int64_t count = 0;
  for (int64_t s = steps.begin; s < steps.end; ++s) {
    const int64_t first = keeps ? seq.offsets()[s] : (s - steps.begin) * seq.batch();
    for (int64_t r = member.row; r < seq.alive(s); r += crew_->plan.rows, ++count) {
      a[count] = x.at(s, r);
      c[count] = to + (first + r) * stride;
    }
  }
  RowsProduct<T> product = input_product<T>(packed_, which);
  product.rows = count;
  product.a = a;
  product.c = c;
  const Range groups = part_of(padded(spec_.hidden_size) / kGroup, member.unit, crew_->plan.units);
  product.group_begin = groups.begin;
  product.group_end = groups.end;
  product.records = scratch.x_records.template as<char>();
  weights_.rows_product(product);
}

template <class T>
void ForwardRun<T>::recur(Run& run, int index, int64_t layer, int64_t direction, Range steps,
                          int64_t origin) {
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + direction);
  const Member member = member_of(crew_->plan, index);
  const LayerPanels& panels = packed_.panels[which];
  Direction& d = directions_[which];
  const int64_t barrier = member.row * crew_->plan.directions + member.direction;
  StepGate gate = {&run, &crew_->unit_barriers[static_cast<size_t>(barrier)], index == 0};
  ForwardLoop<T> loop;
  loop.share = share_of(spec_, crew_->plan, member, steps, *sequences_, gate);
  loop.units = spec_.hidden_size;
  loop.outputs = spec_.outputs();
  loop.panels = panels.recurrent;
  loop.second_panels = panels.second;
  loop.bias = static_cast<const T*>(panels.start);
  if (is_fused(layer)) {
    loop.x = inputs_of(layer, direction, origin);
    loop.inputs = spec_.layer_inputs(layer);
    loop.input_panels = panels.input;
  }
  loop.slots_stride = slots_stride_;
  loop.keep = keeps_gates();
  loop.keep_c = tape_ != nullptr;
  loop.slots = slots_of(which, direction);
  loop.normalised = normalised_of(which, direction);
  if (tape_) loop.c_kept = tape_->layers[which].c.template as<T>();
  if (loop.keep) {
    loop.hidden = tape_->layers[which].hidden.template as<T>();
  } else {
    loop.dense = sequences_->batch();
    loop.hidden = d.hidden.template as<T>();
  }
  if (optional_) loop.options = &d.options;
  loop.h[0] = d.h[0];
  loop.h[1] = d.h[1];
  loop.from_zeros = from_zeros_ && packed_.finite_recurrent;
  loop.entering[0] = d.entering[0];
  loop.entering[1] = d.entering[1];
  loop.c = d.c;
  loop.state_stride = state_stride_;
  const bool inner = layer + 1 < spec_.num_layers;
  loop.y = d.y.from(inner ? origin : 0);
  loop.projection_panels = panels.projection;
  const Scratch& scratch = crew_->scratch[static_cast<size_t>(index)];
  loop.x_records = scratch.x_records.template as<char>();
  loop.h_records = scratch.h_records.template as<char>();
  loop.a = scratch.a.template as<const T*>();
  loop.to = scratch.c.template as<T*>();
  loop.row_scratch = scratch.row.template as<T>();
  weights_.forward[spec_.cell][optional_](loop);
}

template <class T>
T* ForwardRun<T>::slots_of(size_t which, int64_t direction) const {
  if (keeps_gates()) return tape_->layers[which].slots.template as<T>();
  return chunks_[static_cast<size_t>(direction)].slots.template as<T>();
}

template <class T>
NormalisedRows<T> ForwardRun<T>::normalised_of(size_t which, int64_t direction) const {
  if (!spec_.layer_norm) return {};
  const CellShape& shape = packed_.shape;
  if (keeps_gates()) {
    const LayerTape& t = tape_->layers[which];
    return normalised_rows<T>(shape, spec_.hidden_size, t.norm_input, t.norm_recurrent, t.inverse);
  }
  const Chunk& c = chunks_[static_cast<size_t>(direction)];
  return normalised_rows<T>(shape, spec_.hidden_size, c.norm_input, c.norm_recurrent, c.inverse);
}

// The layer's input times its mask, for this member's part of the rows that its group shares.
template <class T>
void ForwardRun<T>::apply_mask(int index, int64_t layer, Range steps) {
  const Member member = member_of(crew_->plan, index);
  const Sequences& seq = *sequences_;
  const Sequence& mask = masks_[static_cast<size_t>(layer)];
  const int64_t inputs = spec_.layer_inputs(layer);
  const int64_t origin = takes_turns() ? steps.begin : 0;
  T* masked = (tape_ ? tape_->masked : masked_)[static_cast<size_t>(layer)].template as<T>();
  const size_t below = static_cast<size_t>((layer ? layer - 1 : 0) * spec_.num_directions);
  const SequenceRows<T> unmasked = directions_[below].y.from(origin);
  const int64_t members = crew_->plan.directions * crew_->plan.units;
  const int64_t part = member.direction * crew_->plan.units + member.unit;
  int64_t turn = 0;
  for (int64_t t = steps.begin; t < steps.end; ++t) {
    for (int64_t r = member.row; r < seq.alive(t); r += crew_->plan.rows, ++turn) {
      if (turn % members != part) continue;
      const T* x = layer ? unmasked.at(t, r)
                         : static_cast<const T*>(x_.data) + t * x_.time_stride +
                               seq.order()[r] * x_.row_stride;
      const T* m = static_cast<const T*>(mask.data) + t * mask.time_stride +
                   seq.order()[r] * mask.row_stride;
      kernels_.multiply(masked + ((t - origin) * seq.batch() + r) * inputs, x, m, inputs);
    }
  }
}

template class ForwardRun<float>;
template class ForwardRun<double>;

}  // namespace rnncore
