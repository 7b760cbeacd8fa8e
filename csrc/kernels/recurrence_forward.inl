// THE time loop.
//
//   slots[t, n, g, u] = (W x + biases)[t, n, g, u] + sum over k of h[t-1, n, k] U[g, u, k]
//   h[t], c[t] = cell(slots[t], h[t-1], c[t-1]);   y[t] = h[t], or W_hr h[t] where there is one
//
// A tile is a few batch rows by one or more blocks of units with all their gates: it is filled from
// the slot rows that the input projection wrote, multiplied by the panels of U (read once a tile
// from the thread's own L2), and the cell's equations run on it while it is in L1. With `keep` the
// gates go back to the same slot rows, which are the tape. Where the layer has few inputs W x is
// made here, too, in the same tile: a round of the slot rows through memory would cost more.
//
// A cell of two phases does this twice a step: the second product is of what the first phase made.
// With layer norm a row's products must be complete before its cells run: normalise.inl.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// A tile of rows and blocks of units: sums, and then the cell's inputs.
template <class T, class Cell, int kPhase>
struct TileValues {
  static constexpr int kGates = kPhaseGates<Cell, kPhase>, kSlot = kPhaseSlot<Cell, kPhase>;
  static constexpr int kLane = kLanes<T>;
  // Where U's product reaches other slots than W's, those of W have a tile of their own.
  static constexpr bool kSameSlots = kTwoPhases<Cell> || Cell::kInputSlot == Cell::kRecurrentSlot;

  const ForwardLoop<T>& loop;
  const ForwardStep<T>& step;
  const int64_t* row;
  int rows;
  int64_t unit;
  int blocks;
  alignas(kVectorBytes) T sums[kMaxAccumulators * kLane];
  alignas(kVectorBytes) T inputs[kSameSlots ? kLane : kMaxAccumulators * kLane];

  TileValues(const ForwardLoop<T>& of_loop, const ForwardStep<T>& at_step, const TilePlace& at)
      : loop(of_loop),
        step(at_step),
        row(at.row),
        rows(at.rows),
        unit(at.unit),
        blocks(at.blocks) {}

  // From each row's slots, or from one slot row for all.
  void load_slots(int first_slot, const T* from_one, T* to) {
    // Copies: what is stored might be these, as far as the compiler knows.
    const int tall = rows, wide = blocks;
    const int64_t first_unit = unit;
    for (int m = 0; m < tall; ++m) {
      const T* from = from_one ? from_one : step.slots + row[m] * loop.slots_stride;
      for (int b = 0; b < wide; ++b) {
        const T* block = from + slot_at<T>(first_unit + b * kLane, Cell::kSlots, first_slot);
        for (int g = 0; g < kGates; ++g, to += kLane) store(to, load(block + g * kGroup));
      }
    }
  }

  // A slot of the row and block counted v once all products are in: those of the other phase are
  // where that one left them.
  const T* at(int v, int slot) const {
    const int g = slot - kSlot;
    if (g >= 0 && g < kGates) return sums + (v * kGates + g) * kLane;
    if (!kSameSlots) return inputs + (v * kGates + slot - Cell::kInputSlot) * kLane;
    return step.slots + row[v / blocks] * loop.slots_stride +
           slot_at<T>(unit + v % blocks * kLane, Cell::kSlots, slot);
  }
};

// What a tile starts from, the slot rows or the biases plus W x, and what is added to it.
template <class Format, class Cell, int kPhase>
struct ForwardTile : TileValues<typename Format::Real, Cell, kPhase> {
  using T = typename Format::Real;
  using Values = TileValues<T, Cell, kPhase>;
  using Values::blocks, Values::load_slots, Values::loop, Values::row, Values::rows, Values::step;
  using Values::inputs, Values::kGates, Values::kLane, Values::kSameSlots, Values::kSlot;
  using Values::sums, Values::unit, Values::Values;

