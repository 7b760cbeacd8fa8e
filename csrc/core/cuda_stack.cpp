#include "core/cuda_stack.h"

#include <utility>

namespace rnncore {

CudaStack::CudaStack(const StackSpec& spec, CudaType type, std::vector<LayerWeights> parameters)
    : spec_(spec), type_(type), parameters_(std::move(parameters)), members_(parameters_.size()) {
  CudaCarve measure(nullptr);
  place(measure);
  nbytes_ = measure.used();
}

void CudaStack::place(CudaCarve& carve) {
  const CellShape& shape = spec_.shape();
  const int64_t units = spec_.hidden_size, item = item_size(), real = real_size();
  for (size_t which = 0; which < members_.size(); ++which) {
    CudaWeights& member = members_[which];
    const int64_t layer = static_cast<int64_t>(which) / spec_.num_directions;
    member.input = carve.take(shape.input_gates * units * spec_.layer_inputs(layer), item);
    member.recurrent = carve.take(shape.recurrent_gates * units * spec_.outputs(), item);
    if (spec_.proj_size) member.projection = carve.take(spec_.proj_size * units, item);
    member.bias = carve.take(shape.slots * units, real);
    member.peephole = parameters_[which].peephole;
    if (!spec_.layer_norm) continue;
    member.norm_input = carve.take(shape.input_gates * units, real);
    member.norm_recurrent = carve.take(shape.recurrent_gates * units, real);
    member.norm_c = parameters_[which].norm_c;
    member.norm_c_bias = parameters_[which].norm_c_bias;
  }
}

void CudaStack::pack(const CudaCall& call, void* block) {
  CudaCarve carve(block);
  place(carve);
  for (size_t which = 0; which < members_.size(); ++which) pack_member(call, which);
}

void CudaStack::pack_member(const CudaCall& call, size_t which) const {
  const CellShape& shape = spec_.shape();
  const CudaWeights& member = members_[which];
  const LayerWeights& given = parameters_[which];
  const int64_t units = spec_.hidden_size,
                layer = static_cast<int64_t>(which) / spec_.num_directions;
  const auto pack = [&](CudaKernel kernel, bool recurrent, int64_t columns, const void* from,
                        void* to) {
    const auto move = move_gates(spec_, recurrent, columns, from, to);
    call.stride_over(kernel, move.gates * units * columns, move);
  };
  pack(CudaKernel::pack_gates, false, spec_.layer_inputs(layer), given.weight_ih, member.input);
  pack(CudaKernel::pack_gates, true, spec_.outputs(), given.weight_hh, member.recurrent);
  if (spec_.proj_size) {
    const cuda::MoveGates whole = {spec_.proj_size,  units, 1, {}, given.weight_hr,
                                   member.projection};
    call.stride_over(CudaKernel::pack_gates, spec_.proj_size * units, whole);
  }
  cuda::PackBias bias = {units, shape.slots, {}, {}, given.bias_ih, given.bias_hh, member.bias};
  for (int slot = 0; slot < shape.slots; ++slot) {
    const int in = slot - shape.input_slot, gate = slot - shape.recurrent_slot;
    bias.input[slot] = in >= 0 && in < shape.input_gates ? shape.input_order[in] : -1;
    bias.recurrent[slot] =
        gate >= 0 && gate < shape.recurrent_gates ? shape.recurrent_order[gate] : -1;
  }
  call.stride_over(CudaKernel::pack_bias, shape.slots * units, bias);
  if (!spec_.layer_norm) return;
  pack(CudaKernel::pack_vectors, false, 1, given.norm_ih, member.norm_input);
  pack(CudaKernel::pack_vectors, true, 1, given.norm_hh, member.norm_recurrent);
}

cuda::MoveGates move_gates(const StackSpec& spec, bool recurrent, int64_t columns, const void* from,
                           void* to) {
  const CellShape& shape = spec.shape();
  const int* order = recurrent ? shape.recurrent_order : shape.input_order;
  cuda::MoveGates move = {spec.hidden_size,
                          columns,
                          recurrent ? shape.recurrent_gates : shape.input_gates,
                          {},
                          from,
                          to};
  for (int g = 0; g < move.gates; ++g) move.order[g] = order[g];
  return move;
}

cuda::Options cuda_options(const StackSpec& spec) {
  const auto choose = [&](int usual, const Activation& given) -> cuda::Choice {
    if (spec.default_activations) return {usual, 0, 0};
    return {given.kind, given.alpha, given.beta};
  };
  cuda::Options options = {};
  options.gate = choose(activation_named("Sigmoid"), spec.gate);
  options.candidate = choose(spec.shape().candidate, spec.candidate);
  options.output = choose(activation_named("Tanh"), spec.output);
  options.peephole = spec.peephole;
  options.keeps_inputs = !spec.default_activations || spec.clip > 0;
  options.clip = spec.clip;
  return options;
}

}  // namespace rnncore
