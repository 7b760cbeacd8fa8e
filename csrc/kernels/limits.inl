// What the machine can do, for benchmarks: arithmetic without memory, and memory without
// arithmetic.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// 2 * lanes * kMaxAccumulators * `rounds` operations on registers alone.
inline double fma_rounds(int64_t rounds) {
  VecFloat sum[kMaxAccumulators];
  for (int i = 0; i < kMaxAccumulators; ++i) sum[i] = broadcast(1.0f + 0.001f * i);
  const VecFloat a = broadcast(0.999f), b = broadcast(0.001f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < kMaxAccumulators; ++i) sum[i] = fma(sum[i], a, b);
  }
  VecFloat all = sum[0];
  for (int i = 1; i < kMaxAccumulators; ++i) all = all + sum[i];
  return static_cast<double>(all[0]);
}

// Reads `count` floats, a multiple of 8 vectors, once.
inline double read_once(const float* data, int64_t count) {
  constexpr int kStreams = 8;
  VecFloat sum[kStreams] = {};
  for (int64_t i = 0; i < count; i += kStreams * kLanes<float>) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) sum[s] = sum[s] + load(data + i + s * kLanes<float>);
  }
  VecFloat all = sum[0];
  for (int s = 1; s < kStreams; ++s) all = all + sum[s];
  return static_cast<double>(all[0]);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
