// The kernels for AVX2 with FMA.
#define RNNCORE_ISA avx2
#include "kernels/vec_avx2.h"

#include "kernels/kernel_table.inl"

namespace rnncore {
const KernelTable* avx2_kernels() { return avx2::kernel_table("avx2"); }
}  // namespace rnncore
