// THE time loop.
//
//   slots[t, n, g, u] = (W x + biases)[t, n, g, u] + sum over k of h[t-1, n, k] U[g, u, k]
//   h[t], c[t] = cell(slots[t], h[t-1], c[t-1]);   y[t] = h[t], or W_hr h[t] where there is one
//
// A tile is a few batch rows by one or more blocks of units with all their gates: its sums start
// from the slot rows that the input projection wrote, the panels of U (read once a tile from the
// thread's own L2) are multiplied, and the cell's equations run on it while it is in L1. With
// `keep` the gates go back to the same slot rows, which are the tape. Where the layer has few
// inputs W x is made here, too, in the same tile: a round of the slot rows through memory would
// cost more.
//
// A cell of two phases does this twice a step: the second product is of what the first phase made.
// With layer norm a row's products must be complete before its cells run: normalise.inl.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// A tile of rows and blocks of units, [row][block][slot][lane]: sums, then the cell's inputs.
template <class T, class Cell, int kPhase>
struct TileValues {
  static constexpr int kGates = kPhaseGates<Cell, kPhase>, kSlots = Cell::kSlots;
  static constexpr int kLane = kLanes<T>;

  const ForwardLoop<T>& loop;
  const ForwardStep<T>& step;
  alignas(kVectorBytes) T values[kMaxAccumulators / kGates * kSlots * kLane];

  TileValues(const ForwardLoop<T>& of_loop, const ForwardStep<T>& at_step)
      : loop(of_loop), step(at_step) {}

  // A slot of the row and block counted v.
  T* at(int v, int slot) { return values + (v * kSlots + slot) * kLane; }
};

// How the sums of a member's tiles come about, one tile after the other.
template <class Format, class Cell, int kPhase>
struct ForwardTile : TileValues<typename Format::Real, Cell, kPhase> {
  using T = typename Format::Real;
  using Values = TileValues<T, Cell, kPhase>;
  using Values::at, Values::loop, Values::step, Values::kGates, Values::kLane, Values::kSlots;
  using Word = typename Format::Word;
  using Rows = const typename Format::Row* const*;
  static constexpr int kSlot = kPhaseSlot<Cell, kPhase>;
  // U's product may reach other slots than W's.
  static constexpr bool kSameSlots = kTwoPhases<Cell> || Cell::kInputSlot == Cell::kRecurrentSlot;
  static constexpr int kFirstSlot = kSameSlots ? kSlot : Cell::kInputSlot;

  const bool with_inputs = kPhase == 0 && loop.input_panels;
  const bool with_states = !loop.from_zeros || step.s > 0;
  Rows of_inputs, of_states;
  Product<Format> products[2];  // of inputs and of states
  const Word* ahead[2];         // their panels to come

