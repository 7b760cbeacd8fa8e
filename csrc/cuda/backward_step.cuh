// One step backward for one row and unit, from the gradient of h to those of the gates' sums.
//
//   carry[t] = da[t+1] U, times what was dropped, plus what went past the product
//   dh[t]    = carry[t] + dy[t];   da[t] = the cell backwards; it overwrites the gates it was made
//   of
#pragma once

#include "cuda/options.cuh"

namespace rnncore {
namespace cuda {

// What a row and unit hands from step to step, backwards.
template <class Value>
struct Flow {
  Value product;  // gradients of the step after times U
  Value direct;   // what of dL/dh goes past that product
  Value dc;
};

// dL/dh[t] but for dy[t]: from the step after, or, where a row ends here, from the caller.
template <class T>
RNNCORE_DEVICE Real<T> carry_of(const BackwardStep& step, const Place& place, Index u,
                                const Flow<Real<T>>& flow) {
  const Steps& common = step.common;
  const Place next = place_of(common, place.s + 1, place.r);
  if (!next.alive) return read(at<Real<T>>(step.dh, place.r * common.outputs + u));
  if (next.fresh) return Real<T>(0);
  return flow.product * entering_factor<T>(common, place.r, u) + flow.direct;
}

template <class T>
RNNCORE_DEVICE Real<T> dy_of(const BackwardStep& step, const Place& place, Index u) {
  if (!step.dy.data) return Real<T>(0);
  if (step.dy_is_real) return read(row_at<Real<T>>(step.dy, place.t, place.r) + u);
  return load(row_at<T>(step.dy, place.t, place.r) + u);
}

// dL/dh[t] in full, less the part that zoneout sends to h[t-1], which goes past the product.
template <class T>
RNNCORE_DEVICE Real<T> take_dh(const BackwardStep& step, const Place& place, Index u,
                               Flow<Real<T>>& flow) {
  const Real<T> d = carry_of<T>(step, place, u, flow) + dy_of<T>(step, place, u);
  const auto parts = parted(step.common.zoneout_h, place, u, d);
  flow.direct = parts.old;
  return parts.made;
}

// dL/dc[t] as the step made c, and what of it goes past the step.
template <class Value>
RNNCORE_DEVICE Parted<Value> take_dc(const BackwardStep& step, const Place& place, Index u,
                                     const Flow<Value>& flow) {
  if (place_of(step.common, place.s + 1, place.r).fresh) return {Value(0), Value(0)};
  return parted(step.common.zoneout_c, place, u, flow.dc);
}

// Flow as it waits in memory between kernels; behind W_hr, where P differs from H, dc alone does.
template <class T, bool kCarriesC>
RNNCORE_DEVICE Flow<Real<T>> load_flow(const BackwardStep& step, Index r, Index u) {
  using Value = Real<T>;
  Flow<Value> flow = {};
  if (kCarriesC) flow.dc = read(at<Value>(step.dc, r * step.common.units + u));
  if (step.projects) return flow;
  flow.product = read(at<Value>(step.carry, r * step.common.outputs + u));
  flow.direct = read(at<Value>(step.direct, r * step.common.outputs + u));
  return flow;
}

template <class T, bool kCarriesC>
RNNCORE_DEVICE void store_flow(const BackwardStep& step, Index r, Index u,
                               const Flow<Real<T>>& flow) {
  using Value = Real<T>;
  if (kCarriesC) write(at<Value>(step.dc, r * step.common.units + u), flow.dc);
  if (!step.projects) write(at<Value>(step.direct, r * step.common.outputs + u), flow.direct);
}

template <class Value>
RNNCORE_DEVICE Value c_before(const BackwardStep& step, const Place& place, Index u) {
  if (place.fresh) return Value(0);
  if (place.s == 0) return read(at<Value>(step.c_initial, place.r * step.common.units + u));
  return read(row_at<Value>(step.c_kept, time_before(step.common, place), place.r) + u);
}

template <class T>
RNNCORE_DEVICE Real<T> h_before(const BackwardStep& step, const Place& place, Index u) {
  if (place.fresh) return Real<T>(0);
  if (place.s == 0) return read(at<Real<T>>(step.h_initial, place.r * step.common.outputs + u));
  return load(row_at<T>(step.y, time_before(step.common, place), place.r) + u);
}

// The states around the step; c is the one that it made, before any mixing.
template <class T, class Cell, bool kFirstOfTwo, class CellOptions>
RNNCORE_DEVICE StepState<Real<T>> states_around(const BackwardStep& step,
                                                const CellOptions& options, const Place& place,
                                                Index u, const Real<T>* values) {
  using Value = Real<T>;
  StepState<Value> around = {};
  if constexpr (Cell::kCarriesC) {
    around.c_before = c_before<Value>(step, place, u);
    around.c = read(row_at<Value>(step.c_kept, place.t, place.r) + u);
    if constexpr (!CellOptions::kPlain) {
      if (acts(step.common.zoneout_c)) around.c = Cell::new_c(options, values, around.c_before);
    }
  }
  if constexpr (Cell::kReadsH) around.h_before = h_before<T>(step, place, u);
  if constexpr (kFirstOfTwo) {
    around.h_entering = around.h_before * entering_factor<T>(step.common, place.r, u);
  }
  return around;
}

template <class Cell, class Value>
RNNCORE_DEVICE void add_peephole_gradients(const BackwardStep& step, const Place& place, Index u,
                                           const Value* values, const StepState<Value>& around) {
  Value* row = at<Value>(step.unit_gradients, place.r * step.unit_stride + step.peephole_at + u);
  const Index units = step.common.units;
  Value sums[3] = {read(row), read(row + units), read(row + 2 * units)};
  Cell::add_peephole_gradients(values, around, sums);
  for (int p = 0; p < 3; ++p) write(row + p * units, sums[p]);
}

// The cell backwards, once dc is complete where there is one; values become gradients, in the slot
// rows too. past_c is what of dc goes past the step.
template <class T, class Cell, int kPhase, class CellOptions>
RNNCORE_DEVICE void backward_cell(const BackwardStep& step, const CellOptions& options,
                                  const Place& place, Index u, Real<T>* values,
                                  const StepState<Real<T>>& around, StepGradient<Real<T>>& gradient,
                                  Real<T> past_c, Flow<Real<T>>& flow) {
  using Value = Real<T>;
  constexpr bool kFirstOfTwo = Phases<Cell>::kTwo && kPhase == 0;
  const Steps& common = step.common;
  Cell::template backward<kPhase>(options, unit_weights<Value>(common, u), values, around,
                                  gradient);
  Value* slots = row_at<Value>(step.slots, place.t, place.r);
#pragma unroll
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (kFirstOfTwo && !Phases<Cell>::has(0, slot)) continue;
    write(slots + slot * common.units + u, values[slot]);
    if (!step.gradients_kept.data) continue;
    T* kept = row_at<T>(step.gradients_kept, place.t, place.r);
    store(kept + slot * common.units + u, values[slot]);
  }
  if constexpr (Cell::kCarriesC) {
    flow.dc = gradient.dc + past_c;
    if (options.peephole) add_peephole_gradients<Cell>(step, place, u, values, around);
  }
  if constexpr (kFirstOfTwo) {
    flow.direct += gradient.entering * entering_factor<T>(common, place.r, u);
  } else if constexpr (Cell::kReadsH) {
    flow.direct += gradient.direct;
  }
}

// The same from the gradient d of h, or of hidden in the first of two phases.
template <class T, class Cell, int kPhase, class CellOptions>
RNNCORE_DEVICE void backward_unit(const BackwardStep& step, const CellOptions& options,
                                  const Place& place, Index u, Real<T> d, Real<T>* values,
                                  const StepState<Real<T>>& around, Flow<Real<T>>& flow) {
  using Value = Real<T>;
  StepGradient<Value> gradient = {};
  (Phases<Cell>::kTwo && kPhase == 0 ? gradient.dhidden : gradient.dh) = d;
  Value past_c = Value(0);
  if constexpr (Cell::kCarriesC) {
    const auto dc = take_dc(step, place, u, flow);
    past_c = dc.old;
    gradient.dc = Cell::output_backward(options, values, around.c, d, dc.made);
  }
  backward_cell<T, Cell, kPhase>(step, options, place, u, values, around, gradient, past_c, flow);
}

// A row that ended before the step, of those that might have been alive: its slots count in sums
// over all rows.
template <class T>
RNNCORE_DEVICE void clear_slots(const BackwardStep& step, Index r, Index s, Index u, int slots) {
  const Index units = step.common.units;
  for (int slot = 0; slot < slots; ++slot) {
    write(row_at<Real<T>>(step.slots, s, r) + slot * units + u, Real<T>(0));
    if (!step.gradients_kept.data) continue;
    store(row_at<T>(step.gradients_kept, s, r) + slot * units + u, Real<T>(0));
  }
}

}  // namespace cuda
}  // namespace rnncore