  Product<Format> of_inputs(const TilePlace& place) const {
    auto product = panels_at<Format>(loop.input_panels, kGates, loop.inputs, place);
    for (int m = 0; m < rows; ++m) {
      const T* x = loop.x.at(step.s, row[m]);
      product.rows[m] = operand<Format>(x, loop.x_records, row[m], loop.inputs);
    }
    return product;
  }
  Product<Format> of_states(const TilePlace& place) const {
    const int64_t length = kPhase ? loop.units : loop.outputs;
    auto product =
        panels_at<Format>(kPhase ? loop.second_panels : loop.panels, kGates, length, place);
    for (int m = 0; m < rows; ++m) {
      const T* h = kPhase ? hidden_row(loop, step, row[m]) : entering_row(loop, step, row[m]);
      product.rows[m] = operand<Format>(h, loop.h_records, row[m], length);
    }
    return product;
  }

  // Both products. Slots that W reaches and U does not stay behind in `inputs`. A product is made
  // where it is read: a copy would read together what was written apart, and so wait for stores.
  void multiply(const TilePlace& place) {
    const MultiplyTile<Format> function = choose_tile<Format, kGates>(rows, blocks);
    const bool with_states = !loop.from_zeros || step.s > 0;
    if (kSameSlots) {
      const bool with_inputs = kPhase == 0 && loop.input_panels;
      load_slots(kSlot, with_inputs ? loop.bias : nullptr, sums);
      if (with_inputs) {
        const Product<Format> both[2] = {of_inputs(place), of_states(place)};
        function(both, 1 + with_states, sums);
      } else if (with_states) {
        const Product<Format> product = of_states(place);
        function(&product, 1, sums);
      }
      return;
    }
    load_slots(Cell::kInputSlot, loop.input_panels ? loop.bias : nullptr, inputs);
    if (loop.input_panels) {
      const Product<Format> product = of_inputs(place);
      function(&product, 1, inputs);
    }
    load_slots(kSlot, loop.bias, sums);
    constexpr int kFirst = kSlot - Cell::kInputSlot;
    for (int v = 0; v < rows * blocks; ++v) {
      for (int g = kFirst; g < kGates; ++g) {
        store(sums + (v * kGates + g - kFirst) * kLane, load(inputs + (v * kGates + g) * kLane));
      }
    }
    if (!with_states) return;
    const Product<Format> product = of_states(place);
    function(&product, 1, sums);
  }
};

// What the cell made of one row and vector of units goes to memory.
template <class T, class Cell, class Options, int kPhase, class Place, class Vec>
inline void store_cell(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& place,
                       Vec* values, const StepState<Vec>& state) {
  constexpr bool kOptions = !Options::kPlain, kFirstOfTwo = kTwoPhases<Cell> && kPhase == 0;
  const int64_t row = place.row, unit = place.unit;
  const bool partial = place.exist < kLanes<T>;
  if (loop.keep || kFirstOfTwo) {
    T* slots = step.slots + row * loop.slots_stride + slot_at<T>(unit, Cell::kSlots, 0);
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (!in_phase<Cell, kPhase>(slot)) continue;
      if (partial) values[slot] = keep_first<T>(values[slot], place.exist);
      store(slots + slot * kGroup, values[slot]);
    }
  }
  if constexpr (Cell::kCarriesC) {
    store_c<kOptions>(loop, step, place, state.c_before, state.c);
  }
  if constexpr (kFirstOfTwo) {
    store_hidden(loop, step, place, state.hidden);
  } else if (!kTwoPhases<Cell> && step.hidden) {
    store_hidden(loop, step, place, state.h);
  } else {
    store_h<kOptions>(loop, step, place, state.h);
  }
}

