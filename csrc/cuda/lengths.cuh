// Lengths that a caller left on the device, where the host may not look at them.
#pragma once

#include "cuda/normalise.cuh"

namespace rnncore {
namespace cuda {

// One block for all rows: so one thread knows whether any length was beyond 0 .. T, and the word in
// the host's memory is written by nobody else, and only if there was.
RNNCORE_DEVICE void take_lengths(const TakeLengths& take) {
  float beyond = 0;  // a sum of ones, which no rounding brings back to 0
  for (Index n = thread_index(); n < take.rows; n += thread_count()) {
    const Index length = read(take.lengths + n);
    const Index taken = length < 0 ? 0 : length > take.steps ? take.steps : length;
    write(take.taken + n, static_cast<int>(taken));
    if (taken != length) beyond += 1;
  }
  if (block_sum(beyond) > 0 && thread_index() == 0) write(take.beyond, 1);
}

}  // namespace cuda
}  // namespace rnncore
