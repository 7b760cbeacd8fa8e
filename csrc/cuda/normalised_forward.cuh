// A forward step with layer norm, its product made: a block for a row, since the product must be
// normalised before a gate exists, and c' before h. A thread has the units that are its number
// modulo the block, in every pass, so that passes meet at block_sum alone.
#pragma once

#include "cuda/forward_step.cuh"
#include "cuda/normalise.cuh"

namespace rnncore {
namespace cuda {

// A row's gates: biases and what was normalised.
template <class Cell, int kPhase, class Value>
RNNCORE_DEVICE void load_normalised(const ForwardStep& step, const Value* slots, const Value* input,
                                    const Value* product, const Moments<Value>& moment,
                                    Value* normed, Index u, Value* values) {
  const Steps& common = step.common;
  const Index units = common.units;
  constexpr int kGates = Phases<Cell>::gates(kPhase), kSlot = Phases<Cell>::slot(kPhase);
#pragma unroll
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (!Phases<Cell>::has(kPhase, slot)) {
      if (kPhase == 1) values[slot] = read(slots + slot * units + u);
      continue;
    }
    Value value = read(at<Value>(common.bias, slot * units + u));
    const int in = slot - Cell::kInputSlot, gate = slot - kSlot;
    if (in >= 0 && in < Cell::kInputGates) {
      value = fma(read(at<Value>(common.norm_input, in * units + u)), read(input + in * units + u),
                  value);
    }
    if (gate >= 0 && gate < kGates) {
      const Value one = (read(product + gate * units + u) - moment.mean) * moment.inverse;
      const Index place = (slot - Cell::kRecurrentSlot) * units + u;
      value = fma(read(at<Value>(common.norm_recurrent, place)), one, value);
      if (normed) write(normed + place, one);
    }
    values[slot] = value;
  }
}

// h of a row whose c' is complete, and waits in `made`; its output gate is in the slots.
template <class T, class Cell, class CellOptions>
RNNCORE_DEVICE void normalised_outputs(const ForwardStep& step, const CellOptions& options,
                                       const Place& place, const Real<T>* slots,
                                       const Real<T>* made) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const auto moment = moments<Value>(common.units, [&](Index u) { return read(made + u); });
  for (Index u = thread_index(); u < common.units; u += thread_count()) {
    const Value normed =
        fma((read(made + u) - moment.mean) * moment.inverse, read(at<Value>(common.norm_c, u)),
            read(at<Value>(common.norm_c_bias, u)));
    Value kept[Cell::kSlots];
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      kept[slot] = read(slots + slot * common.units + u);
    }
    const Value h = Cell::output(options, Cell::output_gate(options, kept), normed);
    if (step.projects) {
      store_hidden<T>(step, place, u, h);
    } else {
      store_h<T>(step, place, u, h);
    }
  }
}

template <class T, class Cell, class CellOptions, int kPhase>
RNNCORE_DEVICE void normalised_gates(const ForwardStep& step) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const Index units = common.units, r = block_x();
  constexpr int kGates = Phases<Cell>::gates(kPhase);
  constexpr bool kFirstOfTwo = Phases<Cell>::kTwo && kPhase == 0;
  const Place place = place_of(common, step.s, r);
  if (!place.alive) return;
  CellOptions options;
  take_options(common.options, options);

  Value* product = at<Value>(step.product, r * kGates * units);
  if (kPhase == 0 && place.fresh) {
    for (Index i = thread_index(); i < kGates * units; i += thread_count()) {
      write(product + i, Value(0));
    }
    block_barrier();
  }
  const auto moment = moments<Value>(kGates * units, [&](Index i) { return read(product + i); });
  if (thread_index() == 0 && step.keep) {
    write(row_at<Value>(step.inverse, place.t, r) + 1 + kPhase, moment.inverse);
  }
  Value* slots = row_at<Value>(step.slots, place.t, r);
  const Value* input = row_at<Value>(step.normalised_input, place.t, r);
  Value* normed = step.keep ? row_at<Value>(step.normalised_recurrent, place.t, r) : nullptr;
  for (Index u = thread_index(); u < units; u += thread_count()) {
    Value values[Cell::kSlots];
    load_normalised<Cell, kPhase>(step, slots, input, product, moment, normed, u, values);
    StepState<Value> state = {};
    if (Cell::kReadsH) state.h_before = carried_value<Value>(step.h, place, common.outputs, u);
    if (Cell::kCarriesC) state.c_before = carried_value<Value>(step.c, place, units, u);
    if (kFirstOfTwo) state.h_entering = state.h_before * entering_factor<T>(common, r, u);
    Cell::template forward<kPhase>(options, unit_weights<Value>(common, u), values, state);
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (Phases<Cell>::has(kPhase, slot)) write(slots + slot * units + u, values[slot]);
    }
    if constexpr (Cell::kCarriesC) {
      write(at<Value>(step.c, r * units + u), carry_c(step, place, u, state.c_before, state.c));
      write(product + u, state.c);
    } else if constexpr (kFirstOfTwo) {
      store_hidden<T>(step, place, u, state.hidden);
    } else {
      store_h<T>(step, place, u, state.h);
    }
  }
  if constexpr (Cell::kCarriesC) normalised_outputs<T, Cell>(step, options, place, slots, product);
}

}  // namespace cuda
}  // namespace rnncore
