// The part of the vector vocabulary that no instruction set needs to spell for itself: the
// compilers' vector types already have + - * / and the comparisons.
#pragma once

#define RNNCORE_INLINE inline __attribute__((always_inline))

namespace rnncore {
namespace RNNCORE_ISA {

// VecOf<float>::Vec is the vector of floats, ::Int the integers that share its lanes.
typedef unsigned char BytesFloat __attribute__((vector_size(kVectorBytes / 4)));
typedef unsigned char BytesDouble __attribute__((vector_size(kVectorBytes / 8)));
template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  using Vec = VecFloat;
  using Int = IntFloat;
  using Bytes = BytesFloat;
  using Scalar = int32_t;
};
template <>
struct VecOf<double> {
  using Vec = VecDouble;
  using Int = IntDouble;
  using Bytes = BytesDouble;
  using Scalar = int64_t;
};
template <>
struct VecOf<VecFloat> : VecOf<float> {
  using Element = float;
};
template <>
struct VecOf<VecDouble> : VecOf<double> {
  using Element = double;
};

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline typename VecOf<T>::Vec load(const T* p) {
  typename VecOf<T>::Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class T, class Vec>
inline void store(T* p, Vec v) {
  memcpy(p, &v, sizeof v);
}

template <class T>
inline typename VecOf<T>::Vec broadcast(T x) {
  return x - typename VecOf<T>::Vec{};
}

template <class Vec>
RNNCORE_INLINE Vec constant(double x) {
  return broadcast(static_cast<typename VecOf<Vec>::Element>(x));
}

// a where the condition holds, else b.
template <class Int, class Vec>
RNNCORE_INLINE Vec select(Int condition, Vec a, Vec b) {
  return condition ? a : b;
}

template <class Vec>
inline typename VecOf<Vec>::Int bits(Vec v) {
  typename VecOf<Vec>::Int i;
  memcpy(&i, &v, sizeof i);
  return i;
}

template <class Vec>
RNNCORE_INLINE Vec from_bits(typename VecOf<Vec>::Int i) {
  Vec v;
  memcpy(&v, &i, sizeof v);
  return v;
}

// Lanes at and after `count` become +0, whatever they held: padding must stay zero, and NaN times
// zero is not. Only the last block of a row has such lanes.
template <class T>
inline typename VecOf<T>::Vec keep_first(typename VecOf<T>::Vec v, int count) {
  T lanes[kLanes<T>];
  memcpy(lanes, &v, sizeof v);
  return count >= kLanes<T> ? v : load_first(lanes, count);
}

// Asks for the lines of a row that is about to be written. Inlined always: GCC leaves out calls of
// functions that do nothing but this.
template <class T>
RNNCORE_INLINE void prefetch_row(const T* row, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T))) {
    __builtin_prefetch(row + i, 1);
  }
}

// The lanes of a and b in turn: those of the lower half of each, or of the upper half.
template <class Vec>
inline Vec interleave(Vec a, Vec b, bool upper) {
  using T = typename VecOf<Vec>::Element;
  using Int = typename VecOf<Vec>::Int;
  constexpr int kLane = kLanes<T>;
  Int pick;
  for (int i = 0; i < kLane; ++i) {
    pick[i] = (upper ? kLane / 2 : 0) + i / 2 + (i % 2 ? kLane : 0);
  }
#if defined(__clang__)
  T both[2 * kLane], out[kLane];
  memcpy(both, &a, sizeof a);
  memcpy(both + kLane, &b, sizeof b);
  for (int i = 0; i < kLane; ++i) out[i] = both[pick[i]];
  return load(out);
#else
  return __builtin_shuffle(a, b, pick);
#endif
}

