// BackwardRun: what each member of the team does. See backward_run.h.
#include "core/backward_run.h"

#include <algorithm>

namespace rnncore {
namespace {

// Walks packed rows in order, as step and rank.
struct PackedRow {
  const Sequences& sequences;
  int64_t s, r;

  PackedRow(const Sequences& all, int64_t packed) : sequences(all) {
    const int64_t* offsets = all.offsets();
    s = std::upper_bound(offsets, offsets + all.steps() + 1, packed) - offsets - 1;
    r = packed - offsets[s];
  }
  void next() {
    if (++r < sequences.alive(s)) return;
    r = 0;
    ++s;
  }
};

}  // namespace

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
    if (index < plan_.members()) {
      const int first = member_of(plan_, index).direction;
      for (int64_t k = first; k < spec_.num_directions; k += plan_.directions) {
        recur(run, index, layer, k);
      }
    }
    if (!all_.wait(run)) return;
    if (wants_dx(layer) && !make_dx(run, index, layer)) return;
    for (int64_t k = 0; k < spec_.num_directions && !adds_at_once_; ++k) {
      if (!make_weights(run, index, layer, k)) return;
    }
    if (!all_.wait(run)) return;
  }
  for (int64_t layer = 0; layer < spec_.num_layers && adds_at_once_; ++layer) {
    for (int64_t k = 0; k < spec_.num_directions; ++k) make_weights(run, index, layer, k);
  }
}

template <class T>
void BackwardRun<T>::recur(Run& run, int index, int64_t layer, int64_t k) {
  const Member member = member_of(plan_, index);
  Direction& d = direction(layer, k);
  const LayerTape& tape = tape_of(layer, k);
  const LayerPanels& panels = packed_.panels[static_cast<size_t>(layer * spec_.num_directions + k)];
  const int64_t barrier = member.row * plan_.directions + member.direction;
  StepGate gate = {&run, &unit_barriers_[static_cast<size_t>(barrier)], index == 0};
  BackwardLoop<T> loop;
  const Range groups = part_of(padded(spec_.hidden_size) / kGroup, member.unit, plan_.units);
  const Range outputs = part_of(padded(spec_.outputs()) / kGroup, member.unit, plan_.units);
  Share& share = loop.share;
  share.step_end = sequences_.steps();
  share.group_begin = groups.begin;
  share.group_end = groups.end;
  share.output_group_begin = outputs.begin;
  share.output_group_end = outputs.end;
  share.row_begin = member.row;
  share.row_stride = plan_.rows;
  share.offsets = sequences_.offsets();
  share.proceed = StepGate::proceed;
  share.context = &gate;
  loop.units = spec_.hidden_size;
  loop.outputs = spec_.outputs();
  loop.panels = static_cast<const T*>(panels.recurrent_columns);
  loop.slots = d.slots;
  loop.slots_stride = tape_.slots_stride;
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
  loop.doutput = d.doutput.template as<T>();
  kernels_.backward[cell_of(spec_.cell)](loop);
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
    for (int64_t k = 0; k < spec_.num_directions; ++k) dx_rows(index, layer, k, rows);
    mask_dx(layer, rows);
    if (index == 0) run.poll();
    if (!run.live()) return false;
  }
  return true;
}

