// Fills the table of functions for the instruction set that this is compiled for.
#pragma once

// clang-format off: in the order in which they build on each other.
#include "kernels/kernel_table.h"
#include "kernels/vec_common.h"
#include "kernels/vec_math.h"
#include "cells/list.h"
#include "kernels/multiply_tile.inl"
#include "kernels/weights.inl"
#include "kernels/tiles.inl"
#include "kernels/rows_product.inl"
#include "kernels/options.inl"
#include "kernels/forward_step.inl"
#include "kernels/normalise.inl"
#include "kernels/recurrence_forward.inl"
#include "kernels/backward_step.inl"
#include "kernels/normalise_backward.inl"
#include "kernels/recurrence_backward.inl"
#include "kernels/elementwise.inl"
#include "kernels/optimizers.inl"
#include "kernels/limits.inl"
#include "kernels/outer_product.inl"
#include "kernels/pack.inl"
#include "kernels/pack_reduced.inl"
// clang-format on

namespace rnncore {
namespace RNNCORE_ISA {

template <class Format>
constexpr WeightKernels<typename Format::Real> make_weight_kernels() {
  WeightKernels<typename Format::Real> k = {};
  k.word = static_cast<int>(sizeof(typename Format::Word));
  k.pack = Format::kPack;
  k.header = Format::kHeader;
  k.activation = Format::kScaled ? static_cast<int>(sizeof(typename Format::Row)) : 0;
  int cell = 0;
#define RNNCORE_FORWARD(name, Equations, Candidate, has_plain)                           \
  if constexpr (has_plain) {                                                             \
    k.forward[cell][0] = recurrence_forward<Format, Equations, PlainOptions<Candidate>>; \
  }                                                                                      \
  k.forward[cell++][1] = recurrence_forward<Format, Equations, AnyOptions>;
  RNNCORE_CELLS(RNNCORE_FORWARD)
#undef RNNCORE_FORWARD
  k.rows_product = rows_product<Format>;
  if constexpr (Format::kPack > 1) {
    k.pack_gates = pack_reduced<Format>;
  } else {
    k.pack_gates = pack_gates<typename Format::Real>;
  }
  return k;
}

template <class T>
constexpr Kernels<T> make_kernels() {
  Kernels<T> k = {};
  k.lanes = kLanes<T>;
  k.weights[kFull] = make_weight_kernels<FullWeights<T>>();
  if constexpr (sizeof(T) == sizeof(float)) {
    k.weights[kBfloat16] = make_weight_kernels<Bfloat16Weights>();
    k.weights[kInt8] = make_weight_kernels<Int8Weights>();
  }
  int cell = 0;
#define RNNCORE_BACKWARD(name, Equations, Candidate, has_plain)                       \
  if constexpr (has_plain) {                                                          \
    k.backward[cell][0] = recurrence_backward<T, Equations, PlainOptions<Candidate>>; \
  }                                                                                   \
  k.backward[cell++][1] = recurrence_backward<T, Equations, AnyOptions>;
  RNNCORE_CELLS(RNNCORE_BACKWARD)
#undef RNNCORE_BACKWARD
  k.outer_product = outer_product<T>;
  k.pack_columns = pack_columns<T>;
  k.sum_rows = sum_rows<T>;
  k.add = add<T>;
  k.multiply = multiply<T>;
  k.activation[0] = activation<T, ExpFunction>;
  k.activation[1] = activation<T, TanhFunction>;
  k.activation[2] = activation<T, SigmoidFunction>;
  k.softmax_rows = softmax_rows<T>;
  k.sgd = sgd<T>;
  k.adam = adam<T>;
  return k;
}

inline const KernelTable* kernel_table(const char* name) {
  static const KernelTable table = {
      name, make_kernels<float>(), make_kernels<double>(), kMaxAccumulators, fma_rounds, read_once};
  return &table;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
