// The words of device.cuh on a CPU, where tests run kernels: every thread of a launch is a fiber.
// What happens behind these words (schedule, shared memory, the watch over addresses and races) is
// in tests/emulation.
//
// Words that may go wrong know the line that they were called from, so that reports can name it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define RNNCORE_ISA cuda
#define RNNCORE_DEVICE inline
#define RNNCORE_CELL_FUNCTION static inline
#define RNNCORE_CELL_METHOD inline
#define RNNCORE_CELL_CALL __attribute__((noinline))

#define RNNCORE_KERNEL(name, threads, Arguments, ...)                                     \
  static void name##_thread(const void* arguments) {                                      \
    __VA_ARGS__(*static_cast<const Arguments*>(arguments));                               \
  }                                                                                       \
  static const ::rnncore::cuda::emulation::Kernel name(#name, threads, sizeof(Arguments), \
                                                       name##_thread);

namespace rnncore {
namespace cuda {
namespace emulation {

// Where the running thread stands.
struct Place {
  int thread, threads, block_x, block_y, blocks_x, blocks_y;
  char* shared;
};
extern const Place* place;

// An entry point, which its constructor makes known by name.
struct Kernel {
  Kernel(const char* name, int threads, size_t arguments_bytes, void (*run)(const void*));
  const char* name;
  int threads;
  size_t arguments_bytes;
  void (*run)(const void* arguments);
};

// Whether the running thread may: what it may not is reported, and then left undone.
bool may_read(const void* from, size_t bytes, size_t alignment, const char* file, int line);
bool may_write(void* to, size_t bytes, size_t alignment, const char* file, int line);
void wait_for_block(const char* file, int line);
// The lane's 64 bits become those of the lane whose number differs in `mask`.
uint64_t wait_for_warp(uint64_t value, int mask, const char* file, int line);

}  // namespace emulation

// --- places -------------------------------------------------------------------------------------

inline int thread_index() { return emulation::place->thread; }
inline int thread_count() { return emulation::place->threads; }
inline int block_x() { return emulation::place->block_x; }
inline int block_y() { return emulation::place->block_y; }
inline int blocks_x() { return emulation::place->blocks_x; }
inline int blocks_y() { return emulation::place->blocks_y; }
inline char* shared_memory() { return emulation::place->shared; }

// --- together -----------------------------------------------------------------------------------

inline void block_barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulation::wait_for_block(file, line);
}

template <class To, class From>
inline To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits of another size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float shuffle_xor(float value, int mask, const char* file = __builtin_FILE(),
                         int line = __builtin_LINE()) {
  const uint64_t other = emulation::wait_for_warp(same_bits<uint32_t>(value), mask, file, line);
  return same_bits<float>(static_cast<uint32_t>(other));
}
inline double shuffle_xor(double value, int mask, const char* file = __builtin_FILE(),
                          int line = __builtin_LINE()) {
  return same_bits<double>(emulation::wait_for_warp(same_bits<uint64_t>(value), mask, file, line));
}

// --- memory -------------------------------------------------------------------------------------

template <class Value>
inline Value read(const Value* from, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  Value value{};
  if (emulation::may_read(from, sizeof value, alignof(Value), file, line)) {
    std::memcpy(&value, from, sizeof value);
  }
  return value;
}
template <class Value>
inline void write(Value* to, Value value, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  if (emulation::may_write(to, sizeof value, alignof(Value), file, line)) {
    std::memcpy(to, &value, sizeof value);
  }
}

// --- numbers ------------------------------------------------------------------------------------

struct Float16 {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

inline float widen(Float16 value) {
  const int sign = value.bits >> 15, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  if (exponent == 31 && fraction) return same_bits<float>(uint32_t{0x7fffffff});
  float wide = exponent == 31  ? INFINITY
               : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                               : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return sign ? -wide : wide;
}
inline float widen(BFloat16 value) {
  return same_bits<float>(static_cast<uint32_t>(value.bits) << 16);
}

// To nearest, ties to even. Any NaN becomes the one that the device makes.
inline void narrow(float value, Float16& to) {
  const unsigned sign = same_bits<uint32_t>(value) >> 16 & 0x8000u;
  const float size = std::fabs(value);
  unsigned bits;
  if (size != size) {
    to.bits = 0x7fff;
    return;
  }
  if (size >= 65520.0f) {  // half of the last step past the largest number, 65504
    bits = 0x7c00;
  } else if (size < 6.103515625e-05f) {  // 2^-14: multiples of 2^-24, in the current rounding
    bits = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 24)));
  } else {  // thirteen bits go; a carry goes into the exponent, where it belongs
    const uint32_t wide = same_bits<uint32_t>(size) - (112u << 23);
    bits = (wide + 0xfffu + (wide >> 13 & 1u)) >> 13;
  }
  to.bits = static_cast<unsigned short>(sign | bits);
}
inline void narrow(float value, BFloat16& to) {
  const uint32_t wide = same_bits<uint32_t>(value);
  const uint32_t rounded = (wide + 0x7fffu + (wide >> 16 & 1u)) >> 16;
  to.bits = static_cast<unsigned short>(value != value ? 0x7fffu : rounded);
}

inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline double fma(double a, double b, double c) { return std::fma(a, b, c); }
inline float tanh(float x) { return std::tanh(x); }
inline double tanh(double x) { return std::tanh(x); }
inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
inline float exp_negative(float x) { return std::exp(x); }
inline double exp_negative(double x) { return std::exp(x); }
inline float exp_minus_one(float x) { return std::expm1(x); }
inline double exp_minus_one(double x) { return std::expm1(x); }
inline float log_one_plus(float x) { return std::log1p(x); }
inline double log_one_plus(double x) { return std::log1p(x); }
inline float square_root(float x) { return std::sqrt(x); }
inline double square_root(double x) { return std::sqrt(x); }

inline unsigned long long multiply_high(unsigned long long a, unsigned long long b) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}

}  // namespace cuda
}  // namespace rnncore
