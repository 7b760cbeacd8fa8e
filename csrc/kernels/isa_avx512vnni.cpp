// The kernels of 8-bit weights for AVX-512 with VNNI; all others are isa_avx512.cpp's.
#define RNNCORE_ISA avx512vnni
// clang-format off: the vocabulary first.
#include "kernels/vec_avx512.h"
#include "kernels/kernel_table.inl"
// clang-format on

namespace rnncore {
const WeightKernels<float>* avx512vnni_int8() {
  static const WeightKernels<float> kernels =
      avx512vnni::make_weight_kernels<avx512vnni::Int8Weights>();
  return &kernels;
}
}  // namespace rnncore
