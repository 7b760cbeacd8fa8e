// Weights into panels: [block of lanes][k][gate][lane], so that one pass over k feeds every gate of a
// block from consecutive memory. Lanes beyond the last unit are zero.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// A block's panel for k in [k_begin, k_end): row by row of w, so that reads are consecutive.
template <class T>
inline void pack_gates_strip(const PackGates<T>& p, int64_t unit, int64_t k_begin, int64_t k_end,
                             T* panel) {
  constexpr int kLane = kLanes<T>;
  const ptrdiff_t k_stride = static_cast<ptrdiff_t>(p.gates) * kLane;
  for (int g = 0; g < p.gates; ++g) {
    for (int lane = 0; lane < kLane; ++lane) {
      T* to = panel + g * kLane + lane;
      if (unit + lane >= p.units) {
        for (int64_t k = k_begin; k < k_end; ++k) to[k * k_stride] = T(0);
        continue;
      }
      const T* from = p.w + (p.source[g] * p.units + unit + lane) * p.w_stride;
      for (int64_t k = k_begin; k < k_end; ++k) to[k * k_stride] = from[k];
    }
  }
}

template <class T>
void pack_gates(const PackGates<T>& p) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kStrip = 32;  // k at a time: the strip of the panel stays in L1
  for (int64_t unit = p.group_begin * kGroup; unit < p.group_end * kGroup; unit += kLane) {
    T* panel = p.panels + unit * p.length * p.gates;
    for (int64_t k = 0; k < p.length; k += kStrip) {
      pack_gates_strip(p, unit, k, p.length - k < kStrip ? p.length : k + kStrip, panel);
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
