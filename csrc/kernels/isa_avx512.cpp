// The kernels for AVX-512 (F, BW, CD, DQ, VL).
#define RNNCORE_ISA avx512
// clang-format off: the vocabulary first.
#include "kernels/vec_avx512.h"
#include "kernels/kernel_table.inl"
// clang-format on

namespace rnncore {
const KernelTable* avx512_kernels() { return avx512::kernel_table("avx512"); }
}  // namespace rnncore
