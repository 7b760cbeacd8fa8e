// Layer norm backwards: the cell on whole rows, then from the gradients of gates to those of the
// products, which take the places of the normalised values. See normalise.inl.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// From dL/dh to dL/dc' through output tanh and norm(c): the result is in scratch 0, c' in
// scratch 2.
template <class Cell, class Options, class T>
inline void normalised_outputs_backward(const Options& options, const BackwardLoop<T>& loop,
                                        const BackwardStep<T>& step, int64_t row, T* slots) {
  using Vec = typename VecOf<T>::Vec;
  const int64_t wide = padded(loop.units);
  T *normed = loop.row_scratch, *d_normed = normed + wide, *c = normed + 2 * wide;
  const T *gain = loop.options->norm_c, *bias = loop.options->norm_c_bias;
  const auto kept = [&](int64_t unit, Vec* values) {
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      values[slot] = load(slots + slot_at<T>(unit, Cell::kSlots, slot));
    }
  };
  for (int64_t unit = 0; unit < wide; unit += kLanes<T>) {
    const CellPlace place = {row, unit, existing<T>(loop.units - unit)};
    Vec values[Cell::kSlots];
    kept(unit, values);
    StepState<Vec> around = {};
    load_states<Cell, false>(options, loop, step, place, values, around);
    store(c + unit, around.c);
    store(normed + unit, around.c);
  }
  const NormRow<T> whole = {normed, 1, 0, 1, loop.units};
  const T inverse = normalise(whole);
  T* sums = loop.unit_gradients + row * loop.unit_stride;
  for (int64_t unit = 0; unit < wide; unit += kLanes<T>) {
    const int exist = existing<T>(loop.units - unit);
    Vec values[Cell::kSlots];
    kept(unit, values);
    const Vec v = load(normed + unit);
    const Vec dh = load(loop.row_gradients + row * loop.state_stride + unit);
    const Vec out = fma(v, load(gain + unit), load(bias + unit));
    const Vec d = keep_first<T>(Cell::output_backward(options, values, out, dh, Vec{}), exist);
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      store(slots + slot_at<T>(unit, Cell::kSlots, slot), keep_first<T>(values[slot], exist));
    }
    store(d_normed + unit, d);
    add_unit_gradient(sums + loop.unit_places.norm_c + unit, keep_first<T>(d * v, exist));
    add_unit_gradient(sums + loop.unit_places.norm_c_bias + unit, d);
  }
  normalise_backward(whole, inverse,
                     [&](int64_t unit, int) { return load(d_normed + unit) * load(gain + unit); });
}

// The gradient of a product from those of the gates, which slots hold from `first_slot` on.
template <class Cell, class T>
inline void product_backward(const NormRow<T>& row, T inverse, const T* slots, int first_slot,
                             const T* gains, T* sums) {
  const auto d = [&](int64_t unit, int g) {
    return load(slots + slot_at<T>(unit, Cell::kSlots, first_slot + g));
  };
  const auto place = [&](int64_t unit, int g) {
    return slot_at<T>(unit, row.slots, row.first + g);
  };
  for (int64_t unit = 0; unit < row.units; unit += kLanes<T>) {
    for (int g = 0; g < row.gates; ++g) {
      add_unit_gradient(sums + place(unit, g), d(unit, g) * load(row.at(unit, g)));
    }
  }
  normalise_backward(
      row, inverse, [&](int64_t unit, int g) { return d(unit, g) * load(gains + place(unit, g)); });
}

template <class Cell, int kPhase, class Options, class T>
inline void normalised_cell_backward(const Options& options, const BackwardLoop<T>& loop,
                                     const BackwardStep<T>& step, int64_t row) {
  using Vec = typename VecOf<T>::Vec;
  constexpr bool kFirstOfTwo = kTwoPhases<Cell> && kPhase == 0;
  const int64_t wide = padded(loop.units);
  T* slots = step.slots + row * loop.slots_stride;
  if constexpr (Cell::kCarriesC) normalised_outputs_backward<Cell>(options, loop, step, row, slots);
  for (int64_t unit = 0; unit < wide; unit += kLanes<T>) {
    const CellPlace place = {row, unit, existing<T>(loop.units - unit)};
    Vec values[Cell::kSlots];
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      values[slot] = load(slots + slot_at<T>(unit, Cell::kSlots, slot));
    }
    StepState<Vec> around = {};
    StepGradient<Vec> gradient = {};
    Vec past_c = {};
    const Vec d = load(loop.row_gradients + row * loop.state_stride + unit);
    (kFirstOfTwo ? gradient.dhidden : gradient.dh) = d;
    if constexpr (Cell::kCarriesC) {
      around.c_before = c_before(step, place);
      around.c = load(loop.row_scratch + 2 * wide + unit);
      const auto dc = take_dc<true>(loop, step, place);
      past_c = dc.old;
      gradient.dc = dc.made + load(loop.row_scratch + unit);
    } else {
      load_states<Cell, kFirstOfTwo>(options, loop, step, place, values, around);
    }
    backward_equations<Cell, kPhase>(options, loop, step, place, values, around, gradient, past_c);
  }
  const T* inverse = step.normalised.inverse + row * kInverses;
  T* recurrent = step.normalised.recurrent + row * loop.normalised.recurrent_stride;
  T* sums = loop.unit_gradients + row * loop.unit_stride;
  product_backward<Cell>(recurrent_row<Cell, kPhase>(recurrent, loop.units), inverse[1 + kPhase],
                         slots, kPhaseSlot<Cell, kPhase>, loop.options->norm_recurrent,
                         sums + loop.unit_places.norm_recurrent);
  if (kPhase == 1) return;
  T* input = step.normalised.input + row * loop.normalised.input_stride;
  product_backward<Cell>(input_row<Cell>(input, loop.units), inverse[0], slots, Cell::kInputSlot,
                         loop.options->norm_input, sums + loop.unit_places.norm_input);
}

// The cell backwards on this member's part of the first `count` rows that it shares.
template <class Cell, int kPhase, class Options, class T>
inline void normalised_cells_backward(const Options& options, const BackwardLoop<T>& loop,
                                      const BackwardStep<T>& step, int64_t count) {
  const Share& share = loop.share;
  for (int64_t i = share.member; i < count; i += share.members) {
    const int64_t row = share.row_begin + i * share.row_stride;
    normalised_cell_backward<Cell, kPhase>(options, loop, step, row);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
