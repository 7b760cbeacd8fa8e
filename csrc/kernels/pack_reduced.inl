// Weights into panels of reduced weights: rows are converted run by run, then turned as words.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int64_t kRunWords = 128;

// The nearest bfloat16, ties to even; NaN stays NaN.
inline uint16_t to_bfloat16(float x) {
  uint32_t i;
  memcpy(&i, &x, sizeof i);
  const uint32_t rounded = (i + 0x7fffu + (i >> 16 & 1u)) >> 16;
  const bool nan = (i & 0x7fffffffu) > 0x7f800000u;
  return static_cast<uint16_t>(nan ? i >> 16 | 0x40u : rounded);
}

// Converts one row of a gate, a run after another, into words.
template <class Format>
struct RowWriter;

template <>
struct RowWriter<Bfloat16Weights> {
  void begin(const float*, int64_t, bool) {}
  void write(const float* w, int64_t count, char* words) {
    for (int64_t k = 0; k < count; ++k) {
      const uint16_t value = to_bfloat16(w[k]);
      memcpy(words + 2 * k, &value, sizeof value);
    }
    if (count % 2) memset(words + 2 * count, 0, 2);
  }
};

template <>
struct RowWriter<Int8Weights> {
  Scaling scaling = {};
  int32_t sum = 0;

  void begin(const float* w, int64_t length, bool finite) {
    float largest = 0;
    for (int64_t k = 0; k < length; ++k) {
      const float size = w[k] < 0 ? -w[k] : w[k];
      largest = size > largest ? size : largest;
    }
    scaling = scaling_of(largest, finite ? 0.0f : __builtin_nanf(""));
  }
  void write(const float* w, int64_t count, char* words) {
    for (int64_t k = 0; k < (count + 3) / 4 * 4; ++k) {
      int32_t q = 0;
      if (k < count && scaling.inverse > 0) {
        const float moved = w[k] * scaling.inverse + kToWhole;
        memcpy(&q, &moved, sizeof q);
        q -= kToWholeBits;
      }
      words[k / 4 * 4 + kByteOrder[k % 4]] = static_cast<char>(q);
      sum += q;
    }
  }
};

// Whether no value of a row is NaN or infinite.
inline bool is_finite(const float* w, int64_t length) {
  VecFloat flaws = {};
  for (int64_t k = 0; k < length; k += kLanes<float>) {
    flaws = fma(load_upto(w + k, existing<float>(length - k)), VecFloat{}, flaws);
  }
  return !has_nan(flaws);
}

// One gate of a block: `panel` is where the gate's lanes of the first line are.
template <class Format>
inline bool pack_reduced_gate(const float* w, ptrdiff_t w_stride, int units, int64_t length,
                              char* panel, int gates) {
  constexpr int kLane = kLanes<float>;
  constexpr int64_t kRun = kRunWords * Format::kPack;
  const ptrdiff_t line = static_cast<ptrdiff_t>(gates) * kLane;
  RowWriter<Format> rows[kLane] = {};
  bool finite = true;
  for (int lane = 0; lane < units; ++lane) {
    const bool row_finite = is_finite(w + lane * w_stride, length);
    rows[lane].begin(w + lane * w_stride, length, row_finite);
    finite &= row_finite;
  }
  alignas(kVectorBytes) float words[kLane][kRunWords];
  float* to = reinterpret_cast<float*>(panel) + Format::kHeader * line;
  for (int64_t run = 0; run < length; run += kRun) {
    const int64_t count = length - run < kRun ? length - run : kRun;
    const int64_t filled = (count + Format::kPack - 1) / Format::kPack;
    for (int lane = 0; lane < units; ++lane) {
      rows[lane].write(w + lane * w_stride + run, count, reinterpret_cast<char*>(words[lane]));
    }
    for (int64_t k = 0; k < filled; k += kLane, to += kLane * line) {
      pack_square(words[0] + k, kRunWords, units, existing<float>(filled - k), to, line);
    }
  }
  if constexpr (Format::kScaled) {
    float scales[kLane];
    int32_t starts[kLane];
    for (int lane = 0; lane < kLane; ++lane) {
      scales[lane] = rows[lane].scaling.scale;
      starts[lane] = -kActivationZero * rows[lane].sum;
    }
    memcpy(panel, scales, sizeof scales);
    memcpy(panel + line * 4, starts, sizeof starts);
  }
  return finite;
}

template <class Format>
bool pack_reduced(const PackGates<float>& p) {
  bool finite = true;
  constexpr int kLane = kLanes<float>;
  const ptrdiff_t line_bytes = static_cast<ptrdiff_t>(p.gates) * kLane * 4;
  for (int64_t unit = p.group_begin * kGroup; unit < p.group_end * kGroup; unit += kLane) {
    char* panel =
        static_cast<char*>(p.panels) + unit / kLane * panel_lines<Format>(p.length) * line_bytes;
    for (int g = 0; g < p.gates; ++g) {
      const float* w = p.w + (p.source[g] * p.units + unit) * p.w_stride;
      finite &= pack_reduced_gate<Format>(w, p.w_stride, existing<float>(p.units - unit), p.length,
                                          panel + g * kLane * 4, p.gates);
    }
  }
  return finite;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
