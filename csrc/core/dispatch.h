// Which kernels run: the best instruction set of this machine, or the one that RNNCORE_ISA names.
#pragma once

#include "kernels/kernel_table.h"
#include "rnncore/types.h"

namespace rnncore {

const KernelTable& chosen_kernels();
const KernelTable& kernels_named(const char* name);  // throws std::invalid_argument

template <class T>
const Kernels<T>& kernels_of(const KernelTable& table);
template <>
inline const Kernels<float>& kernels_of<float>(const KernelTable& table) {
  return table.f32;
}
template <>
inline const Kernels<double>& kernels_of<double>(const KernelTable& table) {
  return table.f64;
}

template <class T>
const WeightKernels<T>& weight_kernels(const KernelTable& table, Weights weights) {
  const Weighting which = weights == Weights::full       ? kFull
                          : weights == Weights::bfloat16 ? kBfloat16
                                                         : kInt8;
  return kernels_of<T>(table).weights[which];
}

}  // namespace rnncore