// The cell on kCount neighbours of a tile at once, from the one counted v on.
template <int kCount, class T, class Cell, class Options, int kPhase, class Place>
RNNCORE_INLINE void forward_cells(const Options& options, const TileValues<T, Cell, kPhase>& tile,
                                  const Place* place, int v) {
  constexpr bool kOptions = !Options::kPlain;
  using Vec = typename VecOf<T>::Vec;
  using Several = Group<Vec, kCount>;
  const ForwardLoop<T>& loop = tile.loop;
  const ForwardStep<T>& step = tile.step;
  Several values[Cell::kSlots];
  StepState<Several> state;
  UnitWeights<Several> own = {};
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    const int64_t row = place[i].row, unit = place[i].unit;
#pragma GCC unroll 4
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (kPhase == 0 && !in_phase<Cell, kPhase>(slot)) continue;
      values[slot].v[i] = load(tile.at(v + i, slot));
      if (place[i].exist < kLanes<T>) {
        values[slot].v[i] = keep_first<T>(values[slot].v[i], place[i].exist);
      }
    }
    if (kTwoPhases<Cell> && kPhase == 0) {
      state.h_entering.v[i] = load_upto(entering_row(loop, step, row) + unit, place[i].exist);
    } else if (Cell::kReadsH) {
      state.h_before.v[i] = h_before<kOptions, Vec>(loop, step, place[i]);
    }
    if (Cell::kCarriesC) {
      state.c_before.v[i] = c_before<kOptions, Vec>(loop, step, place[i]);
    }
    if constexpr (kOptions) {
      if (!options.peephole) continue;
      UnitWeights<Vec> one = {};
      load_unit_weights(*loop.options, loop.units, unit, one);
      for (int p = 0; p < 3; ++p) own.peephole[p].v[i] = one.peephole[p];
    }
  }
  Cell::template forward<kPhase>(options, own, values, state);
  if constexpr (Cell::kCarriesC) state.h = Cell::output(options, state.output_gate, state.c);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    Vec mine[Cell::kSlots];
    StepState<Vec> after;
#pragma GCC unroll 4
    for (int slot = 0; slot < Cell::kSlots; ++slot) mine[slot] = values[slot].v[i];
    if constexpr (Cell::kCarriesC) {
      after.c_before = state.c_before.v[i];
      after.c = state.c.v[i];
    }
    if constexpr (kTwoPhases<Cell> && kPhase == 0) {
      after.hidden = state.hidden.v[i];
    } else {
      after.h = state.h.v[i];
    }
    store_cell<T, Cell, Options, kPhase>(loop, step, place[i], mine, after);
  }
}

// The cell on all of a tile, whose places `place_at` tells by row and unit.
template <class T, class Cell, class Options, int kPhase, class PlaceAt>
RNNCORE_INLINE void forward_places(const Options& options, const TileValues<T, Cell, kPhase>& tile,
                                   const TilePlace& at, const PlaceAt& place_at) {
  decltype(place_at(0, 0)) place[kMaxAccumulators];
  int count = 0;
  for (int m = 0; m < at.rows; ++m) {
    for (int b = 0; b < at.blocks; ++b) {
      place[count++] = place_at(at.row[m], at.unit + b * kLanes<T>);
    }
  }
  // Gates that are kept live longer: fewer cells fit into registers then.
  const int most = tile.loop.keep ? 1 : kTogether;
  int together = 0;
  for (int v = 0; v < count; v += together) {
    together = next_together(count - v, most);
    if (together == 3) forward_cells<3>(options, tile, place + v, v);
    if (together == 2) forward_cells<2>(options, tile, place + v, v);
    if (together == 1) forward_cells<1>(options, tile, place + v, v);
  }
}

// One function for all formats of weights.
template <class T, class Cell, class Options, int kPhase>
__attribute__((noinline)) void forward_tile(const Options& options,
                                            const TileValues<T, Cell, kPhase>& tile,
                                            const TilePlace& at) {
  const int64_t units = tile.loop.units;
  if (!tile.loop.known_h && at.unit + at.blocks * kLanes<T> <= units) {
    forward_places(options, tile, at,
                   [](int64_t row, int64_t unit) { return UsualPlace<T>{row, unit}; });
  } else {
    forward_places(options, tile, at, [units](int64_t row, int64_t unit) {
      return CellPlace{row, unit, existing<T>(units - unit)};
    });
  }
}

