// The time loop's mirror, backwards through time over the tape.
//
//   carry[t]  = sum over slots k of da[t+1, n, k] U[k]  (+ what goes past the product)
//   dh[t]     = carry[t] + dy[t]            (W_hr: dy in full, then dh = that times W_hr)
//   da[t]     = the cell's equations backwards; it overwrites the gates in their slot rows
//
// A tile is a few batch rows by blocks of units, as in the forward loop; the panels hold U by
// columns, in the order in which the slot rows hold da, so that a row of da is read straight from
// the tape. What flows out of the first step is the carry alone: a caller who hands it to the chunk
// before gets the bits of one undivided call. dW, db and dx are products over all steps, later.
//
// A cell of two phases goes back through its second one, then multiplies what that makes by its own
// part of U, then through its first. With layer norm cells run on whole rows:
// normalise_backward.inl.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Gradients of some gates times U by columns, from +0, into a tile.
template <int kGates, class T>
inline void multiply_gradients(const TilePlace& place, const GradientRows<T>& from, const T* panels,
                               int64_t units, T* tile) {
  constexpr int kLane = kLanes<T>;
  const bool all = kGates == from.slots;
  const int64_t groups = padded(units) / kGroup;
  Product<FullWeights<T>> product;
  product.segments = all ? 1 : groups;
  product.segment_length = (all ? groups : 1) * kGates * kGroup;
  product.segment_stride = from.slots * kGroup;
  product.block_stride = groups * kGates * kGroup * kLane;
  product.panel = panels + place.unit / kLane * product.block_stride;
  const T* rows[kMaxRows];
  for (int m = 0; m < place.rows; ++m) {
    rows[m] = from.rows + place.row(m) * from.stride + from.first * kGroup;
  }
  product.rows = rows;
  choose_tile<FullWeights<T>, 1>(place.rows, place.blocks)(&product, 1,
                                                           from_zero(tile, place.blocks));
}

// carry for the rows and blocks of outputs of a tile. Rows that end at step s start from what the
// caller gave, or the steps after these left, which `dh` still holds.
template <class T, class Cell, bool kOptions>
inline void carry_tile(const BackwardLoop<T>& loop, const BackwardStep<T>& step,
                       const TilePlace& place, bool ending, T* tile) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>;
  const int count = place.rows * place.blocks;
  if (ending) {
    for (int v = 0; v < count; ++v) {
      const T* dh = loop.dh + place.row(v / place.blocks) * loop.state_stride;
      store(tile + v * kLane, load(dh + place.unit + v % place.blocks * kLane));
    }
    return;
  }
  multiply_gradients<Cell::kFirstGates>(place, gradient_rows<Cell, 0>(loop, step.s + 1),
                                        loop.panels, loop.units, tile);
  if (!kOptions && !Cell::kReadsH) return;
  for (int v = 0; v < count; ++v) {
    const int64_t row = place.row(v / place.blocks), unit = place.unit + v % place.blocks * kLane;
    Vec carry = load(tile + v * kLane);
    if constexpr (kOptions) {
      const T* const* mask = loop.options->entering_mask;
      const int exist = existing<T>(loop.outputs - unit);
      if (mask) carry = carry * load_upto(mask[row] + unit, exist);
    }
    if (loop.direct) carry = carry + load(loop.direct + row * loop.state_stride + unit);
    store(tile + v * kLane, starts_next(step, row) ? Vec{} : carry);
  }
}

// What is done with a tile of carries.
enum class Carry { kCell, kRow, kOutput, kState };
template <Carry kWhere>
struct CarryTo {
  static constexpr Carry kTo = kWhere;
};

template <class T, class Cell, Carry kTo, class Options>
inline void use_carry(const Options& options, const BackwardLoop<T>& loop,
                      const BackwardStep<T>& step, int64_t row, int64_t unit, const T* tile) {
  using Vec = typename VecOf<T>::Vec;
  Vec d = load(tile);
  const ptrdiff_t state = row * loop.state_stride + unit;
  if constexpr (kTo == Carry::kState) {
    store(loop.dh + state, d);
    return;
  }
  d = add_dy(loop, step.s, row, unit, d);
  const int exist = existing<T>(loop.outputs - unit);
  if constexpr (!Options::kPlain) {
    const auto parted = part(loop.options->zoneout_h, step.s, {row, unit, exist}, d);
    d = parted.made;
    if (loop.direct) store(loop.direct + state, keep_first<T>(parted.old, exist));
  }
  if constexpr (kTo == Carry::kOutput) {
    store(step.doutput + row * padded(loop.outputs) + unit, keep_first<T>(d, exist));
  } else if constexpr (kTo == Carry::kRow) {
    store(loop.row_gradients + state, keep_first<T>(d, exist));
  } else {
    const CellPlace place = {row, unit, existing<T>(loop.units - unit)};
    backward_cell<Cell, kTwoPhases<Cell> ? 1 : 0>(options, loop, step, place, d);
  }
}

