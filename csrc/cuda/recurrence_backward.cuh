// The pointwise kernels of a backward step whose products are made apart: one thread for a row and
// unit. They mirror recurrence_forward.cuh: what ran last there runs first here.
//
// Memory: a thread reads the gates from the slot rows, where their gradients take their places, and
// the gradient of h from `carry` (or `product`, behind a second product); `gradients` receives what
// the next product multiplies, side by side for all rows of the step.
#pragma once

#include "cuda/backward_step.cuh"

namespace rnncore {
namespace cuda {

// dL/dy in full, before W_hr.
template <class T>
RNNCORE_DEVICE void backward_output(const BackwardStep& step) {
  Index r, u;
  if (!thread_unit(step.count, step.common.outputs, r, u)) return;
  const Place place = place_of(step.common, step.s, r);
  T* row = at<T>(step.doutput, r * step.common.outputs);
  if (!place.alive) {
    store(row + u, Real<T>(0));
    store(row_at<T>(step.doutput_kept, step.s, r) + u, Real<T>(0));
    return;
  }
  Flow<Real<T>> flow = {};
  const Index index = r * step.common.outputs + u;
  flow.product = read(at<Real<T>>(step.carry, index));
  flow.direct = read(at<Real<T>>(step.direct, index));
  const Real<T> d = take_dh<T>(step, place, u, flow);
  write(at<Real<T>>(step.direct, index), flow.direct);
  store(row + u, d);
  store(row_at<T>(step.doutput_kept, place.t, r) + u, d);
}

template <class T, class Cell, class CellOptions, int kPhase>
RNNCORE_DEVICE void backward_gates(const BackwardStep& step) {
  using Value = Real<T>;
  const Steps& common = step.common;
  constexpr bool kFirstOfTwo = Phases<Cell>::kTwo && kPhase == 0;
  constexpr int kGates = Phases<Cell>::gates(kPhase);
  Index r, u;
  if (!thread_unit(step.count, common.units, r, u)) return;
  const Place place = place_of(common, step.s, r);
  T* gradients = at<T>(step.gradients, r * kGates * common.units);
  if (!place.alive) {
    clear_slots<T>(step, r, step.s, u, Cell::kSlots);
    for (int g = 0; g < kGates; ++g) store(gradients + g * common.units + u, Value(0));
    return;
  }
  CellOptions options;
  take_options(common.options, options);

  Value values[Cell::kSlots];
  const Value* slots = row_at<Value>(step.slots, place.t, r);
#pragma unroll
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    values[slot] = read(slots + slot * common.units + u);
  }
  const auto around = states_around<T, Cell, kFirstOfTwo>(step, options, place, u, values);
  auto flow = load_flow<T, Cell::kCarriesC>(step, r, u);
  const bool behind_product = kFirstOfTwo || step.projects;
  const Value d = behind_product ? read(at<Value>(step.product, r * common.units + u))
                                 : take_dh<T>(step, place, u, flow);
  backward_unit<T, Cell, kPhase>(step, options, place, u, d, values, around, flow);
  store_flow<T, Cell::kCarriesC>(step, r, u, flow);
#pragma unroll
  for (int g = 0; g < kGates; ++g) {
    store(gradients + g * common.units + u, values[Phases<Cell>::slot(kPhase) + g]);
  }
}

// What flows out of the first step, as `dh` and `dc` of every row.
template <class T, bool kCarriesC>
RNNCORE_DEVICE void backward_start(const BackwardStep& step) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const Index width = common.outputs > common.units ? common.outputs : common.units;
  Index r, u;
  if (!thread_unit(step.count, width, r, u)) return;
  Place before = {};
  before.r = r;
  before.s = -1;
  if (u < common.outputs) {
    Flow<Value> flow = {};
    flow.product = read(at<Value>(step.carry, r * common.outputs + u));
    flow.direct = read(at<Value>(step.direct, r * common.outputs + u));
    write(at<Value>(step.dh, r * common.outputs + u), carry_of<T>(step, before, u, flow));
  }
  if (kCarriesC && u < common.units && place_of(common, 0, r).fresh) {
    write(at<Value>(step.dc, r * common.units + u), Value(0));
  }
}

}  // namespace cuda
}  // namespace rnncore
