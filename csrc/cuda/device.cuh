// The words that kernels are written in. On a GPU they are CUDA's own, on a CPU emulated.h gives
// the same words to fibers; everything else in this folder is one text for both.
//
// No header is included, so that NVRTC needs none, and inline PTX stands here alone. Memory that
// other threads see, global and shared, is touched by read() and write() and nothing else: the
// emulation watches them for races and for addresses that nobody owns.
#pragma once

#ifdef RNNCORE_EMULATED
#include "cuda/emulated.h"
#else

#define RNNCORE_ISA cuda
#define RNNCORE_DEVICE __device__ __forceinline__
#define RNNCORE_CELL_FUNCTION static __device__ __forceinline__
#define RNNCORE_CELL_METHOD __device__ __forceinline__
#define RNNCORE_CELL_CALL __device__ __noinline__

// An entry point: its name, threads in a block, its arguments' type and the function it runs.
#define RNNCORE_KERNEL(name, threads, Arguments, ...)                                     \
  extern "C" __global__ void __launch_bounds__(threads) name(const Arguments arguments) { \
    __VA_ARGS__(arguments);                                                               \
  }

namespace rnncore {
namespace cuda {

// --- places -------------------------------------------------------------------------------------

RNNCORE_DEVICE int thread_index() { return threadIdx.x; }
RNNCORE_DEVICE int thread_count() { return blockDim.x; }
RNNCORE_DEVICE int block_x() { return blockIdx.x; }
RNNCORE_DEVICE int block_y() { return blockIdx.y; }
RNNCORE_DEVICE int blocks_x() { return gridDim.x; }
RNNCORE_DEVICE int blocks_y() { return gridDim.y; }

// The block's dynamic shared memory, aligned to 16 bytes.
RNNCORE_DEVICE char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

// --- together -----------------------------------------------------------------------------------

// Every thread of the block arrives before one goes on; writes before are seen after.
RNNCORE_DEVICE void block_barrier() { __syncthreads(); }

// The value of the lane whose number differs in the bits of `mask`; all lanes of the warp take
// part.
RNNCORE_DEVICE float shuffle_xor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
RNNCORE_DEVICE double shuffle_xor(double value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// --- memory -------------------------------------------------------------------------------------

template <class Value>
RNNCORE_DEVICE Value read(const Value* from) {
  return *from;
}
template <class Value>
RNNCORE_DEVICE void write(Value* to, Value value) {
  *to = value;
}

// --- numbers ------------------------------------------------------------------------------------

struct Float16 {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

RNNCORE_DEVICE float widen(Float16 value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}
RNNCORE_DEVICE float widen(BFloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
RNNCORE_DEVICE void narrow(float value, Float16& to) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}
RNNCORE_DEVICE void narrow(float value, BFloat16& to) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}

RNNCORE_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
RNNCORE_DEVICE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
RNNCORE_DEVICE float tanh(float x) { return ::tanhf(x); }
RNNCORE_DEVICE double tanh(double x) { return ::tanh(x); }
RNNCORE_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + ::expf(-x)); }
RNNCORE_DEVICE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
RNNCORE_DEVICE float exp_negative(float x) { return ::expf(x); }
RNNCORE_DEVICE double exp_negative(double x) { return ::exp(x); }
RNNCORE_DEVICE float exp_minus_one(float x) { return ::expm1f(x); }
RNNCORE_DEVICE double exp_minus_one(double x) { return ::expm1(x); }
RNNCORE_DEVICE float log_one_plus(float x) { return ::log1pf(x); }
RNNCORE_DEVICE double log_one_plus(double x) { return ::log1p(x); }
RNNCORE_DEVICE float square_root(float x) { return ::sqrtf(x); }
RNNCORE_DEVICE double square_root(double x) { return ::sqrt(x); }

// High half of a product, for counter-based random numbers.
RNNCORE_DEVICE unsigned long long multiply_high(unsigned long long a, unsigned long long b) {
  return __umul64hi(a, b);
}

}  // namespace cuda
}  // namespace rnncore

#endif