// Asks for the lines that a tile's cells will write, while its products are made: a store that
// misses holds up those behind it. States are near anyway, and few rows have few stores.
template <class Cell, class T>
RNNCORE_INLINE void prefetch_written(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                                     const TilePlace& at) {
  if (loop.known_h || at.rows < 3) return;
  for (int m = 0; m < at.rows; ++m) {
    for (int b = 0; b < at.blocks; ++b) {
      const int64_t row = at.row[m], unit = at.unit + b * kLanes<T>;
      if (!step.hidden) __builtin_prefetch(loop.y.at(step.s, row) + unit, 1);
      if (!loop.keep) continue;
      if (Cell::kCarriesC) __builtin_prefetch(step.c_write + row * step.c_write_stride + unit, 1);
      const T* slots = step.slots + row * loop.slots_stride;
      for (int slot = 0; slot < Cell::kSlots; ++slot) {
        __builtin_prefetch(slots + slot_at<T>(unit, Cell::kSlots, slot), 1);
      }
    }
  }
}

// This member's units, for the first `count` of its rows.
template <class Format, class Cell, int kPhase, class Options, class T>
inline void forward_units(const Options& options, const ForwardLoop<T>& loop,
                          const ForwardStep<T>& step, int64_t count) {
  constexpr int kGates = kPhaseGates<Cell, kPhase>;
  const Share& share = loop.share;
  const auto work = [&](const TilePlace& place) {
    prefetch_written<Cell>(loop, step, place);
    ForwardTile<Format, Cell, kPhase> tile(loop, step, place);
    tile.multiply(place);
    forward_tile<T, Cell, Options, kPhase>(options, tile, place);
  };
  for_each_tile<T, kGates>(share, share.group_begin, share.group_end, 0, count, work);
}

// y = W_hr hidden, for this member's outputs.
template <class Format, bool kOptions, class T>
inline void forward_projection(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                               int64_t count) {
  constexpr int kLane = kLanes<T>;
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  const auto row_of = [&](int64_t row) {
    const T* values = hidden_row(loop, step, row);
    return operand<Format>(values, loop.h_records, row, loop.units);
  };
  const auto work = [&](const TilePlace& place) {
    multiply_plain<Format>(place, loop.projection_panels, loop.units, row_of, tile);
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      const int64_t unit = place.unit + v % place.blocks * kLane;
      const CellPlace at = {place.row[v / place.blocks], unit, existing<T>(loop.outputs - unit)};
      store_h<kOptions>(loop, step, at, load(tile + v * kLane));
    }
  };
  for_each_tile<T, 1>(share, share.output_group_begin, share.output_group_end, 0, count, work);
}

// One phase of a step; false: cancelled.
template <class Format, class Cell, int kPhase, class Options, class T>
inline bool forward_phase(const Options& options, const ForwardLoop<T>& loop,
                          const ForwardStep<T>& step, int64_t count) {
  if constexpr (!Options::kPlain) {
    if (loop.options->norm_input) {
      multiply_rows<Format, Cell, kPhase>(loop, step, count);
      if (!loop.share.proceed(loop.share.context)) return false;
      normalised_cells<Cell, kPhase>(options, loop, step, count);
      return true;
    }
  }
  if (kPhase == 0) quantize_step<Format>(loop, step, count);
  if (kPhase == 1) quantize_hidden<Format>(loop, step, count);
  forward_units<Format, Cell, kPhase>(options, loop, step, count);
  return true;
}

template <class Format, class Cell, class Options>
void recurrence_forward(const ForwardLoop<typename Format::Real>& loop) {
  const Share& share = loop.share;
  const auto options = options_of<typename Format::Real, Options>(loop.options);
  for (int64_t s = share.step_begin; s < share.step_end; ++s) {
    const auto step = forward_step(loop, s);
    const int64_t count = rows_of(share, s);
    if (!forward_phase<Format, Cell, 0>(options, loop, step, count)) return;
    if constexpr (kTwoPhases<Cell>) {
      if (!share.proceed(share.context)) return;
      if (!forward_phase<Format, Cell, 1>(options, loop, step, count)) return;
    }
    if (loop.projection_panels && !loop.known_h) {
      if (!share.proceed(share.context)) return;
      quantize_hidden<Format>(loop, step, count);
      forward_projection<Format, !Options::kPlain>(loop, step, count);
    }
    if (!share.proceed(share.context)) return;
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
