// The vector vocabulary on AVX2 with FMA: 32-byte vectors. See vec_portable.h.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int kVectorBytes = 32;
constexpr int kMaxAccumulators = 12;  // of 16 registers

typedef float VecFloat __attribute__((vector_size(kVectorBytes)));
typedef double VecDouble __attribute__((vector_size(kVectorBytes)));
typedef int32_t IntFloat __attribute__((vector_size(kVectorBytes)));
typedef int64_t IntDouble __attribute__((vector_size(kVectorBytes)));

inline VecFloat fma(VecFloat a, VecFloat b, VecFloat c) { return _mm256_fmadd_ps(a, b, c); }
inline VecDouble fma(VecDouble a, VecDouble b, VecDouble c) { return _mm256_fmadd_pd(a, b, c); }

// b where either is not a number.
inline VecFloat smaller(VecFloat a, VecFloat b) { return _mm256_min_ps(a, b); }
inline VecDouble smaller(VecDouble a, VecDouble b) { return _mm256_min_pd(a, b); }
inline VecFloat larger(VecFloat a, VecFloat b) { return _mm256_max_ps(a, b); }
inline VecDouble larger(VecDouble a, VecDouble b) { return _mm256_max_pd(a, b); }

inline VecFloat subtract_product(VecFloat a, VecFloat q, VecFloat d) {
  return _mm256_fnmadd_ps(q, d, a);
}
inline VecDouble subtract_product(VecDouble a, VecDouble q, VecDouble d) {
  return _mm256_fnmadd_pd(q, d, a);
}

// a - q d where a is close to q d: the fused product is not rounded, so there is nothing to add.
inline VecFloat residual(VecFloat a, VecFloat q, VecFloat d) { return subtract_product(a, q, d); }
inline VecDouble residual(VecDouble a, VecDouble q, VecDouble d) {
  return subtract_product(a, q, d);
}

inline __m256i first_floats(int count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
}
inline __m256i first_doubles(int count) {
  const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), lane);
}

inline VecFloat load_first(const float* p, int count) {
  return _mm256_maskload_ps(p, first_floats(count));
}
inline VecDouble load_first(const double* p, int count) {
  return _mm256_maskload_pd(p, first_doubles(count));
}
inline void store_first(float* p, VecFloat v, int count) {
  _mm256_maskstore_ps(p, first_floats(count), v);
}
inline void store_first(double* p, VecDouble v, int count) {
  _mm256_maskstore_pd(p, first_doubles(count), v);
}

// The mask is read anew every time: held in a register it would drive a sum out of the product's.
inline IntFloat upper_halves(IntFloat words) {
  alignas(kVectorBytes) static const int32_t kUpper[8] = {~0xffff, ~0xffff, ~0xffff, ~0xffff,
                                                          ~0xffff, ~0xffff, ~0xffff, ~0xffff};
  return words & *reinterpret_cast<const volatile IntFloat*>(kUpper);
}

inline IntFloat lower_bytes(IntFloat words) {
  return (IntFloat)_mm256_srai_epi16(_mm256_slli_epi16((__m256i)words, 8), 8);
}
inline IntFloat upper_bytes(IntFloat words) {
  return (IntFloat)_mm256_srai_epi16((__m256i)words, 8);
}
inline IntFloat add_pairs(IntFloat a, IntFloat b) {
  return (IntFloat)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