// da W for some time steps and rows, counted as the forward direction packs them, which writes dx;
// the reversed direction's product is finished before it is added.
template <class T>
void BackwardRun<T>::dx_rows(int index, int64_t layer, int64_t k, Range rows) {
  const Sequences& seq = sequences_;
  const Scratch& scratch = scratch_[static_cast<size_t>(index)];
  const CellShape& shape = packed_.shape;
  const MutableSequence dx = dx_of(layer);
  const T** a = scratch.a.template as<const T*>();
  T** c = scratch.c.template as<T*>();
  T* second = scratch.second.template as<T>();
  const int64_t inputs = spec_.layer_inputs(layer);
  const auto dx_row = [&](const PackedRow& at) {
    const int64_t row = layer ? at.r : seq.order()[at.r];
    return static_cast<T*>(dx.data) + at.s * dx.time_stride + row * dx.row_stride;
  };
  PackedRow at(seq, rows.begin);
  for (int64_t i = 0; i < rows.end - rows.begin; ++i, at.next()) {
    const int64_t s = k ? seq.length()[at.r] - 1 - at.s : at.s;
    a[i] = direction(layer, k).slots + (seq.offsets()[s] + at.r) * tape_.slots_stride +
           shape.input_slot * kGroup;
    c[i] = k ? second + i * inputs : dx_row(at);
  }
  const int64_t groups = padded(spec_.hidden_size) / kGroup;
  const bool all_slots = shape.gates == shape.slots;
  RowsProduct<T> product;
  product.rows = rows.end - rows.begin;
  product.a = a;
  product.c = c;
  product.segments = all_slots ? 1 : groups;
  product.segment_length = (all_slots ? groups : 1) * shape.gates * kGroup;
  product.segment_stride = shape.slots * kGroup;
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
  if (call_.forward.masks.empty()) return;
  const Sequence& mask = call_.forward.masks[static_cast<size_t>(layer)];
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

// A matrix, its place in the scratch and the caller's gradient of it.
template <class T>
typename BackwardRun<T>::Weight BackwardRun<T>::weight_of(int64_t layer, int64_t k,
                                                          Factor factor) const {
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + k);
  const LayerGradients& given = call_.gradients[which];
  const int64_t height = spec_.gates() * spec_.hidden_size, inputs = spec_.layer_inputs(layer);
  const int64_t outputs = spec_.outputs(), biases = spec_.bias ? 2 * height : 0;
  Weight weight = {factor, inputs, nullptr, static_cast<T*>(given.weight_ih)};
  int64_t at = 0;
  if (factor == Factor::state_before) {
    weight = {factor, outputs, nullptr, static_cast<T*>(given.weight_hh)};
    at = height * inputs;
  } else if (factor == Factor::hidden) {
    weight = {factor, spec_.hidden_size, nullptr, static_cast<T*>(given.weight_hr)};
    at = height * (inputs + outputs) + biases;
  }
  if (sums_wait_) weight.c = directions_[which].weights.template as<T>() + at;
  if (!adds_at_once_) weight.add_to = nullptr;
  return weight;
}

template <class T>
bool BackwardRun<T>::make_weights(Run& run, int index, int64_t layer, int64_t k) {
  const Direction& d = direction(layer, k);
  const CellShape& shape = packed_.shape;
  const int64_t height = spec_.gates() * spec_.hidden_size;
  const Weight both[] = {weight_of(layer, k, Factor::input),
                         weight_of(layer, k, Factor::state_before)};
  const Gradients of_input = {d.slots, tape_.slots_stride, input_columns_.as<int64_t>(), height};
  if (shape.input_slot == shape.recurrent_slot) {
    if (!make_products(run, index, layer, k, of_input, both, 2)) return false;
  } else {
    const Gradients of_recurrent = {d.slots, tape_.slots_stride, recurrent_columns_.as<int64_t>(),
                                    height};
    if (!make_products(run, index, layer, k, of_input, &both[0], 1)) return false;
    if (!make_products(run, index, layer, k, of_recurrent, &both[1], 1)) return false;
  }
  if (spec_.bias) make_biases(index, layer, k);
  if (!spec_.proj_size) return true;
  const Gradients of_outputs = {d.doutput.template as<T>(), padded(spec_.outputs()),
                                output_columns_.as<int64_t>(), spec_.outputs()};
  const Weight projection = weight_of(layer, k, Factor::hidden);
  return make_products(run, index, layer, k, of_outputs, &projection, 1);
}

template <class T>
const T* BackwardRun<T>::factor_row(int64_t layer, int64_t k, Factor factor, int64_t s, int64_t r) {
  const Direction& d = direction(layer, k);
  switch (factor) {
    case Factor::input:
      return d.x.from(0).at(s, r);
    case Factor::state_before:
      if (s) return d.y.from(0).at(s - 1, r);
      return d.h_initial.template as<T>() + r * state_stride_;
    case Factor::hidden:
      break;
  }
  const int64_t packed = sequences_.offsets()[s] + r;
  return tape_of(layer, k).hidden.template as<T>() + packed * padded(spec_.hidden_size);
}

