// Weights into panels: [block of lanes][k][gate][lane], so that one pass over k feeds every gate of
// a block from consecutive memory. Lanes beyond the last unit are zero.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// One square of a gate: as many units as lanes by as many k, turned in registers.
template <class T>
inline void pack_square(const T* w, ptrdiff_t w_stride, int units, int count, T* to,
                        ptrdiff_t to_stride) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>;
  Vec rows[kLane];
  for (int lane = 0; lane < kLane; ++lane) {
    rows[lane] = lane < units ? load_upto(w + lane * w_stride, count) : Vec{};
  }
  transpose<T>(rows);
  for (int k = 0; k < count; ++k) store(to + k * to_stride, rows[k]);
}

template <class T>
void pack_gates(const PackGates<T>& p) {
  constexpr int kLane = kLanes<T>;
  const ptrdiff_t k_stride = static_cast<ptrdiff_t>(p.gates) * kLane;
  for (int64_t unit = p.group_begin * kGroup; unit < p.group_end * kGroup; unit += kLane) {
    T* panel = p.panels + unit * p.length * p.gates;
    const int units = existing<T>(p.units - unit);
    for (int64_t k = 0; k < p.length; k += kLane) {
      const int count = existing<T>(p.length - k);
      for (int g = 0; g < p.gates; ++g) {
        const T* w = p.w + (p.source[g] * p.units + unit) * p.w_stride + k;
        pack_square(w, p.w_stride, units, count, panel + k * k_stride + g * kLane, k_stride);
      }
    }
  }
}

template <class T>
void pack_columns(const PackColumns<T>& p) {
  constexpr int kLane = kLanes<T>;
  const int64_t length = p.packed_units * p.gates;
  for (int64_t column = p.group_begin * kGroup; column < p.group_end * kGroup; column += kLane) {
    const int exist = existing<T>(p.columns - column);
    T* to = p.panels + column * length;
    for (int64_t first = 0; first < p.packed_units; first += kGroup) {
      const int64_t last = p.packed_units - first < kGroup ? p.packed_units : first + kGroup;
      for (int g = 0; g < p.gates; ++g) {
        for (int64_t unit = first; unit < last; ++unit, to += kLane) {
          const bool real = unit < p.units && exist > 0;
          const T* from = p.w + (p.source[g] * p.units + unit) * p.w_stride + column;
          store(to, real ? load_upto(from, exist) : typename VecOf<T>::Vec{});
        }
      }
    }
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
