// Several vectors that go through the same arithmetic side by side.
//
// A chain such as exp, then a division, then its correction waits some 80 cycles for its own
// results. A processor looks ahead only so far in the order of the program: what is independent
// must stand close together. A cell's equations, and exp, tanh and sigmoid below them, compile for
// a Group as for a vector, with each operation done for all of its members before the next one.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class Vec, int kCount>
struct Group {
  Vec v[kCount];
};

template <class Vec, int kCount>
struct VecOf<Group<Vec, kCount>> {
  using Element = typename VecOf<Vec>::Element;
  using Int = Group<typename VecOf<Vec>::Int, kCount>;
  using Scalar = typename VecOf<Vec>::Scalar;
};

#define RNNCORE_GROUP_LOOP _Pragma("GCC unroll 8") for (int i = 0; i < kCount; ++i)

#define RNNCORE_GROUP_BINARY(op)                                               \
  template <class Vec, int kCount>                                             \
  RNNCORE_INLINE Group<Vec, kCount> operator op(const Group<Vec, kCount>& a,   \
                                                const Group<Vec, kCount>& b) { \
    Group<Vec, kCount> result;                                                 \
    RNNCORE_GROUP_LOOP result.v[i] = a.v[i] op b.v[i];                         \
    return result;                                                             \
  }
RNNCORE_GROUP_BINARY(+)
RNNCORE_GROUP_BINARY(-)
RNNCORE_GROUP_BINARY(*)
RNNCORE_GROUP_BINARY(/)
RNNCORE_GROUP_BINARY(&)
RNNCORE_GROUP_BINARY(|)
#undef RNNCORE_GROUP_BINARY

#define RNNCORE_GROUP_COMPARISON(op)                                  \
  template <class Vec, int kCount>                                    \
  RNNCORE_INLINE typename VecOf<Group<Vec, kCount>>::Int operator op( \
      const Group<Vec, kCount>& a, const Group<Vec, kCount>& b) {     \
    typename VecOf<Group<Vec, kCount>>::Int result;                   \
    RNNCORE_GROUP_LOOP result.v[i] = a.v[i] op b.v[i];                \
    return result;                                                    \
  }
RNNCORE_GROUP_COMPARISON(<)
RNNCORE_GROUP_COMPARISON(>)
RNNCORE_GROUP_COMPARISON(<=)
RNNCORE_GROUP_COMPARISON(>=)
#undef RNNCORE_GROUP_COMPARISON

template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> operator-(const Group<Vec, kCount>& a) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = -a.v[i];
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> operator~(const Group<Vec, kCount>& a) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = ~a.v[i];
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> operator<<(const Group<Vec, kCount>& a, int count) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = a.v[i] << count;
  return result;
}

template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> fma(const Group<Vec, kCount>& a, const Group<Vec, kCount>& b,
                                      const Group<Vec, kCount>& c) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = fma(a.v[i], b.v[i], c.v[i]);
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> residual(const Group<Vec, kCount>& a, const Group<Vec, kCount>& q,
                                           const Group<Vec, kCount>& d) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = residual(a.v[i], q.v[i], d.v[i]);
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> subtract_product(const Group<Vec, kCount>& a,
                                                   const Group<Vec, kCount>& q,
                                                   const Group<Vec, kCount>& d) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = subtract_product(a.v[i], q.v[i], d.v[i]);
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> smaller(const Group<Vec, kCount>& a,
                                          const Group<Vec, kCount>& b) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = smaller(a.v[i], b.v[i]);
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> larger(const Group<Vec, kCount>& a, const Group<Vec, kCount>& b) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = larger(a.v[i], b.v[i]);
  return result;
}
template <class Int, class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> select(const Group<Int, kCount>& condition,
                                         const Group<Vec, kCount>& a, const Group<Vec, kCount>& b) {
  Group<Vec, kCount> result;
  RNNCORE_GROUP_LOOP result.v[i] = condition.v[i] ? a.v[i] : b.v[i];
  return result;
}
template <class Vec, int kCount>
RNNCORE_INLINE typename VecOf<Group<Vec, kCount>>::Int bits(const Group<Vec, kCount>& a) {
  typename VecOf<Group<Vec, kCount>>::Int result;
  RNNCORE_GROUP_LOOP result.v[i] = bits(a.v[i]);
  return result;
}

template <class Vec, int kCount>
struct Made<Group<Vec, kCount>> {
  using Element = typename VecOf<Vec>::Element;
  using Int = typename VecOf<Group<Vec, kCount>>::Int;
  static RNNCORE_INLINE Group<Vec, kCount> of(Element x) {
    Group<Vec, kCount> result;
    RNNCORE_GROUP_LOOP result.v[i] = broadcast(x);
    return result;
  }
  static RNNCORE_INLINE Group<Vec, kCount> from(const Int& a) {
    Group<Vec, kCount> result;
    RNNCORE_GROUP_LOOP result.v[i] = from_bits<Vec>(a.v[i]);
    return result;
  }
};

#undef RNNCORE_GROUP_LOOP

// How many of what is left go side by side, `most` at a time: groups of nearly equal size.
inline int next_together(int left, int most) {
  const int groups = (left + most - 1) / most;
  return (left + groups - 1) / groups;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