  // Lists the rows that products read: their addresses are the same for all units.
  ForwardTile(const ForwardLoop<T>& of_loop, const ForwardStep<T>& at_step, int64_t count)
      : Values(of_loop, at_step) {
    auto** rows = reinterpret_cast<const typename Format::Row**>(loop.a);
    of_states = rows;
    of_inputs = rows + count;
    const Share& share = loop.share;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = share.row_begin + i * share.row_stride;
      const T* h = kPhase ? hidden_row(loop, step, row) : entering_row(loop, step, row);
      rows[i] = operand<Format>(h, loop.h_records, row, states());
      if (!with_inputs) continue;
      const T* x = loop.x.at(step.s, row);
      rows[count + i] = operand<Format>(x, loop.x_records, row, loop.inputs);
    }
  }

  int64_t states() const { return kPhase ? loop.units : loop.outputs; }

  // The panels of other blocks. The biases of those to come are far away by then.
  void move_to(const TilePlace& place) {
    move_to(place, kPhase ? loop.second_panels : loop.panels, states(), 1);
    if (!with_inputs) return;
    move_to(place, loop.input_panels, loop.inputs, 0);
    for (int slot = 0; slot < kSlots; ++slot) {
      __builtin_prefetch(loop.bias + slot_at<T>(place.next_unit, kSlots, slot));
    }
  }
  void move_to(const TilePlace& place, const void* panels, int64_t length, int which) {
    products[which] = panels_of<Format>(panels, kGates, length, place.unit);
    ahead[which] = panels_of<Format>(panels, kGates, length, place.next_unit).panel;
  }

  // Where the sums of a tile start: the biases, or the slot rows, where these and W x are in.
  TileSums<T> start_of(const TilePlace& place) {
    TileSums<T> sums;
    const T* first = with_inputs ? loop.bias : step.slots + place.first_row * loop.slots_stride;
    for (int b = 0; b < place.blocks; ++b) {
      sums.from[b] = first + slot_at<T>(place.unit + b * kLane, kSlots, kFirstSlot);
    }
    sums.from_row = with_inputs ? 0 : place.row_stride * loop.slots_stride;
    sums.from_gate = kGroup;
    sums.to = at(0, kFirstSlot);
    sums.to_block = kSlots * kLane;
    return sums;
  }

  void multiply(const TilePlace& place) {
    if (place.tile == 0) move_to(place);
    const int first = with_inputs ? 0 : 1, count = (with_inputs ? 1 : 0) + (with_states ? 1 : 0);
    for (int i = first; i < 2; ++i) {
      Product<Format>& product = products[i];
      const bool asks = place.tile < kAskers;
      product.rows = (i ? of_states : of_inputs) + place.first;
      product.ahead =
          asks ? ahead[i] + ahead_of<Format>(place.tile, product.segment_length) : nullptr;
    }
    const MultiplyTile<Format> function = choose_tile<Format, kGates>(place.rows, place.blocks);
    if (kSameSlots) {
      function(products + first, count, start_of(place));
    } else {
      multiply_apart(place, function);
    }
  }

  // W's product, then U's from what it left, and from biases in the slots that it does not reach.
  void multiply_apart(const TilePlace& place, const MultiplyTile<Format> function) {
    function(products, with_inputs ? 1 : 0, start_of(place));
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      const int64_t unit = place.unit + v % place.blocks * kLane;
      for (int slot = kFirstSlot + kGates; slot < kSlot + kGates; ++slot) {
        store(at(v, slot), load(loop.bias + slot_at<T>(unit, kSlots, slot)));
      }
    }
    if (!with_states) return;
    function(products + 1, 1, in_place(at(0, kSlot), place.blocks, kSlots));
  }
};

// The output of a step, or what a second product or a projection makes it of.
template <class Cell, class Options, int kPhase, class T, class Place, class Vec>
RNNCORE_INLINE void store_output(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                                 const Place& place, Vec h) {
  if (!kTwoPhases<Cell> && step.hidden) {
    store_hidden(loop, step, place, h);
  } else {
    store_h<!Options::kPlain>(loop, step, place, h);
  }
}

// Where c and the output gate wait in a tile, in the place of sums.
constexpr int kMadeC = 0, kOutputGate = 1;

