// Where a step of the backward loop reads and writes, and the cell's equations on one vector.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Gradients of a product's sums, by batch row: some gates of rows with that many slots.
template <class T>
struct GradientRows {
  const T* rows;
  ptrdiff_t stride;
  int slots, first;
};

template <class T>
struct BackwardStep {
  int64_t s;
  T* slots;
  const T *c, *c_before;
  ptrdiff_t c_before_stride;
  T* doutput;
  const unsigned char *fresh, *fresh_next;  // of steps s and s + 1
  int64_t alive_next;
  NormalisedRows<T> normalised;
};

template <class T>
inline BackwardStep<T> backward_step(const BackwardLoop<T>& loop, int64_t s) {
  const int64_t* offsets = loop.share.offsets;
  const ptrdiff_t wide = padded(loop.units);
  BackwardStep<T> step = {};
  step.s = s;
  const bool last = s + 1 == loop.steps;
  step.alive_next = last ? 0 : offsets[s + 2] - offsets[s + 1];
  const unsigned char* fresh = loop.options ? loop.options->fresh : nullptr;
  if (fresh && !last) step.fresh_next = fresh + offsets[s + 1];
  if (s < loop.share.step_begin) return step;
  const int64_t row = offsets[s] - loop.first_row;
  step.slots = loop.slots + row * loop.slots_stride;
  if (fresh) step.fresh = fresh + offsets[s];
  if (loop.c_kept) {
    step.c = loop.c_kept + offsets[s] * wide;
    step.c_before = s ? loop.c_kept + offsets[s - 1] * wide : loop.c_initial;
    step.c_before_stride = s ? wide : loop.state_stride;
  }
  if (loop.doutput) step.doutput = loop.doutput + row * padded(loop.outputs);
  step.normalised = loop.normalised.from(row);
  return step;
}

// Where the gradients of a phase's product at step s are.
template <class Cell, int kPhase, class T>
inline GradientRows<T> gradient_rows(const BackwardLoop<T>& loop, int64_t s) {
  const int64_t row = loop.share.offsets[s] - loop.first_row;
  constexpr int kFirst = kPhase ? Cell::kFirstGates : 0;
  if (loop.normalised.input) {
    return {loop.normalised.recurrent + row * loop.normalised.recurrent_stride,
            loop.normalised.recurrent_stride, Cell::kRecurrentGates, kFirst};
  }
  return {loop.slots + row * loop.slots_stride, loop.slots_stride, Cell::kSlots,
          Cell::kRecurrentSlot + kFirst};
}

template <class T>
inline bool is_fresh(const BackwardStep<T>& step, int64_t row) {
  return step.fresh && step.fresh[row];
}
// Whether nothing flows from step s + 1 to the row.
template <class T>
inline bool starts_next(const BackwardStep<T>& step, int64_t row) {
  return step.fresh_next && row < step.alive_next && step.fresh_next[row];
}

// dL/dh = carry + dy for one vector of outputs.
template <class T>
inline typename VecOf<T>::Vec add_dy(const BackwardLoop<T>& loop, int64_t s, int64_t row,
                                     int64_t unit, typename VecOf<T>::Vec carry) {
  if (!loop.dy.first) return carry;
  const int exist = existing<T>(loop.outputs - unit);
  return carry + load_upto(loop.dy.at(s, row) + unit, exist);
}

template <class T>
inline typename VecOf<T>::Vec h_before(const BackwardLoop<T>& loop, const BackwardStep<T>& step,
                                       const CellPlace& place) {
  if (is_fresh(step, place.row)) return typename VecOf<T>::Vec{};
  if (step.s) return load_upto(loop.y.at(step.s - 1, place.row) + place.unit, place.exist);
  return load(loop.h_initial + place.row * loop.state_stride + place.unit);
}

template <class T>
inline typename VecOf<T>::Vec c_before(const BackwardStep<T>& step, const CellPlace& place) {
  if (is_fresh(step, place.row)) return typename VecOf<T>::Vec{};
  return load(step.c_before + place.row * step.c_before_stride + place.unit);
}

// The states around one vector of units; c is the one that the step made, before any mixing.
template <class Cell, bool kFirstOfTwo, class Options, class T, class Vec>
inline void load_states(const Options& options, const BackwardLoop<T>& loop,
                        const BackwardStep<T>& step, const CellPlace& place, const Vec* kept,
                        StepState<Vec>& around) {
  if constexpr (Cell::kCarriesC) {
    around.c_before = c_before(step, place);
    around.c = load(step.c + place.row * padded(loop.units) + place.unit);
    if constexpr (!Options::kPlain) {
      if (loop.options->zoneout_c.acts()) around.c = Cell::new_c(options, kept, around.c_before);
    }
  }
  if constexpr (Cell::kReadsH) around.h_before = h_before(loop, step, place);
  if constexpr (kFirstOfTwo) {
    around.h_entering = around.h_before;
    const T* const* mask = loop.options->entering_mask;
    if (mask) {
      around.h_entering = around.h_before * load_upto(mask[place.row] + place.unit, place.exist);
    }
  }
}