// This member's outputs, for its rows counted begin to end.
template <class T, class Cell, Carry kTo, class Options>
inline void carry_units(const Options& options, const BackwardLoop<T>& loop,
                        const BackwardStep<T>& step, int64_t begin, int64_t end, bool ending) {
  constexpr int kLane = kLanes<T>;
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  const auto work = [&](const TilePlace& place) {
    carry_tile<T, Cell, !Options::kPlain>(loop, step, place, ending, tile);
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      use_carry<T, Cell, kTo>(options, loop, step, place.row(v / place.blocks),
                              place.unit + v % place.blocks * kLane, tile + v * kLane);
    }
  };
  for_each_tile<T, 1>(share, share.output_group_begin, share.output_group_end, begin, end, work);
}

// A tile of gradients by units: to the cell, or to rows that wait for layer norm.
template <class Cell, int kPhase, class Options, class T>
inline void use_units(const Options& options, const BackwardLoop<T>& loop,
                      const BackwardStep<T>& step, const TilePlace& place, const T* tile) {
  constexpr int kLane = kLanes<T>;
  for (int v = 0; v < place.rows * place.blocks; ++v) {
    const int64_t unit = place.unit + v % place.blocks * kLane;
    const CellPlace at = {place.row(v / place.blocks), unit, existing<T>(loop.units - unit)};
    const auto d = load(tile + v * kLane);
    if (loop.normalised.input) {
      store(loop.row_gradients + at.row * loop.state_stride + unit, d);
    } else {
      backward_cell<Cell, kPhase>(options, loop, step, at, d);
    }
  }
}

// dh = doutput W_hr, for this member's units.
template <class T, class Cell, class Options>
inline void projected_units(const Options& options, const BackwardLoop<T>& loop,
                            const BackwardStep<T>& step, int64_t count) {
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLanes<T>];
  const int64_t wide = padded(loop.outputs);
  const auto doutput_row = [&](int64_t row) { return step.doutput + row * wide; };
  const auto work = [&](const TilePlace& place) {
    multiply_plain<FullWeights<T>>(place, loop.projection_panels, wide, doutput_row, tile);
    use_units<Cell, 0>(options, loop, step, place, tile);
  };
  for_each_tile<T, 1>(share, share.group_begin, share.group_end, 0, count, work);
}

// dhidden, from the gradients of the gates that were made of it.
template <class T, class Cell, class Options>
inline void hidden_units(const Options& options, const BackwardLoop<T>& loop,
                         const BackwardStep<T>& step, int64_t count) {
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLanes<T>];
  const auto gradients = gradient_rows<Cell, 1>(loop, step.s);
  const auto work = [&](const TilePlace& place) {
    multiply_gradients<kPhaseGates<Cell, 1>>(place, gradients, loop.second_panels, loop.units,
                                             tile);
    use_units<Cell, 0>(options, loop, step, place, tile);
  };
  for_each_tile<T, 1>(share, share.group_begin, share.group_end, 0, count, work);
}

// Whole rows, where layer norm waits for them; false: cancelled.
template <class Cell, int kPhase, class Options, class T>
inline bool backward_rows(const Options& options, const BackwardLoop<T>& loop,
                          const BackwardStep<T>& step, int64_t count) {
  if constexpr (!Options::kPlain) {
    if (!loop.normalised.input) return true;
    if (!loop.share.proceed(loop.share.context)) return false;
    normalised_cells_backward<Cell, kPhase>(options, loop, step, count);
  }
  return true;
}

// One step; false: cancelled. Of the rows, those counted from `continuing` on end here.
template <class T, class Cell, class Options>
inline bool backward_one(const Options& options, const BackwardLoop<T>& loop,
                         const BackwardStep<T>& step, int64_t continuing, int64_t count) {
  const Share& share = loop.share;
  const auto carry = [&](auto to) {
    for (int ending = 0; ending < 2; ++ending) {
      carry_units<T, Cell, decltype(to)::kTo>(options, loop, step, ending ? continuing : 0,
                                              ending ? count : continuing, ending);
    }
  };
  if (loop.projection_panels) {
    carry(CarryTo<Carry::kOutput>());
    if (!share.proceed(share.context)) return false;
    projected_units<T, Cell>(options, loop, step, count);
  } else if (!Options::kPlain && loop.normalised.input) {
    carry(CarryTo<Carry::kRow>());
  } else {
    carry(CarryTo<Carry::kCell>());
  }
  if (!backward_rows<Cell, kTwoPhases<Cell> ? 1 : 0>(options, loop, step, count)) return false;
  if constexpr (kTwoPhases<Cell>) {
    if (!share.proceed(share.context)) return false;
    hidden_units<T, Cell>(options, loop, step, count);
    if (!backward_rows<Cell, 0>(options, loop, step, count)) return false;
  }
  return share.proceed(share.context);
}

template <class T, class Cell, class Options>
void recurrence_backward(const BackwardLoop<T>& loop) {
  const Share& share = loop.share;
  const auto options = options_of<T, Options>(loop.options);
  int64_t continuing = 0;  // rows of this member alive at s + 1, in these steps
  for (int64_t s = share.step_end - 1; s >= share.step_begin; --s) {
    const int64_t count = rows_of(share, s);
    const BackwardStep<T> step = backward_step(loop, s);
    if (!backward_one<T, Cell>(options, loop, step, continuing, count)) return;
    continuing = count;
  }
  const BackwardStep<T> before = backward_step(loop, share.step_begin - 1);
  carry_units<T, Cell, Carry::kState>(options, loop, before, 0, continuing, false);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
