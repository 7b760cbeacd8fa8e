#include "core/cuda_plan.h"

namespace rnncore {

int64_t persistent_width(const StackSpec& spec, CudaType type) {
  constexpr int64_t kRegisters = 65536, kMostOfAThread = 255;  // of a block and of a thread
  if (spec.has_hidden() || spec.layer_norm) return 0;
  for (const int64_t width : kPersistentWidths) {
    if (width < spec.hidden_size) continue;
    const int64_t words = size_of(real_of(type)) / 4;
    const int64_t weights = spec.shape().recurrent_gates * width / kPersistentSplit * words;
    const int64_t most = std::min(kMostOfAThread, kRegisters / (kPersistentSplit * width));
    // The other half of a thread's registers holds sums, states and addresses.
    return weights <= (most + 1) / 2 ? width : 0;
  }
  return 0;
}

}  // namespace rnncore
