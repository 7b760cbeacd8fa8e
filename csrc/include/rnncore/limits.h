// The machine's own limits, measured: what a kernel's speed is a share of.
#pragma once

#include <cstdint>

#include "rnncore/stack.h"

namespace rnncore {

// Fused multiply-adds in registers on `num_threads` threads of the team, float32 operations a
// second (two a multiply-add).
double measure_fma_rate(int num_threads, double seconds);

// Bytes a second that `num_threads` threads read, each its own part of `bytes`, again and again.
double measure_read_rate(int64_t bytes, int num_threads, double seconds);

// Seconds that one of `steps` steps of a stream of `batch` rows takes, called from C++.
double measure_stream_step(const PackedStack& packed, int64_t batch, int64_t steps,
                           int num_threads);

}  // namespace rnncore
