// The time loop's mirror, backwards through time over the tape.
//
//   carry[t]  = sum over slots k of da[t+1, n, k] U[k]  (+ the cell's direct term)
//   dh[t]     = carry[t] + dy[t]            (W_hr: dy in full, then dh = that times W_hr)
//   da[t]     = the cell's equations backwards; it overwrites the gates in their slot rows
//
// A tile is a few batch rows by blocks of units, as in the forward loop; the panels hold U by
// columns, in the order in which the slot rows hold da, so that a row of da is read straight from
// the tape. What flows out of the first step is the carry alone: a caller who hands it to the chunk
// before gets the bits of one undivided call. dW, db and dx are products over all steps, later.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class T>
struct BackwardStep {
  int64_t s;
  T* slots;             // of step s
  const T* slots_next;  // of step s + 1
  const T *c, *c_before;
  ptrdiff_t c_before_stride;
  T* doutput;
};

template <class T>
inline BackwardStep<T> backward_step(const BackwardLoop<T>& loop, int64_t s) {
  const int64_t* offsets = loop.share.offsets;
  const ptrdiff_t wide = padded(loop.units);
  BackwardStep<T> step = {};
  step.s = s;
  step.slots_next = loop.slots + offsets[s + 1] * loop.slots_stride;
  if (s < 0) return step;
  step.slots = loop.slots + offsets[s] * loop.slots_stride;
  if (loop.c_kept) {
    step.c = loop.c_kept + offsets[s] * wide;
    step.c_before = s ? loop.c_kept + offsets[s - 1] * wide : loop.c_initial;
    step.c_before_stride = s ? wide : loop.state_stride;
  }
  if (loop.doutput) step.doutput = loop.doutput + offsets[s] * padded(loop.outputs);
  return step;
}

// carry for `rows` rows and `blocks` blocks of outputs into the tile. Rows that end at step s start
// from what the caller gave, which `dh` still holds.
template <class T, class Cell>
inline void carry_tile(const BackwardLoop<T>& loop, const BackwardStep<T>& step,
                       const TilePlace& place, bool ending, T* tile) {
  constexpr int kLane = kLanes<T>;
  const int64_t* row = place.row;
  const int64_t unit = place.unit;
  const int rows = place.rows, blocks = place.blocks;
  if (ending) {
    for (int v = 0; v < rows * blocks; ++v) {
      const T* dh = loop.dh + row[v / blocks] * loop.state_stride;
      store(tile + v * kLane, load(dh + unit + v % blocks * kLane));
    }
    return;
  }
  constexpr bool kAllSlots = Cell::kGates == Cell::kSlots;
  const int64_t groups = padded(loop.units) / kGroup;
  Product<FullWeights<T>> product;
  product.segments = kAllSlots ? 1 : groups;
  product.segment_length = (kAllSlots ? groups : 1) * Cell::kGates * kGroup;
  product.segment_stride = Cell::kSlots * kGroup;
  product.block_stride = groups * Cell::kGates * kGroup * kLane;
  product.panel = loop.panels + unit / kLane * product.block_stride;
  for (int m = 0; m < rows; ++m) {
    product.rows[m] = step.slots_next + row[m] * loop.slots_stride + Cell::kRecurrentSlot * kGroup;
  }
  for (int v = 0; v < rows * blocks; ++v) store(tile + v * kLane, typename VecOf<T>::Vec{});
  choose_tile<FullWeights<T>, 1>(rows, blocks)(&product, 1, tile);
  if (!Cell::kReadsH) return;
  for (int v = 0; v < rows * blocks; ++v) {
    const T* direct = loop.direct + row[v / blocks] * loop.state_stride;
    store(tile + v * kLane, load(tile + v * kLane) + load(direct + unit + v % blocks * kLane));
  }
}

// dL/dh = carry + dy for one vector of outputs.
template <class T>
inline typename VecOf<T>::Vec add_dy(const BackwardLoop<T>& loop, int64_t s, int64_t row,
                                     int64_t unit, typename VecOf<T>::Vec carry) {
  if (!loop.dy.first) return carry;
  const int exist = existing<T>(loop.outputs - unit);
  return carry + load_upto(loop.dy.at(s, row) + unit, exist);
}

