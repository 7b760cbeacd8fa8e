// The pointwise kernels of a forward step whose products are made apart: one thread for a row and
// unit. A step of any cell is, phase by phase, a product and one of these.
//
// Memory: a thread reads its gates' W x from the slot rows and their U h from `product`, and writes
// y, the carried states and, for backward, the gates back to the slot rows.
#pragma once

#include "cuda/forward_step.cuh"

namespace rnncore {
namespace cuda {

// h[t-1] as the step meets it. The product was made before anyone asked whether a segment starts
// here, so a fresh row leaves it out.
template <class T, class Cell, class CellOptions, int kPhase>
RNNCORE_DEVICE void forward_gates(const ForwardStep& step) {
  using Value = Real<T>;
  const Steps& common = step.common;
  constexpr int kGates = Phases<Cell>::gates(kPhase);
  constexpr bool kFirstOfTwo = Phases<Cell>::kTwo && kPhase == 0;
  Index r, u;
  if (!thread_unit(step.count, common.units, r, u)) return;
  const Place place = place_of(common, step.s, r);
  if (!place.alive) return;
  CellOptions options;
  take_options(common.options, options);

  Value products[kGates];
#pragma unroll
  for (int g = 0; g < kGates; ++g) {
    const bool none = kPhase == 0 && place.fresh;
    products[g] =
        none ? Value(0) : read(at<Value>(step.product, (r * kGates + g) * common.units + u));
  }
  Value values[Cell::kSlots];
  Value* slots = row_at<Value>(step.slots, place.t, r);
  load_gates<Cell, kPhase>(step, slots, u, values);
  add_products<Cell, kPhase>(products, values);

  Carried<Value> carried = {};
  if (Cell::kReadsH) carried.h = carried_value<Value>(step.h, place, common.outputs, u);
  if (Cell::kCarriesC) carried.c = carried_value<Value>(step.c, place, common.units, u);
  const Value entering = kFirstOfTwo ? carried.h * entering_factor<T>(common, r, u) : Value(0);
  const Value made = forward_cell<Cell, kPhase>(step, options, place, u, entering, values, carried);
  store_gates<Cell, kPhase>(step, slots, u, values);
  if (Cell::kCarriesC) write(at<Value>(step.c, r * common.units + u), carried.c);
  if (kFirstOfTwo || step.projects) {
    store_hidden<T>(step, place, u, made);
  } else {
    store_h<T>(step, place, u, made);
  }
}

// The outputs of a projection, whose product is made.
template <class T>
RNNCORE_DEVICE void forward_output(const ForwardStep& step) {
  Index r, u;
  if (!thread_unit(step.count, step.common.outputs, r, u)) return;
  const Place place = place_of(step.common, step.s, r);
  if (!place.alive) return;
  store_h<T>(step, place, u, read(at<Real<T>>(step.product, r * step.common.outputs + u)));
}

}  // namespace cuda
}  // namespace rnncore
