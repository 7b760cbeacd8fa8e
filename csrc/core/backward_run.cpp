// BackwardRun: what each member of the team does. See backward_run.h.
#include "core/backward_run.h"

#include <algorithm>

#include "core/packed_row.h"

namespace rnncore {
template <class T>
void BackwardRun<T>::job(void* self, Run& run, int index) {
  static_cast<BackwardRun*>(self)->work(run, index);
}

template <class T>
bool BackwardRun<T>::run(Lease& lease) {
  return lease.run(threads_, call_.forward.interrupt, job, this);
}

template <class T>
void BackwardRun<T>::work(Run& run, int index) {
  for (int64_t layer = spec_.num_layers - 1; layer >= 0; --layer) {
    if (!run_layer(run, index, layer)) return;
    if (!all_.wait(run)) return;
    if (call_.report.finished && !report(run, index, layer)) return;
  }
  for (int64_t layer = 0; layer < spec_.num_layers && adds_at_once_; ++layer) {
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      make_weights(run, index, layer, k, whole());
    }
  }
}

template <class T>
bool BackwardRun<T>::run_layer(Run& run, int index, int64_t layer) {
  if (tape_.recompute) {
    for (int64_t k = 0; k < spec_.num_directions; ++k) {
      if (!run_blocks(run, index, layer, k)) return false;
    }
    if (wants_dx(layer)) mask_dx(layer, part_of(sequences_.live(), index, threads_));
    return true;
  }
  if (index < plan_.members()) {
    const int first = member_of(plan_, index).direction;
    for (int64_t k = first; k < spec_.num_directions; k += plan_.directions) {
      recur(run, index, layer, k, whole());
    }
  }
  if (!all_.wait(run)) return false;
  if (wants_dx(layer) && !make_dx(run, index, layer)) return false;
  for (int64_t k = 0; k < spec_.num_directions && !adds_at_once_; ++k) {
    if (!make_weights(run, index, layer, k, whole())) return false;
  }
  return true;
}

template <class T>
typename BackwardRun<T>::Block BackwardRun<T>::whole() const {
  return {{0, sequences_.steps()}, {0, sequences_.live()}, true, true};
}

template <class T>
void BackwardRun<T>::recur(Run& run, int index, int64_t layer, int64_t k, const Block& block) {
  const Member member = member_of(plan_, index);
  Direction& d = direction(layer, k);
  Gates& gates = gates_of(layer, k);
  const LayerTape& tape = tape_of(layer, k);
  const LayerPanels& panels = packed_.panels[static_cast<size_t>(layer * spec_.num_directions + k)];
  const int64_t barrier = member.row * plan_.directions + member.direction;
  StepGate gate = {&run, &unit_barriers_[static_cast<size_t>(barrier)], index == 0};
  BackwardLoop<T> loop;
  loop.share = share_of(spec_, plan_, member, block.steps, sequences_, gate);
  loop.steps = sequences_.steps();
  loop.units = spec_.hidden_size;
  loop.outputs = spec_.outputs();
  loop.panels = static_cast<const T*>(panels.recurrent_columns);
  loop.second_panels = static_cast<const T*>(panels.second_columns);
  loop.slots = gates.slots;
  loop.slots_stride = tape_.slots_stride;
  loop.first_row = block.rows.begin;
  loop.c_kept = tape.c.template as<T>();
  loop.c_initial = d.c_initial.template as<T>();
  loop.h_initial = d.h_initial.template as<T>();
  loop.y = d.y.from(0);
  if (layer + 1 < spec_.num_layers || call_.dy.data) loop.dy = d.dy.from(0);
  loop.dh = d.dh.template as<T>();
  loop.dc = d.dc.template as<T>();
  loop.direct = d.direct.template as<T>();
  loop.state_stride = state_stride_;
  loop.projection_panels = static_cast<const T*>(panels.projection_columns);
  loop.doutput = gates.doutput.template as<T>();
  if (optional_) loop.options = &d.options;
  loop.normalised = gates.normalised;
  loop.row_gradients = d.row_gradients.template as<T>();
  loop.row_scratch = scratch_[static_cast<size_t>(index)].row.template as<T>();
  loop.unit_gradients = d.unit_gradients.template as<T>();
  loop.unit_stride = unit_places_.size;
  loop.unit_places = unit_places_;
  kernels_.backward[spec_.cell][optional_](loop);
}