// dL/dc as the step made c, and what of it goes past the step where zoneout keeps the old one.
template <bool kOptions, class T>
inline Parted<typename VecOf<T>::Vec> take_dc(const BackwardLoop<T>& loop,
                                              const BackwardStep<T>& step, const CellPlace& place) {
  using Vec = typename VecOf<T>::Vec;
  if (starts_next(step, place.row)) return {Vec{}, Vec{}};
  const Vec dc = load(loop.dc + place.row * loop.state_stride + place.unit);
  if constexpr (!kOptions) return {dc, Vec{}};
  return part(loop.options->zoneout_c, step.s, place, dc);
}

// Adds a step's part to the row's sums of a vector's gradient.
template <class T, class Vec>
inline void add_unit_gradient(T* sums, Vec part) {
  store(sums, load(sums) + part);
}

template <class Cell, class T, class Vec>
inline void add_peephole_gradients(const BackwardLoop<T>& loop, const UnitGradients& at,
                                   const CellPlace& place, const Vec* values,
                                   const StepState<Vec>& around) {
  T* row = loop.unit_gradients + place.row * loop.unit_stride + at.peephole + place.unit;
  const int64_t wide = padded(loop.units);
  Vec sums[3] = {load(row), load(row + wide), load(row + 2 * wide)};
  Cell::add_peephole_gradients(values, around, sums);
  for (int p = 0; p < 3; ++p) store(row + p * wide, keep_first<T>(sums[p], place.exist));
}

// The cell backwards on one row and vector of units, once dc is complete where there is one.
template <class Cell, int kPhase, class Options, class T, class Vec>
inline void backward_equations(const Options& options, const BackwardLoop<T>& loop,
                               const BackwardStep<T>& step, const CellPlace& place, Vec* values,
                               const StepState<Vec>& around, StepGradient<Vec>& gradient,
                               Vec past_c) {
  constexpr bool kOptions = !Options::kPlain, kFirstOfTwo = kTwoPhases<Cell> && kPhase == 0;
  const ptrdiff_t state = place.row * loop.state_stride + place.unit;
  UnitWeights<Vec> own = {};
  if constexpr (kOptions) load_unit_weights(*loop.options, loop.units, place.unit, own);
  Cell::template backward<kPhase>(options, own, values, around, gradient);
  T* slots = step.slots + place.row * loop.slots_stride + slot_at<T>(place.unit, Cell::kSlots, 0);
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    // Others may be reading those of the second phase, for the product that led here.
    if (kFirstOfTwo && !in_phase<Cell, 0>(slot)) continue;
    if (place.exist < kLanes<T>) values[slot] = keep_first<T>(values[slot], place.exist);
    store(slots + slot * kGroup, values[slot]);
  }
  if constexpr (Cell::kCarriesC) {
    store(loop.dc + state, kOptions ? gradient.dc + past_c : gradient.dc);
    if constexpr (kOptions) {
      if (options.peephole) {
        add_peephole_gradients<Cell>(loop, loop.unit_places, place, values, around);
      }
    }
  }
  if constexpr (kFirstOfTwo) {
    Vec entering = gradient.entering;
    const T* const* mask = loop.options->entering_mask;
    if (mask) entering = entering * load_upto(mask[place.row] + place.unit, place.exist);
    store(loop.direct + state, load(loop.direct + state) + entering);
  } else if constexpr (Cell::kReadsH) {
    const Vec before = kOptions ? load(loop.direct + state) : Vec{};
    store(loop.direct + state, kOptions ? before + gradient.direct : gradient.direct);
  }
}

// The same from the gradient of h, or of hidden in the first of two phases.
template <class Cell, int kPhase, class Options, class T, class Vec>
inline void backward_cell(const Options& options, const BackwardLoop<T>& loop,
                          const BackwardStep<T>& step, const CellPlace& place, Vec d) {
  constexpr bool kFirstOfTwo = kTwoPhases<Cell> && kPhase == 0;
  const T* slots =
      step.slots + place.row * loop.slots_stride + slot_at<T>(place.unit, Cell::kSlots, 0);
  Vec values[Cell::kSlots];
  for (int slot = 0; slot < Cell::kSlots; ++slot) values[slot] = load(slots + slot * kGroup);
  StepState<Vec> around = {};
  load_states<Cell, kFirstOfTwo>(options, loop, step, place, values, around);
  StepGradient<Vec> gradient = {};
  (kFirstOfTwo ? gradient.dhidden : gradient.dh) = d;
  Vec past_c = {};
  if constexpr (Cell::kCarriesC) {
    const auto dc = take_dc<!Options::kPlain>(loop, step, place);
    past_c = dc.old;
    gradient.dc = Cell::output_backward(options, values, around.c, d, dc.made);
  }
  backward_equations<Cell, kPhase>(options, loop, step, place, values, around, gradient, past_c);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
