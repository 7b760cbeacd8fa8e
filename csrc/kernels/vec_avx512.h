// The vector vocabulary on AVX-512 (F, BW, CD, DQ, VL): 64-byte vectors. See vec_portable.h.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int kVectorBytes = 64;
constexpr int kMaxAccumulators = 24;  // of 32 registers

typedef float VecFloat __attribute__((vector_size(kVectorBytes)));
typedef double VecDouble __attribute__((vector_size(kVectorBytes)));
typedef int32_t IntFloat __attribute__((vector_size(kVectorBytes)));
typedef int64_t IntDouble __attribute__((vector_size(kVectorBytes)));

inline VecFloat fma(VecFloat a, VecFloat b, VecFloat c) { return _mm512_fmadd_ps(a, b, c); }
inline VecDouble fma(VecDouble a, VecDouble b, VecDouble c) { return _mm512_fmadd_pd(a, b, c); }

// b where either is not a number.
inline VecFloat smaller(VecFloat a, VecFloat b) { return _mm512_maskz_min_ps(0xffff, a, b); }
inline VecDouble smaller(VecDouble a, VecDouble b) { return _mm512_maskz_min_pd(0xff, a, b); }
inline VecFloat larger(VecFloat a, VecFloat b) { return _mm512_maskz_max_ps(0xffff, a, b); }
inline VecDouble larger(VecDouble a, VecDouble b) { return _mm512_maskz_max_pd(0xff, a, b); }

inline VecFloat subtract_product(VecFloat a, VecFloat q, VecFloat d) {
  return _mm512_fnmadd_ps(q, d, a);
}
inline VecDouble subtract_product(VecDouble a, VecDouble q, VecDouble d) {
  return _mm512_fnmadd_pd(q, d, a);
}

// a - q d where a is close to q d: the fused product is not rounded, so there is nothing to add.
inline VecFloat residual(VecFloat a, VecFloat q, VecFloat d) { return subtract_product(a, q, d); }
inline VecDouble residual(VecDouble a, VecDouble q, VecDouble d) {
  return subtract_product(a, q, d);
}

inline __mmask16 first_floats(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
inline __mmask8 first_doubles(int count) { return static_cast<__mmask8>((1u << count) - 1u); }

inline VecFloat load_first(const float* p, int count) {
  return _mm512_maskz_loadu_ps(first_floats(count), p);
}
inline VecDouble load_first(const double* p, int count) {
  return _mm512_maskz_loadu_pd(first_doubles(count), p);
}
inline void store_first(float* p, VecFloat v, int count) {
  _mm512_mask_storeu_ps(p, first_floats(count), v);
}
inline void store_first(double* p, VecDouble v, int count) {
  _mm512_mask_storeu_pd(p, first_doubles(count), v);
}

inline IntFloat upper_halves(IntFloat words) { return words & ~0xffff; }

#ifdef __AVX512VNNI__
// Four products of bytes a lane, those of x or h without a sign: they are stored 128 larger, and
// sums start from -128 times the sum of their weights.
#define RNNCORE_HAS_BYTE_PRODUCTS
using Activation = uint8_t;
constexpr int32_t kActivationZero = 128;
constexpr int kByteOrder[4] = {0, 1, 2, 3};
using ActivationVec = IntFloat;
using ByteVec = IntFloat;

inline ActivationVec broadcast_activations(const Activation* p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return four - IntFloat{};
}
inline ByteVec split_bytes(IntFloat words) { return words; }
inline IntFloat add_dot(IntFloat sum, ActivationVec a, ByteVec w) {
  return (IntFloat)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)w);
}
inline void store_activations(Activation* to, IntFloat q) {
  typedef int8_t Bytes __attribute__((vector_size(kVectorBytes / 4)));
  const Bytes narrow = __builtin_convertvector(q + kActivationZero, Bytes);
  memcpy(to, &narrow, sizeof narrow);
}
#else
inline IntFloat lower_bytes(IntFloat words) {
  return (IntFloat)_mm512_srai_epi16(_mm512_slli_epi16((__m512i)words, 8), 8);
}
inline IntFloat upper_bytes(IntFloat words) {
  return (IntFloat)_mm512_srai_epi16((__m512i)words, 8);
}
inline IntFloat add_pairs(IntFloat a, IntFloat b) {
  return (IntFloat)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
#endif

}  // namespace RNNCORE_ISA
}  // namespace rnncore
