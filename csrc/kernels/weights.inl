// How panels hold weights: as they are, or reduced for inference.
//
//   full      a value of T a word
//   bfloat16  two neighbouring k a word, the even one below; arithmetic is float32's: results are
//             those of a float32 layer whose weights were rounded
//   int8      four neighbouring k a word. A row of weights (one gate of one unit) is
//             w = scale * q, q in [-127, 127], scale = max |w| / 127; a row of x or h likewise,
//             when the step needs it. Sums of q's products are whole numbers, exact on every
//             instruction set (below 2^31 for any length that core admits), and are scaled once.
//
// A block's panel is [line][gate][lane] of words: for int8 a line of scales and one of what sums
// start from, then as many lines as the values of k fill.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Real: of sums and results. Row: of the values that a panel is multiplied by. kPack: values of k
// in a word; kParts: how many of these are separate steps of the product.
template <class T>
struct FullWeights {
  using Real = T;
  using Row = T;
  using Word = T;
  using Sum = typename VecOf<T>::Vec;
  using Value = Sum;
  using Weights = Sum;
  static constexpr int kPack = 1, kParts = 1, kHeader = 0;
  static constexpr bool kScaled = false;

  template <int kPart>
  static Weights weights(const Word* p) {
    return load(p);
  }
  static Value value(const Row* p) { return broadcast(*p); }
  static Sum multiply_add(Value value, Weights weights, Sum sum) {
    return fma(value, weights, sum);
  }
};

struct Bfloat16Weights : FullWeights<float> {
  using Word = int32_t;
  static constexpr int kPack = 2, kParts = 2;

  template <int kPart>
  static Weights weights(const Word* p) {
    const IntFloat both = load_words(p);
    return from_bits<VecFloat>(kPart ? upper_halves(both) : both << 16);
  }
};

struct Int8Weights {
  using Real = float;
  using Row = Activation;
  using Word = int32_t;
  using Sum = IntFloat;
  using Value = ActivationVec;
  using Weights = ByteVec;
  static constexpr int kPack = 4, kParts = 1, kHeader = 2;
  static constexpr bool kScaled = true;

  template <int kPart>
  static Weights weights(const Word* p) {
    return split_bytes(load_words(p));
  }
  static Value value(const Row* p) { return broadcast_activations(p); }
  static Sum multiply_add(Value value, Weights weights, Sum sum) {
    return add_dot(sum, value, weights);
  }

  static VecFloat scales(const Word* header) { return from_bits<VecFloat>(load_words(header)); }
  static IntFloat start(const Word* header, int line) { return load_words(header + line); }
  static VecFloat scale_of(const Row* row) {
    float scale;
    memcpy(&scale, reinterpret_cast<const char*>(row) - kRecordHead, sizeof scale);
    return broadcast(scale);
  }
};

// Lines of a block's panel.
template <class Format>
constexpr int64_t panel_lines(int64_t length) {
  return Format::kHeader + (length + Format::kPack - 1) / Format::kPack;
}

// The product by the blocks of units from `unit` on, but for its rows.
template <class Format>
inline Product<Format> panels_of(const void* panels, int gates, int64_t length, int64_t unit) {
  constexpr int kLane = kLanes<typename Format::Real>;
  constexpr bool kWhole = Format::kPack == Format::kParts;
  Product<Format> product;
  product.k_stride = kWhole ? 1 : Format::kPack;
  product.segment_length = kWhole ? length : (length + Format::kPack - 1) / Format::kPack;
  product.block_stride = panel_lines<Format>(length) * gates * kLane;
  product.panel =
      static_cast<const typename Format::Word*>(panels) + unit / kLane * product.block_stride;
  return product;
}

constexpr int64_t record_bytes(int64_t length) {
  return rnncore::record_bytes(length, static_cast<int>(sizeof(Activation)));
}
inline const Activation* row_of_record(const char* record) {
  return reinterpret_cast<const Activation*>(record + kRecordHead);
}

constexpr float kToWhole = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
constexpr int32_t kToWholeBits = 0x4b400000;
constexpr float kCountsAsZero = 1e-30f;  // its inverse would overflow

// How a row becomes whole numbers, by its largest |value| and the sum of its values times zero. A
// row that holds NaN or infinity has NaN for its scale: so have all gates that it reaches.
struct Scaling {
  float scale, inverse;
};
inline Scaling scaling_of(float largest, float bad) {
  const bool finite = bad == 0, some = finite && largest > kCountsAsZero;
  return {!finite ? bad : some ? largest / 127.0f : 0.0f, some ? 127.0f / largest : 0.0f};
}

inline void quantize_row(const float* x, int64_t count, char* record) {
  constexpr int kLane = kLanes<float>;
  constexpr int32_t kSign = 0x7fffffff;
  VecFloat most = {}, poison = {};
  for (int64_t i = 0; i < count; i += kLane) {
    const VecFloat v = load_upto(x + i, existing<float>(count - i));
    const VecFloat size = from_bits<VecFloat>(bits(v) & kSign);
    most = size > most ? size : most;
    poison = poison + v * 0.0f;
  }
  float largest = 0, bad = 0;
  for (int lane = 0; lane < kLane; ++lane) {
    largest = most[lane] > largest ? most[lane] : largest;
    bad += poison[lane];
  }
  const Scaling scaling = scaling_of(largest, bad);
  memcpy(record, &scaling.scale, sizeof scaling.scale);
  Activation* to = reinterpret_cast<Activation*>(record + kRecordHead);
  const VecFloat inverse = broadcast(scaling.inverse);
  const VecFloat to_whole = broadcast(kToWhole);
  for (int64_t i = 0; i < count; i += kLane) {
    const VecFloat v = load_upto(x + i, existing<float>(count - i));
    IntFloat q = bits(v * inverse + to_whole) - kToWholeBits;
    if (bad != 0) q = IntFloat{};
    store_activations(to + i, q);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
