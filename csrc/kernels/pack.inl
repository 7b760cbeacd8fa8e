// Weights into panels: [block of lanes][k][gate][lane], so that one pass over k feeds every gate of
// a block from consecutive memory. Lanes beyond the last unit are zero.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// One square of a gate: as many units as lanes by as many k, turned in registers. Returns zeros,
// and NaN where a value is not finite.
template <class T>
inline typename VecOf<T>::Vec pack_square(const T* w, ptrdiff_t w_stride, int units, int count,
                                          T* to, ptrdiff_t to_stride) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>;
  Vec rows[kLane], flaws = {};
  for (int lane = 0; lane < kLane; ++lane) {
    rows[lane] = lane < units ? load_upto(w + lane * w_stride, count) : Vec{};
    flaws = fma(rows[lane], Vec{}, flaws);
  }
  transpose<T>(rows);
  for (int k = 0; k < count; ++k) store(to + k * to_stride, rows[k]);
  return flaws;
}

template <class Vec>
inline bool has_nan(Vec v) {
  typename VecOf<Vec>::Element values[kLanes<typename VecOf<Vec>::Element>];
  memcpy(values, &v, sizeof v);
  bool found = false;
  for (const auto value : values) found |= value != value;
  return found;
}

// Gate by gate over a run of k: few rows of w are read at a time, each along its own line.
template <class T>
bool pack_gates(const PackGates<T>& p) {
  constexpr int kLane = kLanes<T>;
  typename VecOf<T>::Vec flaws = {};
  constexpr int64_t kRun = 256, kAhead = 256 / static_cast<int64_t>(sizeof(T));
  const ptrdiff_t k_stride = static_cast<ptrdiff_t>(p.gates) * kLane;
  for (int64_t unit = p.group_begin * kGroup; unit < p.group_end * kGroup; unit += kLane) {
    T* panel = static_cast<T*>(p.panels) + unit * p.length * p.gates;
    const int units = existing<T>(p.units - unit);
    for (int64_t run = 0; run < p.length; run += kRun) {
      const int64_t end = p.length - run < kRun ? p.length : run + kRun;
      for (int g = 0; g < p.gates; ++g) {
        const T* w = p.w + (p.source[g] * p.units + unit) * p.w_stride;
        for (int64_t k = run; k < end; k += kLane) {
          for (int lane = 0; lane < units; ++lane) {
            __builtin_prefetch(w + lane * p.w_stride + k + kAhead);
          }
          flaws = flaws + pack_square(w + k, p.w_stride, units, existing<T>(p.length - k),
                                      panel + k * k_stride + g * kLane, k_stride);
        }
      }
    }
  }
  return !has_nan(flaws);
}

// One row of w from `column` on into neighbouring panels; zeros for a row that does not exist.
template <class T>
inline void pack_row(const T* row, int64_t column, int64_t column_end, int64_t columns, T* to,
                     int64_t panel_stride) {
  constexpr int kLane = kLanes<T>;
  for (int64_t j = column; j < column_end; j += kLane, to += panel_stride) {
    const int exist = row ? existing<T>(columns - j) : 0;
    store(to, exist ? load_upto(row + j, exist) : typename VecOf<T>::Vec{});
  }
}

// Some panels at a time, so that what is read of a row is more than one line.
template <class T>
void pack_columns(const PackColumns<T>& p) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kAtOnce = 8 * kGroup;
  const int64_t length = p.packed_units * p.gates, end = p.group_end * kGroup;
  for (int64_t column = p.group_begin * kGroup; column < end; column += kAtOnce) {
    const int64_t column_end = end - column < kAtOnce ? end : column + kAtOnce;
    T* to = p.panels + column * length;
    for (int64_t first = 0; first < p.packed_units; first += kGroup) {
      const int64_t last = p.packed_units - first < kGroup ? p.packed_units : first + kGroup;
      for (int g = 0; g < p.gates; ++g) {
        for (int64_t unit = first; unit < last; ++unit, to += kLane) {
          const int64_t row = p.source[g] * p.units + unit;
          pack_row(unit < p.units ? p.w + row * p.w_stride : nullptr, column, column_end, p.columns,
                   to, length * kLane);
        }
      }
    }
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
