// exp, sigmoid and tanh on vectors, all from one core, in exactly specified operations only: the
// bits are the same for AVX2 and AVX-512, and every result is within 2 ulp
// (tests/test_activations).
//
//   exp(x) = 2^n (1 + s),  n = round(x / ln 2),  r = x - n ln 2,  s = r + r^2 q(r) = e^r - 1
//   sigmoid(x) = 1 / (1 + e) = 2^-n / (2^-n + 1 + s),                   e = exp(-x)
//   tanh(x) = |x| < 0.55 ? x + x^3 p(x^2)
//                        : sign(x) (1 - 2 / (1 + e)), made in the same way, e = exp(2|x|)
//
// ln 2 is subtracted in two parts (Cody and Waite 1980). exp does so only after r^2 q, so that s is
// rounded once; where 1 + e follows, the sum's own rounding outweighs that, and r is rounded. For
// tanh one part does: what it leaves out grows with n, and what e counts for shrinks faster.
//
// Products, sums of products and divisions share two of a Zen's four units, so few of them are
// what counts: powers of two divide by becoming the numerator, and tanh's two series are one whose
// terms are chosen.
//
// q is a Chebyshev fit on |r| <= 0.347 whose error is 8e-9 (float) and 2e-19 (double), p one on
// |x| <= 0.55 that costs tanh 4e-9 and 3e-18. No std function, no table, no
// approximate reciprocal.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kLog2e = 1.44269504f, kLn2 = 0.69314718f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.1219444e-4f;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr int kMantissaBits = 23;
  static constexpr int kExponentBias = 127;
  static constexpr float kLargest = 88.72284f;     // exp overflows above
  static constexpr float kSmallest = -87.336544f;  // and is subnormal, so zero, below
  static constexpr float kScaleIsZero = -88.0f;    // 2^n is zero in exp_core; above, e^x flushes
  static constexpr float kTanhIsOne = 9.5f;        // to well within rounding
  static constexpr float kOneIsLost = -16.0f;      // 1 + e^-x loses bits of the 1
  static constexpr int kTerms = 5;
  static constexpr float kTanhIsNear = 0.55f;  // to 0
  static constexpr float kP[kTerms] = {-0.00660715948f, 0.0213077563f, -0.0539091626f, 0.133331124f,
                                       -0.33333332f};
  static constexpr float kQ[kTerms] = {0.00139262508f, 0.00836323288f, 0.0416665542f, 0.166665766f,
                                       0.5f};
};

template <>
struct ExpConstants<double> {
  static constexpr double kLog2e = 1.4426950408889634, kLn2 = 0.6931471805599453;
  static constexpr double kLn2High = 0.693145751953125, kLn2Low = 1.4286068203094173e-06;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int kMantissaBits = 52;
  static constexpr int kExponentBias = 1023;
  static constexpr double kLargest = 709.782712893384;
  static constexpr double kSmallest = -708.3964185322641;
  static constexpr double kScaleIsZero = -709.0;
  static constexpr double kTanhIsOne = 20.0;
  static constexpr double kOneIsLost = -36.0;
  static constexpr int kTerms = 11;
  static constexpr double kTanhIsNear = 0.55;
  static constexpr double kP[kTerms] = {
      -0.000020598556673275167, 0.000085107079273541127, -0.00023463104528300406,
      0.00058893480724470278,   -0.0014556615775702364,  0.0035921103470961766,
      -0.0088632343954180959,   0.021869488493563038,    -0.053968253967431739,
      0.13333333333332713,      -0.33333333333333333};
  static constexpr double kQ[kTerms] = {2.09147553258932022e-9,
                                        2.5105312729622101787e-8,
                                        2.7557273478718580474e-7,
                                        2.7557255170000887e-6,
                                        0.0000248015873256774619,
                                        0.00019841269875002278793,
                                        0.0013888888888883711,
                                        0.0083333333333260831,
                                        0.041666666666666669783,
                                        0.1666666666666667103,
                                        0.5};
};

// e^x = scale (1 + head + tail), where head = x - n (high part of ln 2) is exact.
template <class Vec>
struct ExpParts {
  Vec scale, head, tail;

  Vec value() const { return scale * (constant<Vec>(1.0) + (head + tail)); }
};

// q of the equations above.
template <class Vec>
RNNCORE_INLINE Vec exp_series(Vec r) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  Vec q = constant<Vec>(C::kQ[0]);
#pragma GCC unroll 16
  for (int i = 1; i < C::kTerms; ++i) q = fma(q, r, constant<Vec>(C::kQ[i]));
  return q;
}

// x = n ln 2 + r: n and the bits of 2^n, both of `shifted`, whose last bits hold n. |n| must stay
// below the exponent bias. Functions of their own: GCC wrote a struct of all three to the stack.
template <class Vec>
RNNCORE_INLINE Vec shifted_exponent(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  return fma(x, constant<Vec>(C::kLog2e), constant<Vec>(C::kRound));
}
template <class Vec>
RNNCORE_INLINE Vec whole_exponent(Vec shifted) {
  return shifted - constant<Vec>(ExpConstants<typename VecOf<Vec>::Element>::kRound);
}
template <class Vec>
RNNCORE_INLINE Vec power_of_two(Vec shifted) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  return from_bits<Vec>((bits(shifted) << C::kMantissaBits) + bits(constant<Vec>(1.0)));
}