// Gradients of matrices: this member's rows of them, over all packed rows.
template <class T>
bool BackwardRun<T>::make_products(Run& run, int index, int64_t layer, int64_t k,
                                   const Gradients& gradients, const Weight* weights, int count) {
  const Scratch& scratch = scratch_[static_cast<size_t>(index)];
  const Range mine = part_of(gradients.height, index, threads_);
  const int64_t live = sequences_.live();
  OuterProduct<T> product;
  product.gradients_stride = gradients.stride;
  product.gradient_columns = gradients.columns;
  product.begin = mine.begin;
  product.end = mine.end;
  product.factors = count;
  product.scratch = scratch.outer.template as<T>();
  int64_t begin = 0;
  do {
    product.length = std::min(live - begin, kRowsAtOnce);
    product.gradients = gradients.rows + begin * gradients.stride;
    product.accumulate = begin > 0;
    product.finished = begin + product.length == live;
    for (int f = 0; f < count; ++f) {
      const Weight& weight = weights[f];
      const T** b = scratch.a.template as<const T*>() + f * kRowsAtOnce;
      product.factor[f] = {b, weight.width, weight.c, weight.add_to, weight.width};
      if (live == 0) continue;
      PackedRow at(sequences_, begin);
      for (int64_t i = 0; i < product.length; ++i, at.next()) {
        b[i] = factor_row(layer, k, weight.factor, at.s, at.r);
      }
    }
    kernels_.outer_product(product);
    begin += kRowsAtOnce;
    if (adds_at_once_) continue;
    if (index == 0) run.poll();
    if (!run.live()) return false;
  } while (begin < live);
  return true;
}

// Both biases' gradients, from one sum of the slot rows.
template <class T>
void BackwardRun<T>::make_biases(int index, int64_t layer, int64_t k) {
  const Direction& d = direction(layer, k);
  const CellShape& shape = packed_.shape;
  const int64_t units = spec_.hidden_size, height = spec_.gates() * units;
  const LayerGradients& given =
      call_.gradients[static_cast<size_t>(layer * spec_.num_directions + k)];
  T* scratch = adds_at_once_ ? nullptr
                             : d.weights.template as<T>() +
                                   height * (spec_.layer_inputs(layer) + spec_.outputs());
  T* to_in = adds_at_once_ ? static_cast<T*>(given.bias_ih) : scratch;
  T* to_re = adds_at_once_ ? static_cast<T*>(given.bias_hh) : scratch + height;
  const Range groups = part_of(padded(units) / kGroup, index, threads_);
  const int64_t group_values = shape.slots * kGroup;
  T* sums = scratch_[static_cast<size_t>(index)].outer.template as<T>();
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    const int64_t at = group * group_values;
    kernels_.sum_rows(d.slots + at, tape_.slots_stride, sequences_.live(), 0, group_values, sums);
    const int64_t exist = std::min<int64_t>(kGroup, units - group * kGroup);
    for (int place = 0; place < shape.gates; ++place) {
      const int in = shape.input_order[place], re = shape.recurrent_order[place];
      const T* from_in = sums + (shape.input_slot + place) * kGroup;
      const T* from_re = sums + (shape.recurrent_slot + place) * kGroup;
      const int64_t in_at = in * units + group * kGroup, re_at = re * units + group * kGroup;
      if (adds_at_once_) {
        kernels_.add(to_in + in_at, from_in, exist);
        kernels_.add(to_re + re_at, from_re, exist);
      } else {
        std::copy_n(from_in, exist, to_in + in_at);
        std::copy_n(from_re, exist, to_re + re_at);
      }
    }
  }
}

template <class T>
void BackwardRun<T>::add_job(void* self, Run&, int index) {
  BackwardRun& b = *static_cast<BackwardRun*>(self);
  const StackSpec& s = b.spec_;
  const int64_t height = s.gates() * s.hidden_size;
  for (size_t i = 0; i < b.directions_.size(); ++i) {
    const T* from = b.directions_[i].weights.template as<T>();
    const LayerGradients& to = b.call_.gradients[i];
    const int64_t inputs = s.layer_inputs(static_cast<int64_t>(i) / s.num_directions);
    const auto add = [&](void* array, int64_t count) {
      const Range mine = part_of(count, index, b.threads_);
      b.kernels_.add(static_cast<T*>(array) + mine.begin, from + mine.begin, mine.end - mine.begin);
      from += count;
    };
    add(to.weight_ih, height * inputs);
    add(to.weight_hh, height * s.outputs());
    if (s.bias) {
      add(to.bias_ih, height);
      add(to.bias_hh, height);
    }
    if (s.proj_size) add(to.weight_hr, s.proj_size * s.hidden_size);
  }
}

template <class T>
void BackwardRun<T>::add_gradients(Lease& lease) {
  if (!adds_at_once_) lease.run(threads_, Interrupt(), add_job, this);
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