template <class T, class Cell>
inline void backward_cell(const BackwardLoop<T>& loop, const BackwardStep<T>& step, int64_t row,
                          int64_t unit, typename VecOf<T>::Vec dh) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>;
  const int exist = existing<T>(loop.units - unit);
  const ptrdiff_t state = row * loop.state_stride + unit;
  T* slots = step.slots + row * loop.slots_stride + slot_at<T>(unit, Cell::kSlots, 0);
  Vec values[Cell::kSlots];
  for (int slot = 0; slot < Cell::kSlots; ++slot) values[slot] = load(slots + slot * kGroup);
  StepState<Vec> around = {};
  if (Cell::kCarriesC) {
    around.c = load(step.c + row * padded(loop.units) + unit);
    around.c_before = load(step.c_before + row * step.c_before_stride + unit);
  }
  if (Cell::kReadsH) {
    around.h_before =
        step.s ? load_upto(loop.y.at(step.s - 1, row) + unit, exist) : load(loop.h_initial + state);
  }
  StepGradient<Vec> gradient = {};
  gradient.dh = dh;
  if (Cell::kCarriesC) gradient.dc = load(loop.dc + state);
  Cell::backward(values, around, gradient);
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (exist < kLane) values[slot] = keep_first<T>(values[slot], exist);
    store(slots + slot * kGroup, values[slot]);
  }
  if (Cell::kCarriesC) store(loop.dc + state, gradient.dc);
  if (Cell::kReadsH) store(loop.direct + state, gradient.direct);
}

// What is done with a tile of carries.
enum class Carry { kCell, kOutput, kState };

template <class T, class Cell, Carry kTo>
inline void use_carry(const BackwardLoop<T>& loop, const BackwardStep<T>& step, int64_t row,
                      int64_t unit, const T* tile) {
  const auto carry = load(tile);
  if (kTo == Carry::kState) {
    store(loop.dh + row * loop.state_stride + unit, carry);
  } else if (kTo == Carry::kOutput) {
    T* to = step.doutput + row * padded(loop.outputs) + unit;
    const int exist = existing<T>(loop.outputs - unit);
    store(to, keep_first<T>(add_dy(loop, step.s, row, unit, carry), exist));
  } else {
    backward_cell<T, Cell>(loop, step, row, unit, add_dy(loop, step.s, row, unit, carry));
  }
}

// This member's outputs, for its rows counted begin to end.
template <class T, class Cell, Carry kTo>
inline void carry_units(const BackwardLoop<T>& loop, const BackwardStep<T>& step, int64_t begin,
                        int64_t end, bool ending) {
  constexpr int kLane = kLanes<T>;
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  const auto work = [&](const TilePlace& place) {
    carry_tile<T, Cell>(loop, step, place, ending, tile);
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      use_carry<T, Cell, kTo>(loop, step, place.row[v / place.blocks],
                              place.unit + v % place.blocks * kLane, tile + v * kLane);
    }
  };
  for_each_tile<T, 1>(share, share.output_group_begin, share.output_group_end, begin, end, work);
}

// dh = doutput W_hr, then the cell, for this member's units.
template <class T, class Cell>
inline void projected_cells(const BackwardLoop<T>& loop, const BackwardStep<T>& step,
                            int64_t count) {
  constexpr int kLane = kLanes<T>;
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  const int64_t wide = padded(loop.outputs);
  const auto doutput_row = [&](int64_t row) { return step.doutput + row * wide; };
  const auto work = [&](const TilePlace& place) {
    multiply_plain<FullWeights<T>>(place, loop.projection_panels, wide, doutput_row, tile);
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      backward_cell<T, Cell>(loop, step, place.row[v / place.blocks],
                             place.unit + v % place.blocks * kLane, load(tile + v * kLane));
    }
  };
  for_each_tile<T, 1>(share, share.group_begin, share.group_end, 0, count, work);
}

template <class T, class Cell>
void recurrence_backward(const BackwardLoop<T>& loop) {
  const Share& share = loop.share;
  int64_t continuing = 0;  // rows of this member alive at s + 1
  for (int64_t s = share.step_end - 1; s >= 0; --s) {
    const BackwardStep<T> step = backward_step(loop, s);
    const int64_t count = rows_of(share, s);
    if (loop.projection_panels) {
      carry_units<T, Cell, Carry::kOutput>(loop, step, 0, continuing, false);
      carry_units<T, Cell, Carry::kOutput>(loop, step, continuing, count, true);
      if (!share.proceed(share.context)) return;
      projected_cells<T, Cell>(loop, step, count);
    } else {
      carry_units<T, Cell, Carry::kCell>(loop, step, 0, continuing, false);
      carry_units<T, Cell, Carry::kCell>(loop, step, continuing, count, true);
    }
    if (!share.proceed(share.context)) return;
    continuing = count;
  }
  carry_units<T, Cell, Carry::kState>(loop, backward_step(loop, -1), 0, continuing, false);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
