#include "core/cuda_sequence.h"

#include <limits>

namespace rnncore {

namespace {

// Whether rows follow one another at one distance, time by time or sequence by sequence.
bool is_time_major(const Sequence& x, int64_t batch) {
  return batch == 1 || x.time_stride == batch * x.row_stride;
}
bool is_batch_first(const Sequence& x, int64_t steps) {
  return x.row_stride == steps * x.time_stride;
}

}  // namespace

CudaSequence::CudaSequence(const CudaStack& stack, const ForwardCall& call,
                           const int64_t* host_lengths, const int32_t* lengths)
    : stack_(stack), call_(call), rows_(call.steps, call.batch, host_lengths, lengths) {
  const StackSpec& s = spec();
  const int64_t widest = std::max(s.hidden_size, s.outputs());
  if (call.batch > std::numeric_limits<int32_t>::max() / widest ||
      call.steps > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument(
        "x: expected fewer than 2^31 steps and fewer than 2^31 units in a "
        "step's rows, got T=" +
        std::to_string(call.steps) + ", N=" + std::to_string(call.batch));
  }
  if (!copies_input(0) && !is_time_major(call.x, call.batch)) rows_.follow_batch_first();
}

bool CudaSequence::is_dense_input() const {
  const Sequence& x = call_.x;
  const bool time_major = is_time_major(x, call_.batch);
  const int64_t stride = call_.batch == 1 ? x.time_stride
                         : time_major     ? x.row_stride
                                          : x.time_stride;
  return (time_major || is_batch_first(x, call_.steps)) && stride >= spec().input_size;
}

bool CudaSequence::copies_input(int64_t layer) const {
  if (input_mask(layer).data) return true;
  return layer == 0 && (rows_.ragged() || !is_dense_input());
}

Rows CudaSequence::input_mask(int64_t layer) const {
  const auto& masks = call_.masks.inputs;
  if (masks.empty() || !masks[static_cast<size_t>(layer)].data) return {};
  const Sequence& mask = masks[static_cast<size_t>(layer)];
  return rows_.given(mask.data, mask.time_stride, mask.row_stride);
}

cuda::CopyRows CudaSequence::input_copy(int64_t layer) const {
  cuda::CopyRows copy = {};
  copy.steps = call_.steps;
  copy.rows = call_.batch;
  copy.features = spec().layer_inputs(layer);
  copy.lengths = rows_.lengths();
  copy.mask = input_mask(layer);
  return copy;
}

CudaTape CudaSequence::place_tape(CudaCarve& carve, bool keep) {
  const StackSpec& s = spec();
  const CellShape& shape = s.shape();
  const int64_t item = stack_.item_size(), real = stack_.real_size(), total = rows_.total();
  const int64_t units = s.hidden_size;
  CudaTape tape;
  for (int64_t layer = 0; layer < s.num_layers; ++layer) {
    const int64_t features = s.layer_inputs(layer);
    tape.inputs.push_back(copies_input(layer) ? carve.take(total * features, item) : nullptr);
    const bool inner = layer + 1 < s.num_layers;
    tape.outputs.push_back(inner ? carve.take(total * s.num_directions * s.outputs(), item)
                                 : nullptr);
  }
  tape.members.resize(num_members());
  for (size_t which = 0; which < tape.members.size(); ++which) {
    CudaMemberTape& member = tape.members[which];
    if (which && !keep) {
      member = tape.members[0];
      continue;
    }
    member.slots = carve.take(total * shape.slots * units, real);
    if (s.layer_norm) {
      member.norm_input = carve.take(total * shape.input_gates * units, real);
      member.inverse = carve.take(total * 4, real);
    }
    if (!keep) continue;
    if (s.layer_norm)
      member.norm_recurrent = carve.take(total * shape.recurrent_gates * units, real);
    if (s.carries_c()) member.c = carve.take(total * units, real);
    if (s.has_hidden()) member.hidden = carve.take(total * units, item);
  }
  rows_.place(carve);  // last: the arrays' own sizes are mostly multiples of a cache line
  return tape;
}

size_t CudaSequence::tape_bytes(bool keep) const {
  CudaCarve measure(nullptr);
  CudaSequence(*this).place_tape(measure, keep);
  return measure.used();
}

// A tape of R rows has at most U R bytes of arrays, U being those of one row: rounding up R times
// as much is never more than R times the rounding up. Rows that the host sorts are fewer than steps
// and rows of the call, so one U is left, for tables of up to 8 T N + 48 bytes.
int64_t cuda_tape_width(const StackSpec& spec, CudaType type, const std::vector<bool>& masked,
                        bool ragged) {
  const auto members = static_cast<size_t>(spec.num_layers * spec.num_directions);
  const CudaStack stack(spec, type, std::vector<LayerWeights>(members));
  const int32_t there = 1;  // an address that nobody looks at
  ForwardCall call;
  call.steps = call.batch = 1;
  call.x = {nullptr, spec.input_size, spec.input_size};
  for (const bool mask : masked) {
    call.masks.inputs.push_back({mask ? &there : nullptr, 0, 0});
  }
  const CudaSequence one(stack, call, nullptr, ragged ? &there : nullptr);
  int64_t bytes = static_cast<int64_t>(one.tape_bytes(true));
  if (ragged) bytes += 8 + std::max<int64_t>(0, 48 - bytes);
  const int64_t item = stack.item_size();
  return (bytes + item - 1) / item;
}

cuda::Steps CudaSequence::steps_of(size_t which) const {
  const StackSpec& s = spec();
  const CudaWeights& weights = stack_.member(which);
  const int64_t batch = call_.batch;
  cuda::Steps steps = {};
  steps.steps = call_.steps;
  steps.rows = batch;
  steps.units = s.hidden_size;
  steps.outputs = s.outputs();
  steps.reverse = which % static_cast<size_t>(s.num_directions) == 1;
  steps.lengths = rows_.lengths();
  if (call_.resets) steps.resets = rows_.given(call_.resets, batch, 1);
  const auto mask_of = [&](const auto& masks, int64_t time_stride, int64_t width) -> Rows {
    if (masks.empty() || !masks[which]) return {};
    return rows_.given(masks[which], time_stride, width);
  };
  steps.entering_mask = mask_of(call_.masks.recurrent, 0, s.outputs());
  steps.bias = weights.bias;
  steps.peephole = weights.peephole;
  steps.norm_input = weights.norm_input;
  steps.norm_recurrent = weights.norm_recurrent;
  steps.norm_c = weights.norm_c;
  steps.norm_c_bias = weights.norm_c_bias;
  steps.options = cuda_options(s);
  steps.zoneout_h.rate = s.zoneout_h;
  steps.zoneout_h.kept = mask_of(call_.masks.kept_h, batch * s.outputs(), s.outputs());
  steps.zoneout_c.rate = s.zoneout_c;
  steps.zoneout_c.kept = mask_of(call_.masks.kept_c, batch * s.hidden_size, s.hidden_size);
  return steps;
}

Rows CudaSequence::input_rows(const CudaTape& tape, int64_t layer) const {
  const int64_t features = spec().layer_inputs(layer);
  if (layer) return rows_.own(tape.outputs[static_cast<size_t>(layer - 1)], features);
  return rows_.given(call_.x.data, call_.x.time_stride, call_.x.row_stride);
}

CudaMatrix CudaSequence::input_matrix(const CudaTape& tape, int64_t layer) const {
  const int64_t features = spec().layer_inputs(layer);
  const void* copied = tape.inputs[static_cast<size_t>(layer)];
  if (copied) return {copied, features};
  if (layer) return {tape.outputs[static_cast<size_t>(layer - 1)], features};
  const Sequence& x = call_.x;
  const bool by_time = call_.batch == 1 || !is_time_major(x, call_.batch);
  return {x.data, by_time ? x.time_stride : x.row_stride};
}

Rows CudaSequence::output_rows(const CudaTape& tape, size_t which) const {
  const StackSpec& s = spec();
  const size_t layer = which / static_cast<size_t>(s.num_directions);
  const int64_t first = static_cast<int64_t>(which) % s.num_directions * s.outputs();
  const bool last = layer + 1 == static_cast<size_t>(s.num_layers);
  Rows rows = last ? rows_.given(call_.y.data, call_.y.time_stride, call_.y.row_stride)
                   : rows_.own(tape.outputs[layer], s.num_directions * s.outputs());
  rows.data = offset<void>(rows.data, first, stack_.item_size());
  return rows;
}

}  // namespace rnncore
