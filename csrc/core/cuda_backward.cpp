// Backward on a device: by layer and direction from the last, step by step back through time; then
// what runs over all times at once: gradients of weights, of biases and of the layer's input.
//
// Gradients of parameters wait in the workspace and are added when everything else has been asked
// for, so that a call that fails before leaves them as they were.
#include "core/cuda_backward.h"

namespace rnncore {

CudaBackwardSpace::CudaBackwardSpace(CudaCarve& carve, const CudaSequence& sequence) {
  const StackSpec& s = sequence.spec();
  const CellShape& shape = s.shape();
  const int64_t batch = sequence.call().batch, total = sequence.rows().total();
  const int64_t units = s.hidden_size, outputs = s.outputs();
  const int64_t item = sequence.stack().item_size(), real = sequence.stack().real_size();
  const bool narrow = item < real;
  dh = carve.take(batch * outputs, real);
  dc = s.carries_c() ? carve.take(batch * units, real) : nullptr;
  direct = carve.take(batch * outputs, real);
  h_initial = carve.take(batch * outputs, real);
  c_initial = s.carries_c() ? carve.take(batch * units, real) : nullptr;
  carry = carve.take(batch * outputs, real);
  product = s.has_hidden() ? carve.take(batch * units, real) : nullptr;
  gradients = carve.take(batch * shape.recurrent_gates * units, item);
  doutput = s.proj_size ? carve.take(batch * outputs, item) : nullptr;
  doutput_kept = s.proj_size ? carve.take(total * outputs, item) : nullptr;
  gradients_kept = narrow ? carve.take(total * shape.slots * units, item) : nullptr;
  before = carve.take(total * outputs, item);
  if (s.layer_norm) {
    row_scratch = carve.take(batch * 3 * units, real);
    input_gradients = narrow ? carve.take(total * shape.input_gates * units, item) : nullptr;
    recurrent_gradients =
        narrow ? carve.take(total * shape.recurrent_gates * units, item) : nullptr;
  }
  places = UnitGradients(s.peephole, s.layer_norm, s.carries_c(), units, shape.input_gates,
                         shape.recurrent_gates);
  unit_gradients = places.size ? carve.take(batch * places.size, real) : nullptr;
  const int64_t columns = std::max<int64_t>(shape.slots * units, places.size);
  const int64_t parts = (std::max(total, batch) + kSumHeight - 1) / kSumHeight;
  for (void*& each : parts_of_sums) each = carve.take(parts * columns, real);
  for (void*& each : dinputs) {
    int64_t widest = s.input_size;
    if (s.num_layers > 1) widest = std::max(widest, s.num_directions * outputs);
    each = carve.take(total * widest, real);
  }
  for (size_t which = 0; which < sequence.num_members(); ++which) {
    const int64_t layer = static_cast<int64_t>(which) / s.num_directions;
    CudaMemberSums sums;
    sums.input = carve.take(shape.input_gates * units * s.layer_inputs(layer), real);
    sums.recurrent = carve.take(shape.recurrent_gates * units * outputs, real);
    if (s.proj_size) sums.projection = carve.take(outputs * units, real);
    sums.slots = carve.take(shape.slots * units, real);
    if (places.size) sums.unit = carve.take(places.size, real);
    members.push_back(sums);
  }
}

CudaBackwardMember::CudaBackwardMember(const CudaCall& device, const CudaSequence& sequence,
                                       const BackwardCall& call, const CudaTape& tape,
                                       const CudaBackwardSpace& space, size_t which)
    : CudaMember(device, sequence, tape, which),
      call_(call),
      space_(space),
      step_(start_step<cuda::BackwardStep>()) {
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
  step_.gradients_kept = own(space.gradients_kept, shape_.slots * units);
  step_.carry = space.carry;
  step_.product = space.product;
  step_.dh = space.dh;
  step_.dc = space.dc;
  step_.direct = space.direct;
  step_.gradients = space.gradients;
  step_.doutput = space.doutput;
  step_.doutput_kept = own(space.doutput_kept, outputs);
  step_.h_initial = space.h_initial;
  step_.c_initial = space.c_initial;
  step_.input_gradients = own(space.input_gradients, shape_.input_gates * units);
  step_.recurrent_gradients = own(space.recurrent_gradients, shape_.recurrent_gates * units);
  step_.clears = sequence.rows().has_dead_rows();
  step_.row_scratch = space.row_scratch;
  step_.unit_gradients = space.unit_gradients;
  step_.unit_stride = space.places.size;
  step_.peephole_at = space.places.peephole;
  step_.norm_input_at = space.places.norm_input;
  step_.norm_recurrent_at = space.places.norm_recurrent;
  step_.norm_c_at = space.places.norm_c;
  step_.norm_c_bias_at = space.places.norm_c_bias;
  take_dy();
}

void CudaBackwardMember::take_dy() {
  const int64_t outputs = spec_.outputs();
  const int64_t first = static_cast<int64_t>(which_) % spec_.num_directions * outputs;
  if (layer() + 1 == spec_.num_layers) {
    if (!call_.dy.data) return;
    step_.dy = sequence_.rows().given(call_.dy.data, call_.dy.time_stride, call_.dy.row_stride);
    step_.dy.data = offset<void>(step_.dy.data, first, item());
    return;
  }
  step_.dy_is_real = 1;
  step_.dy = own(space_.dinput_of(layer() + 1), spec_.num_directions * outputs);
  step_.dy.data = offset<void>(step_.dy.data, first, real());
}

void CudaBackwardMember::run() {
  take_states();
  if (device_.width()) {
    const cuda::PersistentBackward all = {step_, weights_.recurrent};
    persist(CudaKernel::persistent_backward, shape_.recurrent_gates, all);
  } else {
    for (int64_t s = sequence_.rows().steps() - 1; s >= 0; --s) {
      step_.s = s;
      step_.count = sequence_.rows().alive(s);
      if (step_.count) run_step();
    }
    leave_first_step();
  }
  give_states();
  multiply_weights();
  sum_vectors();
}

void CudaBackwardMember::take_states() const {
  const int64_t batch = sequence_.call().batch;
  take_state(spec_.outputs(), sequence_.call().h0, space_.h_initial);
  take_state(spec_.outputs(), call_.dhn, space_.dh);
  if (space_.dc) {
    take_state(spec_.hidden_size, sequence_.call().c0, space_.c_initial);
    take_state(spec_.hidden_size, call_.dcn, space_.dc);
  }
  const size_t carried = static_cast<size_t>(batch * spec_.outputs() * real());
  device_.clear(space_.carry, carried);
  device_.clear(space_.direct, carried);
  if (space_.unit_gradients) {
    device_.clear(space_.unit_gradients, static_cast<size_t>(batch * space_.places.size * real()));
  }
}

void CudaBackwardMember::run_step() const {
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
  if (spec_.proj_size) {
    device_.for_each(CudaKernel::backward_output, step_.count * outputs, step_);
    multiply_back({space_.doutput, outputs}, weights_.projection, units, space_.product);
  }
  for (int phase = shape_.second_gates() ? 1 : 0; phase >= 0; --phase) {
    if (spec_.layer_norm) {
      device_.for_each_row(of_phase(CudaKernel::normalised_gates_backward_0, phase), step_.count,
                           step_);
    } else {
      device_.for_each(of_phase(CudaKernel::backward_gates_0, phase), step_.count * units, step_);
    }
    const int64_t gates = (phase ? shape_.second_gates() : shape_.first_gates) * units;
    const int64_t first = phase ? shape_.first_gates * units * outputs : 0;
    multiply_back({space_.gradients, gates}, offset<void>(weights_.recurrent, first, item()),
                  outputs, phase ? space_.product : space_.carry);
  }
}

// c[count][n] = a[count][k] b[k][n]; a's rows follow one another.
void CudaBackwardMember::multiply_back(CudaMatrix a, const void* b, int64_t n, void* c) const {
  device_.multiply(product_of({step_.count, n, a.stride}, a, {b, n}, c, n));
}

void CudaBackwardMember::leave_first_step() {
  const int64_t batch = sequence_.call().batch;
  step_.count = batch;
  const CudaKernel kernel = space_.dc ? CudaKernel::backward_start_c : CudaKernel::backward_start;
  device_.for_each(kernel, batch * std::max(spec_.hidden_size, spec_.outputs()), step_);
}

void CudaBackwardMember::give_states() const {
  give_state(spec_.outputs(), space_.dh, call_.dh0);
  if (space_.dc) give_state(spec_.hidden_size, space_.dc, call_.dc0);
}

CudaMatrix CudaBackwardMember::gate_gradients(bool recurrent) const {
  const int64_t units = spec_.hidden_size;
  if (spec_.layer_norm) {
    const int64_t width = (recurrent ? shape_.recurrent_gates : shape_.input_gates) * units;
    void* narrow = recurrent ? space_.recurrent_gradients : space_.input_gradients;
    void* whole = recurrent ? kept().norm_recurrent : kept().norm_input;
    return {narrow ? narrow : whole, width};
  }
  const int64_t first = (recurrent ? shape_.recurrent_slot : shape_.input_slot) * units;
  const void* all = space_.gradients_kept ? space_.gradients_kept : kept().slots;
  return {offset<void>(all, first, item()), shape_.slots * units};
}

// sums[m][n] = sum over all rows of gradients[row][m] values[row][n]
void CudaBackwardMember::multiply_rows(int64_t m, int64_t n, CudaMatrix gradients,
                                       CudaMatrix values, void* sums) const {
  CudaProduct product = product_of({m, n, sequence_.rows().total()}, gradients, values, sums, n);
  product.a_transposed = 1;
  device_.multiply(product);
}

void CudaBackwardMember::multiply_weights() const {
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
  const CudaMemberSums& sums = space_.members[which_];
  cuda::GatherEntering gather = {};
  gather.common = step_.common;
  gather.y = step_.y;
  gather.h_initial = space_.h_initial;
  gather.before = own(space_.before, outputs);
  gather.clears = sequence_.rows().has_dead_rows();
  device_.stride_over(CudaKernel::gather_entering,
                      gather.common.steps * gather.common.rows * outputs, gather);
  multiply_rows(shape_.input_gates * units, spec_.layer_inputs(layer()), gate_gradients(false),
                sequence_.input_matrix(tape_, layer()), sums.input);
  const CudaMatrix gradients = gate_gradients(true);
  multiply_rows(shape_.first_gates * units, outputs, gradients, {space_.before, outputs},
                sums.recurrent);
  const CudaMatrix hidden = {kept().hidden, units};
  if (shape_.second_gates()) {
    const int64_t first = shape_.first_gates * units;
    multiply_rows(shape_.second_gates() * units, units,
                  {offset<void>(gradients.data, first, item()), gradients.stride}, hidden,
                  offset<void>(sums.recurrent, first * units, real()));
  }
  if (spec_.proj_size) {
    multiply_rows(outputs, units, {space_.doutput_kept, outputs}, hidden, sums.projection);
  }
}

// sums[j] = sum over rows, level by level.
void CudaBackwardMember::sum_rows(int64_t rows, int64_t columns, int64_t stride, const void* in,
                                  void* sums) const {
  if (!rows) return device_.clear(sums, static_cast<size_t>(columns * real()));
  for (int level = 0;; ++level) {
    const int64_t parts = (rows + kSumHeight - 1) / kSumHeight;
    void* to = parts == 1 ? sums : space_.parts_of_sums[level % 2];
    const cuda::SumRows sum = {rows, columns, stride, kSumHeight, in, to};
    device_.stride_over(CudaKernel::sum_rows, parts * columns, sum);
    if (parts == 1) return;
    rows = parts;
    stride = columns;
    in = to;
  }
}

void CudaBackwardMember::sum_vectors() const {
  const CudaMemberSums& sums = space_.members[which_];
  const int64_t columns = shape_.slots * spec_.hidden_size;
  if (spec_.bias) {
    sum_rows(sequence_.rows().total(), columns, columns, kept().slots, sums.slots);
  }
  if (space_.unit_gradients) {
    const int64_t size = space_.places.size;
    sum_rows(sequence_.call().batch, size, size, space_.unit_gradients, sums.unit);
  }
}

// dx of this direction, on top of the other's.
void CudaBackwardMember::multiply_input(void* dinput) const {
  const int64_t features = spec_.layer_inputs(layer());
  const Size size = {sequence_.rows().total(), features, shape_.input_gates * spec_.hidden_size};
  CudaProduct product =
      product_of(size, gate_gradients(false), {weights_.input, features}, dinput, features);
  product.beta = which_ % static_cast<size_t>(spec_.num_directions) ? 1 : 0;
  device_.multiply(product);
}

void CudaBackwardMember::add_gradients() const {
  const LayerGradients& to = call_.gradients[which_];
  const CudaMemberSums& sums = space_.members[which_];
  const int64_t units = spec_.hidden_size, outputs = spec_.outputs();
  const auto add_gates = [&](bool recurrent, int64_t columns, const void* from, void* grads) {
    const auto move = move_gates(spec_, recurrent, columns, from, grads);
    device_.stride_over(CudaKernel::add_gates, move.gates * units * columns, move);
  };
  const auto add_whole = [&](int64_t count, const void* from, void* grads) {
    const cuda::MoveGates move = {count, 1, 1, {}, from, grads};
    device_.stride_over(CudaKernel::add_gates, count, move);
  };
  const auto vector = [&](ptrdiff_t at) { return offset<void>(sums.unit, at, real()); };
  const auto slot = [&](int at) { return offset<void>(sums.slots, at * units, real()); };
  add_gates(false, spec_.layer_inputs(layer()), sums.input, to.weight_ih);
  add_gates(true, outputs, sums.recurrent, to.weight_hh);
  if (spec_.bias) {
    add_gates(false, 1, slot(shape_.input_slot), to.bias_ih);
    add_gates(true, 1, slot(shape_.recurrent_slot), to.bias_hh);
  }
  if (spec_.proj_size) add_whole(outputs * units, sums.projection, to.weight_hr);
  if (spec_.peephole) add_whole(3 * units, vector(space_.places.peephole), to.peephole);
  if (!spec_.layer_norm) return;
  add_gates(false, 1, vector(space_.places.norm_input), to.norm_ih);
  add_gates(true, 1, vector(space_.places.norm_recurrent), to.norm_hh);
  if (!spec_.carries_c()) return;
  add_whole(units, vector(space_.places.norm_c), to.norm_c);
  add_whole(units, vector(space_.places.norm_c_bias), to.norm_c_bias);
}

namespace {

// The gradient of a layer's input, complete: to the caller, or times its mask to the layer below.
void finish_input(const CudaCall& device, const CudaSequence& sequence, const BackwardCall& call,
                  void* dinput, int64_t layer) {
  cuda::CopyRows copy = sequence.input_copy(layer);
  copy.in = copy.out = sequence.rows().own(dinput, copy.features);
  if (layer == 0) {
    copy.out = sequence.rows().given(call.dx.data, call.dx.time_stride, call.dx.row_stride);
    copy.clears = 1;
  } else if (!copy.mask.data) {
    return;
  }
  device.stride_over(layer ? CudaKernel::mask_gradients : CudaKernel::copy_gradients,
                     copy.steps * copy.rows * copy.features, copy);
}

}  // namespace

size_t CudaSequence::backward_bytes(const BackwardCall& call) const {
  CudaCarve measure(nullptr);
  CudaBackwardSpace(measure, *this);
  return measure.used() + (call.retain ? tape_bytes(true) : 0);
}

void CudaSequence::backward(const CudaCall& device, const BackwardCall& call, void* tape_block,
                            void* workspace) {
  CudaCarve carve(workspace);
  const CudaBackwardSpace space(carve, *this);
  if (call.retain) {  // gradients overwrite gates: those of a copy
    const size_t bytes = tape_bytes(true);
    void* copy = carve.take(static_cast<int64_t>(bytes), 1);
    device.copy(copy, tape_block, bytes);
    tape_block = copy;
  }
  CudaCarve tape_carve(tape_block);
  const CudaTape tape = place_tape(tape_carve, true);
  std::vector<CudaBackwardMember> members;
  for (size_t which = 0; which < num_members(); ++which) {
    members.emplace_back(device, *this, call, tape, space, which);
  }
  for (int64_t layer = spec().num_layers - 1; layer >= 0; --layer) {
    void* dinput = layer || call.dx.data ? space.dinput_of(layer) : nullptr;
    for (int64_t direction = 0; direction < spec().num_directions; ++direction) {
      CudaBackwardMember& member =
          members[static_cast<size_t>(layer * spec().num_directions + direction)];
      member.run();
      if (dinput) member.multiply_input(dinput);
    }
    if (dinput) finish_input(device, *this, call, dinput, layer);
  }
  for (const CudaBackwardMember& member : members) member.add_gradients();
}

}  // namespace rnncore
