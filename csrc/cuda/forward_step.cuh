// One step forward for one row and unit, from products to gates to states.
//
//   gates = bias + W x + U h;   h', c' = cell(gates, h, c);   y[t] = h', mixed with h by zoneout
//
// W x of all times waits in the slot rows, U h is a product made just before (recurrence.cuh) or
// sums in registers (persistent_forward.cuh): both regimes end here.
#pragma once

#include "cuda/options.cuh"

namespace rnncore {
namespace cuda {

// What a row and unit carries from step to step.
template <class Value>
struct Carried {
  Value h, c;
};

// What the gates of a phase start from: biases and W x. Slots of the other phase are where that one
// left them.
template <class Cell, int kPhase, class Value>
RNNCORE_DEVICE void load_gates(const ForwardStep& step, const Value* slots, Index u,
                               Value* values) {
  const Index units = step.common.units;
#pragma unroll
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (!Phases<Cell>::has(kPhase, slot)) {
      if (kPhase == 1) values[slot] = read(slots + slot * units + u);
      continue;
    }
    Value value = read(at<Value>(step.common.bias, slot * units + u));
    const int input = slot - Cell::kInputSlot;
    if (input >= 0 && input < Cell::kInputGates) value += read(slots + slot * units + u);
    values[slot] = value;
  }
}

// Their inputs in full, with the phase's gates of U h.
template <class Cell, int kPhase, class Value>
RNNCORE_DEVICE void add_products(const Value* products, Value* values) {
#pragma unroll
  for (int g = 0; g < Phases<Cell>::gates(kPhase); ++g) {
    values[Phases<Cell>::slot(kPhase) + g] += products[g];
  }
}

// Keeps what backward needs of the gates; a second phase needs those of the first in any case.
template <class Cell, int kPhase, class Value>
RNNCORE_DEVICE void store_gates(const ForwardStep& step, Value* slots, Index u,
                                const Value* values) {
  if (!step.keep && !(Phases<Cell>::kTwo && kPhase == 0)) return;
#pragma unroll
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (Phases<Cell>::has(kPhase, slot)) write(slots + slot * step.common.units + u, values[slot]);
  }
}

// c' becomes the c that is carried.
template <class Value>
RNNCORE_DEVICE Value carry_c(const ForwardStep& step, const Place& place, Index u, Value old,
                             Value made) {
  const Value c = mixed(step.common.zoneout_c, place, u, old, made);
  if (step.c_kept.data) write(row_at<Value>(step.c_kept, place.t, place.r) + u, c);
  return c;
}

// h' becomes y and the h that is carried.
template <class T>
RNNCORE_DEVICE Real<T> carry_h(const ForwardStep& step, const Place& place, Index u, Real<T> old,
                               Real<T> made) {
  const Real<T> h = mixed(step.common.zoneout_h, place, u, old, made);
  store(row_at<T>(step.y, place.t, place.r) + u, h);
  return h;
}

// The cell from its gates' inputs: returns h', or what the step's second product multiplies.
template <class Cell, int kPhase, class CellOptions, class Value>
RNNCORE_DEVICE Value forward_cell(const ForwardStep& step, const CellOptions& options,
                                  const Place& place, Index u, Value entering, Value* values,
                                  Carried<Value>& carried) {
  StepState<Value> state = {};
  state.h_before = carried.h;
  state.c_before = carried.c;
  state.h_entering = entering;
  const UnitWeights<Value> own = unit_weights<Value>(step.common, u);
  Cell::template forward<kPhase>(options, own, values, state);
  if constexpr (Cell::kCarriesC) {
    carried.c = carry_c(step, place, u, carried.c, state.c);
    return Cell::output(options, state.output_gate, state.c);
  } else if constexpr (Phases<Cell>::kTwo && kPhase == 0) {
    return state.hidden;
  } else {
    return state.h;
  }
}

template <class Value>
RNNCORE_DEVICE Value carried_value(const void* values, const Place& place, Index width, Index u) {
  return place.fresh ? Value(0) : read(at<Value>(values, place.r * width + u));
}

template <class T>
RNNCORE_DEVICE void store_hidden(const ForwardStep& step, const Place& place, Index u,
                                 Real<T> value) {
  const Index units = step.common.units;
  store(at<T>(step.hidden, place.r * units + u), value);
  if (step.hidden_kept.data) store(row_at<T>(step.hidden_kept, place.t, place.r) + u, value);
}

// y, the carried h, and h as it enters the next step's product.
template <class T>
RNNCORE_DEVICE void store_h(const ForwardStep& step, const Place& place, Index u, Real<T> made) {
  const Index outputs = step.common.outputs, index = place.r * outputs + u;
  const Real<T> old = carried_value<Real<T>>(step.h, place, outputs, u);
  const Real<T> h = carry_h<T>(step, place, u, old, made);
  write(at<Real<T>>(step.h, index), h);
  store(at<T>(step.entering, index), h * entering_factor<T>(step.common, place.r, u));
}

}  // namespace cuda
}  // namespace rnncore
