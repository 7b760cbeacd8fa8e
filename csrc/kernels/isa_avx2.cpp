// The kernels for AVX2 with FMA.
#define RNNCORE_ISA avx2
// clang-format off: the vocabulary first.
#include "kernels/vec_avx2.h"
#include "kernels/kernel_table.inl"
// clang-format on

namespace rnncore {
const KernelTable* avx2_kernels() { return avx2::kernel_table("avx2"); }
}  // namespace rnncore
