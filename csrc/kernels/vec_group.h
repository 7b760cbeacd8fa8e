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

// What shares the lanes of such a group: the results of its comparisons, and its bits.
template <class Vec, int kCount>
using IntGroup = typename VecOf<Group<Vec, kCount>>::Int;

// Returns a group whose member i is `member`; and functions of one, two and three groups that do.
#define RNNCORE_GROUP_RETURN(Result, member)                                     \
  Result<Vec, kCount> result;                                                    \
  _Pragma("GCC unroll 8") for (int i = 0; i < kCount; ++i) result.v[i] = member; \
  return result
#define RNNCORE_GROUP_UNARY(Result, name, member)                        \
  template <class Vec, int kCount>                                       \
  RNNCORE_INLINE Result<Vec, kCount> name(const Group<Vec, kCount>& a) { \
    RNNCORE_GROUP_RETURN(Result, member);                                \
  }
#define RNNCORE_GROUP_BINARY(Result, name, member)                       \
  template <class Vec, int kCount>                                       \
  RNNCORE_INLINE Result<Vec, kCount> name(const Group<Vec, kCount>& a,   \
                                          const Group<Vec, kCount>& b) { \
    RNNCORE_GROUP_RETURN(Result, member);                                \
  }
#define RNNCORE_GROUP_TERNARY(Result, name, member)                                            \
  template <class Vec, int kCount>                                                             \
  RNNCORE_INLINE Result<Vec, kCount> name(                                                     \
      const Group<Vec, kCount>& a, const Group<Vec, kCount>& b, const Group<Vec, kCount>& c) { \
    RNNCORE_GROUP_RETURN(Result, member);                                                      \
  }

RNNCORE_GROUP_UNARY(Group, operator-, -a.v[i])
RNNCORE_GROUP_UNARY(Group, operator~, ~a.v[i])
RNNCORE_GROUP_UNARY(IntGroup, bits, bits(a.v[i]))

RNNCORE_GROUP_BINARY(Group, operator+, a.v[i] + b.v[i])
RNNCORE_GROUP_BINARY(Group, operator-, a.v[i] - b.v[i])
RNNCORE_GROUP_BINARY(Group, operator*, a.v[i] * b.v[i])
RNNCORE_GROUP_BINARY(Group, operator/, a.v[i] / b.v[i])
RNNCORE_GROUP_BINARY(Group, operator&, a.v[i] & b.v[i])
RNNCORE_GROUP_BINARY(Group, operator|, a.v[i] | b.v[i])
RNNCORE_GROUP_BINARY(IntGroup, operator<, a.v[i] < b.v[i])
RNNCORE_GROUP_BINARY(IntGroup, operator>, a.v[i] > b.v[i])
RNNCORE_GROUP_BINARY(IntGroup, operator<=, a.v[i] <= b.v[i])
RNNCORE_GROUP_BINARY(IntGroup, operator>=, a.v[i] >= b.v[i])
RNNCORE_GROUP_BINARY(Group, smaller, smaller(a.v[i], b.v[i]))
RNNCORE_GROUP_BINARY(Group, larger, larger(a.v[i], b.v[i]))

RNNCORE_GROUP_TERNARY(Group, fma, fma(a.v[i], b.v[i], c.v[i]))
RNNCORE_GROUP_TERNARY(Group, residual, residual(a.v[i], b.v[i], c.v[i]))
RNNCORE_GROUP_TERNARY(Group, subtract_product, subtract_product(a.v[i], b.v[i], c.v[i]))

template <class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> operator<<(const Group<Vec, kCount>& a, int count) {
  RNNCORE_GROUP_RETURN(Group, a.v[i] << count);
}
template <class Int, class Vec, int kCount>
RNNCORE_INLINE Group<Vec, kCount> select(const Group<Int, kCount>& condition,
                                         const Group<Vec, kCount>& a, const Group<Vec, kCount>& b) {
  RNNCORE_GROUP_RETURN(Group, condition.v[i] ? a.v[i] : b.v[i]);
}

template <class Vec, int kCount>
struct Made<Group<Vec, kCount>> {
  static RNNCORE_INLINE Group<Vec, kCount> of(typename VecOf<Vec>::Element x) {
    RNNCORE_GROUP_RETURN(Group, broadcast(x));
  }
  static RNNCORE_INLINE Group<Vec, kCount> from(const IntGroup<Vec, kCount>& a) {
    RNNCORE_GROUP_RETURN(Group, from_bits<Vec>(a.v[i]));
  }
};

#undef RNNCORE_GROUP_TERNARY
#undef RNNCORE_GROUP_BINARY
#undef RNNCORE_GROUP_UNARY
#undef RNNCORE_GROUP_RETURN

// How many of what is left go side by side, `most` at a time: groups of nearly equal size.
inline int next_together(int left, int most) {
  const int groups = (left + most - 1) / most;
  return (left + groups - 1) / groups;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
