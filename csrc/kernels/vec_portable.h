// The vector vocabulary for any machine: 16-byte vectors, as SSE2 and NEON have them.
//
// Every instruction set offers the same names (vec_portable.h, vec_avx2.h, vec_avx512.h); what
// needs no instruction of its own is written once in vec_common.h. Without a fused multiply-add
// the product is rounded, so this build agrees with the others within the published error bounds,
// not to the bit.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int kVectorBytes = 16;
constexpr int kMaxAccumulators = 8;  // 16 registers, two operands of a product in flight

typedef float VecFloat __attribute__((vector_size(kVectorBytes)));
typedef double VecDouble __attribute__((vector_size(kVectorBytes)));
typedef int32_t IntFloat __attribute__((vector_size(kVectorBytes)));
typedef int64_t IntDouble __attribute__((vector_size(kVectorBytes)));

inline VecFloat fma(VecFloat a, VecFloat b, VecFloat c) { return a * b + c; }
inline VecDouble fma(VecDouble a, VecDouble b, VecDouble c) { return a * b + c; }

// b where either is not a number.
inline VecFloat smaller(VecFloat a, VecFloat b) { return a < b ? a : b; }
inline VecDouble smaller(VecDouble a, VecDouble b) { return a < b ? a : b; }
inline VecFloat larger(VecFloat a, VecFloat b) { return a > b ? a : b; }
inline VecDouble larger(VecDouble a, VecDouble b) { return a > b ? a : b; }

inline VecFloat subtract_product(VecFloat a, VecFloat q, VecFloat d) { return a - q * d; }
inline VecDouble subtract_product(VecDouble a, VecDouble q, VecDouble d) { return a - q * d; }

// a - q d where a is close to q d: the product in two halves that add up exactly (Dekker 1971).
template <class Vec>
inline Vec split_residual(Vec a, Vec q, Vec d, Vec splitter) {
  const Vec q_high = q * splitter - (q * splitter - q), q_low = q - q_high;
  const Vec d_high = d * splitter - (d * splitter - d), d_low = d - d_high;
  const Vec product = q * d;
  const Vec lost = q_high * d_high - product + q_high * d_low + q_low * d_high + q_low * d_low;
  return (a - product) - lost;
}
inline VecFloat residual(VecFloat a, VecFloat q, VecFloat d) {
  return split_residual(a, q, d, 4097.0f - VecFloat{});
}
inline VecDouble residual(VecDouble a, VecDouble q, VecDouble d) {
  return split_residual(a, q, d, 134217729.0 - VecDouble{});
}

template <class Vec, class T>
inline Vec load_first_lanes(const T* p, int count) {
  Vec v = {};
  memcpy(&v, p, static_cast<size_t>(count) * sizeof(T));
  return v;
}

inline VecFloat load_first(const float* p, int count) {
  return load_first_lanes<VecFloat>(p, count);
}
inline VecDouble load_first(const double* p, int count) {
  return load_first_lanes<VecDouble>(p, count);
}
inline void store_first(float* p, VecFloat v, int count) {
  memcpy(p, &v, static_cast<size_t>(count) * sizeof(float));
}
inline void store_first(double* p, VecDouble v, int count) {
  memcpy(p, &v, static_cast<size_t>(count) * sizeof(double));
}

inline IntFloat upper_halves(IntFloat words) { return words & ~0xffff; }

// Of each 16-bit half the lower or the upper byte, its sign extended; and the sum of the products
// of both halves.
typedef int16_t Halves __attribute__((vector_size(kVectorBytes)));
inline IntFloat lower_bytes(IntFloat words) { return (IntFloat)((Halves)words << 8 >> 8); }
inline IntFloat upper_bytes(IntFloat words) { return (IntFloat)((Halves)words >> 8); }
inline IntFloat add_pairs(IntFloat a, IntFloat b) {
  return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