// The cell on the row and vector of units counted v. Of cells that carry c, c and the output gate
// stay behind in the tile.
template <class T, class Cell, class Options, int kPhase, class Place>
RNNCORE_INLINE void forward_cell(const Options& options, const ForwardLoop<T>& loop,
                                 const ForwardStep<T>& step, TileValues<T, Cell, kPhase>& tile,
                                 const Place& place, int v) {
  constexpr bool kOptions = !Options::kPlain, kFirstOfTwo = kTwoPhases<Cell> && kPhase == 0;
  using Vec = typename VecOf<T>::Vec;
  const bool partial = place.exist < kLanes<T>;
  T* slots = step.slots + place.row * loop.slots_stride + slot_at<T>(place.unit, Cell::kSlots, 0);
  Vec values[Cell::kSlots];
#pragma GCC unroll 4
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    // Those of the other phase are where that one left them.
    const bool mine = in_phase<Cell, kPhase>(slot);
    if (!mine && kPhase == 0) continue;
    values[slot] = load(mine ? tile.at(v, slot) : slots + slot * kGroup);
    if (partial) values[slot] = keep_first<T>(values[slot], place.exist);
  }
  StepState<Vec> state;
  if (kFirstOfTwo) {
    state.h_entering = load_upto(entering_row(loop, step, place.row) + place.unit, place.exist);
  } else if (Cell::kReadsH) {
    state.h_before = h_before<kOptions, Vec>(loop, step, place);
  }
  if (Cell::kCarriesC) state.c_before = c_before<kOptions, Vec>(loop, step, place);
  UnitWeights<Vec> own = {};
  if constexpr (kOptions) load_unit_weights(*loop.options, loop.units, place.unit, own);
  Cell::template forward<kPhase>(options, own, values, state);
  if (loop.keep || kFirstOfTwo) {
#pragma GCC unroll 4
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (!in_phase<Cell, kPhase>(slot)) continue;
      if (partial) values[slot] = keep_first<T>(values[slot], place.exist);
      store(slots + slot * kGroup, values[slot]);
    }
  }
  if constexpr (Cell::kCarriesC) {
    store_c<kOptions>(loop, step, place, state.c_before, state.c);
    store(tile.at(v, kMadeC), state.c);
    store(tile.at(v, kOutputGate), state.output_gate);
  } else if constexpr (kFirstOfTwo) {
    store_hidden(loop, step, place, state.hidden);
  } else {
    store_output<Cell, Options, kPhase>(loop, step, place, state.h);
  }
}

// The cell on all of a tile, whose places `place_at` tells by row and unit. Outputs come after all
// of its c: one made with each would keep the processor waiting, which looks ahead only so far.
template <class T, class Cell, class Options, int kPhase, class PlaceAt>
RNNCORE_INLINE void forward_places(const Options& options, TileValues<T, Cell, kPhase>& tile,
                                   const TilePlace& at, const PlaceAt& place_at) {
  // Copies: what is stored might be these, as far as the compiler knows.
  const ForwardLoop<T> loop = tile.loop;
  const ForwardStep<T> step = tile.step;
  const int rows = at.rows, blocks = at.blocks;
  const int64_t unit = at.unit;
  int v = 0;
  for (int m = 0; m < rows; ++m) {
    for (int b = 0; b < blocks; ++b) {
      forward_cell(options, loop, step, tile, place_at(at.row(m), unit + b * kLanes<T>), v++);
    }
  }
  if constexpr (Cell::kCarriesC) {
    v = 0;
    for (int m = 0; m < rows; ++m) {
      for (int b = 0; b < blocks; ++b, ++v) {
        const auto h =
            Cell::output(options, load(tile.at(v, kOutputGate)), load(tile.at(v, kMadeC)));
        store_output<Cell, Options, kPhase>(loop, step, place_at(at.row(m), unit + b * kLanes<T>),
                                            h);
      }
    }
  }
}

// One function for all formats of weights.
template <class T, class Cell, class Options, int kPhase>
__attribute__((noinline)) void forward_tile(const Options& options,
                                            TileValues<T, Cell, kPhase>& tile,
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

// Asks for the lines of the tape that a tile's cells will write, while its products are made: a
// store that misses holds up those behind it. Few rows have few stores.
template <class Cell, class T>
RNNCORE_INLINE void prefetch_kept(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                                  const TilePlace& at) {
  if (!loop.keep || loop.known_h || at.rows < 3) return;
  for (int m = 0; m < at.rows; ++m) {
    for (int b = 0; b < at.blocks; ++b) {
      const int64_t row = at.row(m), unit = at.unit + b * kLanes<T>;
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
  ForwardTile<Format, Cell, kPhase> tile(loop, step, count);
  const auto work = [&](const TilePlace& place) {
    prefetch_kept<Cell>(loop, step, place);
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
      const CellPlace at = {place.row(v / place.blocks), unit, existing<T>(loop.outputs - unit)};
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