// Where the gradient of a layer's input goes: the caller's dx, or dy of the layer below.
template <class T>
MutableSequence BackwardRun<T>::dx_of(int64_t layer) const {
  if (layer == 0) return call_.dx;
  const int64_t wide = spec_.layer_inputs(layer);
  const Buffer& below = inner_[static_cast<size_t>(layer - 1)];
  return {below.template as<T>(), sequences_.batch() * wide, wide};
}

template <class T>
bool BackwardRun<T>::make_dx(Run& run, int index, int64_t layer) {
  const Range mine = part_of(sequences_.live(), index, threads_);
  for (int64_t begin = mine.begin; begin < mine.end; begin += dx_rows_at_once()) {
    const Range rows = {begin, std::min(begin + dx_rows_at_once(), mine.end)};
    for (int64_t k = 0; k < spec_.num_directions; ++k) dx_rows(index, layer, k, rows, 0);
    mask_dx(layer, rows);
    if (index == 0) run.poll();
    if (!run.live()) return false;
  }
  return true;
}

// da W for some packed rows, which writes dx; the reversed direction's product is finished before
// it is added. Rows are counted as the forward direction packs them, or, where they are a block's
// that begins at packed row `first`, as their own direction does.
template <class T>
void BackwardRun<T>::dx_rows(int index, int64_t layer, int64_t k, Range rows, int64_t first) {
  const Sequences& seq = sequences_;
  const Scratch& scratch = scratch_[static_cast<size_t>(index)];
  const CellShape& shape = packed_.shape;
  const Gates& gates = gates_of(layer, k);
  const MutableSequence dx = dx_of(layer);
  const T** a = scratch.a.template as<const T*>();
  T** c = scratch.c.template as<T*>();
  T* second = scratch.second.template as<T>();
  const int64_t inputs = spec_.layer_inputs(layer);
  const bool norm = spec_.layer_norm;
  const T* from = norm ? gates.normalised.input : gates.slots + shape.input_slot * kGroup;
  const ptrdiff_t stride = norm ? gates.normalised.input_stride : tape_.slots_stride;
  const auto turned = [&](const PackedRow& at) { return seq.length()[at.r] - 1 - at.s; };
  const auto dx_row = [&](const PackedRow& at) {
    const int64_t row = layer ? at.r : seq.order()[at.r];
    const int64_t t = k && tape_.recompute ? turned(at) : at.s;
    return static_cast<T*>(dx.data) + t * dx.time_stride + row * dx.row_stride;
  };
  PackedRow at(seq, rows.begin);
  for (int64_t i = 0; i < rows.end - rows.begin; ++i, at.next()) {
    const int64_t s = k && !tape_.recompute ? turned(at) : at.s;
    a[i] = from + (seq.offsets()[s] + at.r - first) * stride;
    c[i] = k ? second + i * inputs : dx_row(at);
  }
  const int64_t groups = padded(spec_.hidden_size) / kGroup;
  const int64_t slots = norm ? shape.input_gates : shape.slots;
  const bool all_slots = shape.input_gates == slots;
  RowsProduct<T> product;
  product.rows = rows.end - rows.begin;
  product.a = a;
  product.c = c;
  product.segments = all_slots ? 1 : groups;
  product.segment_length = (all_slots ? groups : 1) * shape.input_gates * kGroup;
  product.segment_stride = slots * kGroup;
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + k);
  product.panels = static_cast<const T*>(packed_.panels[which].input_columns);
  product.columns = inputs;
  product.group_end = padded(inputs) / kGroup;
  kernels_.weights[kFull].rows_product(product);
  if (k == 0) return;
  PackedRow to(seq, rows.begin);
  for (int64_t i = 0; i < product.rows; ++i, to.next()) kernels_.add(dx_row(to), c[i], inputs);
}

template <class T>
void BackwardRun<T>::mask_dx(int64_t layer, Range rows) {
  if (call_.forward.masks.inputs.empty() || rows.begin == rows.end) return;
  const Sequence& mask = call_.forward.masks.inputs[static_cast<size_t>(layer)];
  if (!mask.data) return;
  const MutableSequence dx = dx_of(layer);
  PackedRow at(sequences_, rows.begin);
  for (int64_t i = rows.begin; i < rows.end; ++i, at.next()) {
    const int64_t caller_row = sequences_.order()[at.r];
    T* to = static_cast<T*>(dx.data) + at.s * dx.time_stride +
            (layer ? at.r : caller_row) * dx.row_stride;
    const T* m =
        static_cast<const T*>(mask.data) + at.s * mask.time_stride + caller_row * mask.row_stride;
    kernels_.multiply(to, to, m, spec_.layer_inputs(layer));
  }
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
