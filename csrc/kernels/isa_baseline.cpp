// The kernels for any machine that the compiler's baseline covers.
#define RNNCORE_ISA baseline
// clang-format off: the vocabulary first.
#include "kernels/vec_portable.h"
#include "kernels/kernel_table.inl"
// clang-format on

namespace rnncore {
const KernelTable* baseline_kernels() { return baseline::kernel_table("baseline"); }
}  // namespace rnncore