template <class Vec>
RNNCORE_INLINE ExpParts<Vec> exp_core(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  const Vec shifted = shifted_exponent(x), n = whole_exponent(shifted);
  const Vec head = fma(n, constant<Vec>(-C::kLn2High), x);
  const Vec rest = n * constant<Vec>(-C::kLn2Low);
  const Vec r = head + rest;
  return {power_of_two(shifted), head, fma(r * r, exp_series(r), rest)};
}

template <class Vec>
RNNCORE_INLINE Vec absolute(Vec x) {
  return from_bits<Vec>(bits(x) & ~bits(constant<Vec>(-0.0)));
}

template <class Vec>
RNNCORE_INLINE Vec exp(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  using Int = typename VecOf<Vec>::Int;
  Vec clamped = select(x > constant<Vec>(C::kLargest), constant<Vec>(C::kLargest), x);
  clamped = select(clamped < constant<Vec>(C::kSmallest), constant<Vec>(C::kSmallest), clamped);
  ExpParts<Vec> parts = exp_core(clamped);
  // Above zero the scale is taken one octave lower, since 2^128 is not finite; the 2 is exact.
  const Int positive = x > Vec{};
  const Int octave = (positive & 0) + (typename VecOf<Vec>::Scalar{1} << C::kMantissaBits);
  parts.scale = from_bits<Vec>(bits(parts.scale) - (positive & octave));
  Vec result = parts.value() * select(positive, constant<Vec>(2.0), constant<Vec>(1.0));
  result = select(x > constant<Vec>(C::kLargest), constant<Vec>(__builtin_inf()), result);
  return select(x < constant<Vec>(C::kSmallest), Vec{}, result);
}

// 2^m, the numerator, comes to the 1 first, or to s where the 1 would lose it, so that little is
// rounded twice.
template <class Vec>
RNNCORE_INLINE Vec sigmoid(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  const Vec one = constant<Vec>(1.0), most = constant<Vec>(-C::kScaleIsZero);
  const Vec bounded = smaller(most, larger(constant<Vec>(C::kScaleIsZero), x));
  const Vec shifted = shifted_exponent(bounded), m = whole_exponent(shifted);
  const Vec r = fma(m, constant<Vec>(C::kLn2Low), fma(m, constant<Vec>(C::kLn2High), -bounded));
  const Vec s = fma(r * r, exp_series(r), r), scale = power_of_two(shifted);
  const auto is_small = x < constant<Vec>(C::kOneIsLost);
  return scale / ((scale + select(is_small, s, one)) + select(is_small, one, s));
}

template <class Vec>
RNNCORE_INLINE Vec tanh(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  const Vec one = constant<Vec>(1.0), size = absolute(x);
  const auto near = size < constant<Vec>(C::kTanhIsNear);
  const Vec bounded = smaller(constant<Vec>(C::kTanhIsOne), size);
  const Vec shifted = fma(bounded, constant<Vec>(-2 * C::kLog2e), constant<Vec>(C::kRound));
  const Vec r = fma(whole_exponent(shifted), constant<Vec>(C::kLn2), bounded + bounded);
  // Either series, term by term.
  const Vec base = select(near, size, r), at = select(near, size * size, r);
  Vec sum = select(near, constant<Vec>(C::kP[0]), constant<Vec>(C::kQ[0]));
#pragma GCC unroll 16
  for (int i = 1; i < C::kTerms; ++i) {
    sum = fma(sum, at, select(near, constant<Vec>(C::kP[i]), constant<Vec>(C::kQ[i])));
  }
  const Vec s = fma(base * at, sum, base), scale = power_of_two(shifted);
  const Vec far = one - (scale + scale) / ((scale + one) + s);
  return from_bits<Vec>(bits(select(near, s, far)) | (bits(x) & bits(constant<Vec>(-0.0))));
}

// e^x for x <= 0; zero where the result would be subnormal.
template <class Vec>
RNNCORE_INLINE Vec exp_negative(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  return exp_core(larger(constant<Vec>(C::kScaleIsZero), x)).value();
}

// e^x - 1 for x <= 0, to within rounding of the result however small it is.
template <class Vec>
RNNCORE_INLINE Vec exp_minus_one(Vec x) {
  using C = ExpConstants<typename VecOf<Vec>::Element>;
  const ExpParts<Vec> parts = exp_core(larger(constant<Vec>(C::kScaleIsZero), x));
  const Vec coarse = fma(parts.scale, parts.head, parts.scale - constant<Vec>(1.0));
  return fma(parts.scale, parts.tail, coarse);
}

// log(1 + x) = 2 artanh(x / (2 + x)) for x from 0 to 1, by its series: s <= 1/3.
template <class Vec>
RNNCORE_INLINE Vec log_one_plus(Vec x) {
  constexpr int kTerms = sizeof(typename VecOf<Vec>::Element) == sizeof(float) ? 8 : 17;
  const Vec s = x / (x + constant<Vec>(2.0));
  const Vec square = s * s;
  Vec sum = constant<Vec>(1.0 / (2 * kTerms - 1));
#pragma GCC unroll 16
  for (int k = kTerms - 2; k >= 0; --k) sum = fma(sum, square, constant<Vec>(1.0 / (2 * k + 1)));
  return (s + s) * sum;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