// rows[i][j] becomes rows[j][i]: as many rounds of interleaving as the lanes have bits.
template <class T>
inline void transpose(typename VecOf<T>::Vec rows[kLanes<T>]) {
  constexpr int kLane = kLanes<T>;
#pragma GCC unroll 4
  for (int width = 1; width < kLane; width *= 2) {
    typename VecOf<T>::Vec next[kLane];
#pragma GCC unroll 8
    for (int i = 0; i < kLane / 2; ++i) {
      next[2 * i] = interleave(rows[i], rows[i + kLane / 2], false);
      next[2 * i + 1] = interleave(rows[i], rows[i + kLane / 2], true);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLane; ++i) rows[i] = next[i];
  }
}

inline VecFloat to_float(IntFloat i) { return __builtin_convertvector(i, VecFloat); }

inline IntFloat load_words(const int32_t* p) {
  IntFloat v;
  memcpy(&v, p, sizeof v);
  return v;
}

// Products of 8-bit numbers, four to a word. Here the values that weights are multiplied by have 16
// bits and a word's bytes the order 0 2 1 3, so that its 16-bit halves hold bytes 0 and 2 above
// which lie 1 and 3: what has no instruction for bytes widens first, since the one that adds
// neighbouring products of bytes saturates. AVX-512 with VNNI has such instructions (vec_avx512.h).
#ifndef RNNCORE_HAS_BYTE_PRODUCTS
using Activation = int16_t;
constexpr int32_t kActivationZero = 0;
constexpr int kByteOrder[4] = {0, 2, 1, 3};
typedef int16_t ShortFloat __attribute__((vector_size(kVectorBytes / 2)));

struct ActivationVec {
  IntFloat low, high;  // values 0 and 1 in every lane, 2 and 3
};
struct ByteVec {
  IntFloat low, high;
};

inline ActivationVec broadcast_activations(const Activation* p) {
  int32_t pairs[2];
  memcpy(pairs, p, sizeof pairs);
  return {pairs[0] - IntFloat{}, pairs[1] - IntFloat{}};
}

inline ByteVec split_bytes(IntFloat words) { return {lower_bytes(words), upper_bytes(words)}; }

inline IntFloat add_dot(IntFloat sum, const ActivationVec& a, const ByteVec& w) {
  return sum + (add_pairs(a.low, w.low) + add_pairs(a.high, w.high));
}

inline void store_activations(Activation* to, IntFloat q) {
  const ShortFloat narrow = __builtin_convertvector(q, ShortFloat);
  memcpy(to, &narrow, sizeof narrow);
}
#endif

// Lanes all ones where a byte is not 0; those beyond `count` are zero.
template <class T>
inline typename VecOf<T>::Int load_flags(const unsigned char* p, int count) {
  typename VecOf<T>::Bytes bytes = {};
  if (count >= kLanes<T>) {
    memcpy(&bytes, p, sizeof bytes);
  } else {
    for (int i = 0; i < count; ++i) bytes[i] = p[i];
  }
  return __builtin_convertvector(bytes, typename VecOf<T>::Int) != 0;
}

// Sixteen partial sums, joined by a tree of fixed shape: the vector width never sets the order.
template <class T>
inline T sum_of_partials(const T partial[kGroup]) {
  T level[kGroup];
  memcpy(level, partial, sizeof level);
  for (int width = kGroup / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) level[i] = level[i] + level[i + width];
  }
  return level[0];
}

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

// How many lanes of a vector hold units when `left` units are left from its first on.
template <class T>
inline int existing(int64_t left) {
  return left >= kLanes<T> ? kLanes<T> : left > 0 ? static_cast<int>(left) : 0;
}

// A whole vector where all lanes exist, else the first `count` of them; the rest reads as zero.
template <class T>
inline typename VecOf<T>::Vec load_upto(const T* p, int count) {
  return count >= kLanes<T> ? load(p) : load_first(p, count);
}

template <class T, class Vec>
inline void store_upto(T* p, Vec v, int count) {
  if (count >= kLanes<T>) {
    store(p, v);
  } else {
    store_first(p, v, count);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
