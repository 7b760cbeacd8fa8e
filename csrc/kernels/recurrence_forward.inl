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
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Where a vector of units starts in a slot row.
template <class T>
inline ptrdiff_t slot_at(int64_t unit, int slots, int slot) {
  return (unit / kGroup) * slots * kGroup + slot * kGroup + unit % kGroup;
}

// The rows of one step.
template <class T>
struct ForwardStep {
  T* slots;
  const T* h_read;
  T* h_write;
  const T* c_read;
  T* c_write;
  T* hidden;
  ptrdiff_t c_read_stride, c_write_stride, hidden_stride;
  int64_t s;
};

template <class T>
inline ForwardStep<T> forward_step(const ForwardLoop<T>& loop, int64_t s) {
  const int64_t* offsets = loop.share.offsets;
  const ptrdiff_t wide = padded(loop.units), state = loop.state_stride;
  ForwardStep<T> step;
  step.s = s;
  const int64_t row =
      loop.slots_dense ? (s - loop.share.step_begin) * loop.slots_dense : offsets[s];
  step.slots = loop.slots + row * loop.slots_stride;
  step.h_read = loop.h[s % 2];
  step.h_write = loop.h[(s + 1) % 2];
  const bool kept_c = loop.keep && loop.c_kept;
  const bool from_initial = !kept_c || s == 0;
  step.c_read = from_initial ? loop.c : loop.c_kept + offsets[s - 1] * wide;
  step.c_read_stride = from_initial ? state : wide;
  step.c_write = kept_c ? loop.c_kept + offsets[s] * wide : loop.c;
  step.c_write_stride = kept_c ? wide : state;
  step.hidden = loop.keep ? loop.hidden + offsets[s] * wide : loop.hidden;
  step.hidden_stride = wide;
  if (!loop.hidden) step.hidden = nullptr;
  return step;
}

// Where products find a step's rows: where they are, or in the records that this member made.
template <class Format, class T>
inline const typename Format::Row* x_row(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                                         int64_t row) {
  if constexpr (Format::kScaled) {
    return row_of_record(loop.x_records + row * record_bytes(loop.inputs));
  } else {
    return loop.x.at(step.s, row);
  }
}

template <class Format, class T>
inline const typename Format::Row* h_row(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                                         int64_t row) {
  if constexpr (Format::kScaled) {
    return row_of_record(loop.h_records + row * record_bytes(loop.outputs));
  } else {
    return step.h_read + row * loop.state_stride;
  }
}

template <class Format, class T>
inline const typename Format::Row* hidden_row(const ForwardLoop<T>& loop,
                                              const ForwardStep<T>& step, int64_t row) {
  if constexpr (Format::kScaled) {
    return row_of_record(loop.h_records + row * record_bytes(loop.units));
  } else {
    return step.hidden + row * step.hidden_stride;
  }
}

// Makes the records of the first `count` of this member's rows. Members that share rows make the
// same ones each: that costs less than waiting for one another.
template <class Format, class T>
inline void quantize_step(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  if constexpr (Format::kScaled) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = loop.share.row_begin + i * loop.share.row_stride;
      quantize_row(step.h_read + row * loop.state_stride, loop.outputs,
                   loop.h_records + row * record_bytes(loop.outputs));
      if (!loop.input_panels) continue;
      quantize_row(loop.x.at(step.s, row), loop.inputs,
                   loop.x_records + row * record_bytes(loop.inputs));
    }
  }
}

template <class Format, class T>
inline void quantize_hidden(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  if constexpr (Format::kScaled) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = loop.share.row_begin + i * loop.share.row_stride;
      quantize_row(step.hidden + row * step.hidden_stride, loop.units,
                   loop.h_records + row * record_bytes(loop.units));
    }
  }
}

// What a tile of rows and blocks of units starts from: the slot rows, or the biases plus W x.
template <class Format, class Cell>
struct ForwardTile {
  using T = typename Format::Real;
  static constexpr int kGates = Cell::kGates, kLane = kLanes<T>;
  // Where U's product reaches other slots than W's, those of W have a tile of their own.
  static constexpr bool kSameSlots = Cell::kInputSlot == Cell::kRecurrentSlot;

  const ForwardLoop<T>& loop;
  const ForwardStep<T>& step;
  const int64_t* row;
  int rows;
  int64_t unit;
  int blocks;
  alignas(kVectorBytes) T sums[kMaxAccumulators * kLane];
  alignas(kVectorBytes) T inputs[kSameSlots ? kLane : kMaxAccumulators * kLane];

  ForwardTile(const ForwardLoop<T>& of_loop, const ForwardStep<T>& at_step, const TilePlace& at)
      : loop(of_loop),
        step(at_step),
        row(at.row),
        rows(at.rows),
        unit(at.unit),
        blocks(at.blocks) {}

  void load_slots(int first_slot, const T* from_one, T* to) {
    for (int m = 0; m < rows; ++m) {
      const T* from = from_one ? from_one : step.slots + row[m] * loop.slots_stride;
      for (int b = 0; b < blocks; ++b) {
        for (int g = 0; g < kGates; ++g, to += kLane) {
          store(to, load(from + slot_at<T>(unit + b * kLane, Cell::kSlots, first_slot + g)));
        }
      }
    }
  }

  Product<Format> of_inputs() const {
    auto product = panels_of<Format>(loop.input_panels, kGates, loop.inputs, unit);
    for (int m = 0; m < rows; ++m) product.rows[m] = x_row<Format>(loop, step, row[m]);
    return product;
  }

  // Both products. Slots that W reaches and U does not stay behind in `inputs`.
  void multiply(const Product<Format>& recurrent) {
    T* reached = kSameSlots ? sums : inputs;
    const MultiplyTile<Format> function = choose_tile<Format, kGates>(rows, blocks);
    load_slots(Cell::kInputSlot, loop.input_panels ? loop.bias : nullptr, reached);
    if (kSameSlots) {
      const Product<Format> both[2] = {loop.input_panels ? of_inputs() : recurrent, recurrent};
      function(both, loop.input_panels ? 2 : 1, sums);
      return;
    }
    if (loop.input_panels) {
      const Product<Format> product = of_inputs();
      function(&product, 1, inputs);
    }
    load_slots(Cell::kRecurrentSlot, loop.bias, sums);
    constexpr int kFirst = Cell::kRecurrentSlot - Cell::kInputSlot;
    for (int v = 0; v < rows * blocks; ++v) {
      for (int g = kFirst; g < kGates; ++g) {
        store(sums + (v * kGates + g - kFirst) * kLane, load(inputs + (v * kGates + g) * kLane));
      }
    }
    function(&recurrent, 1, sums);
  }

  // A slot of the row and block counted v once all products are in.
  const T* at(int v, int slot) const {
    const int g = slot - Cell::kRecurrentSlot;
    const bool in_sums = g >= 0 && g < kGates;
    return in_sums ? sums + (v * kGates + g) * kLane
                   : inputs + (v * kGates + slot - Cell::kInputSlot) * kLane;
  }
};

// One row and one vector of units of a tile.
struct CellPlace {
  int64_t row, unit;
  int exist;  // lanes that are units
};

// What the cell made of it goes to memory.
template <class T, class Cell, class Vec>
inline void store_cell(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                       const CellPlace& place, Vec* values, Vec h, Vec c) {
  const int64_t row = place.row, unit = place.unit;
  const bool partial = place.exist < kLanes<T>;
  if (partial) h = keep_first<T>(h, place.exist);
  if (loop.keep) {
    T* slots = step.slots + row * loop.slots_stride + slot_at<T>(unit, Cell::kSlots, 0);
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (partial) values[slot] = keep_first<T>(values[slot], place.exist);
      store(slots + slot * kGroup, values[slot]);
    }
  }
  if (Cell::kCarriesC) {
    if (partial) c = keep_first<T>(c, place.exist);
    store(step.c_write + row * step.c_write_stride + unit, c);
  }
  if (step.hidden) {
    store(step.hidden + row * step.hidden_stride + unit, h);
  } else {
    store(step.h_write + row * loop.state_stride + unit, h);
    store_upto(loop.y.at(step.s, row) + unit, h, place.exist);
  }
}

// The cell on kCount neighbours of a tile at once, from the one counted v on.
template <int kCount, class Format, class Cell>
inline void forward_cells(const ForwardTile<Format, Cell>& tile, const CellPlace* place, int v) {
  using T = typename Format::Real;
  using Vec = typename VecOf<T>::Vec;
  using Several = Group<Vec, kCount>;
  const ForwardLoop<T>& loop = tile.loop;
  const ForwardStep<T>& step = tile.step;
  Several values[Cell::kSlots];
  StepState<Several> state;
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    const int64_t row = place[i].row, unit = place[i].unit;
#pragma GCC unroll 4
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      values[slot].v[i] = load(tile.at(v + i, slot));
      if (place[i].exist < kLanes<T>) {
        values[slot].v[i] = keep_first<T>(values[slot].v[i], place[i].exist);
      }
    }
    if (Cell::kReadsH) {
      state.h_before.v[i] = load(step.h_read + row * loop.state_stride + unit);
    }
    if (Cell::kCarriesC) {
      state.c_before.v[i] = load(step.c_read + row * step.c_read_stride + unit);
    }
  }
  Cell::forward(values, state);
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) {
    Vec own[Cell::kSlots];
#pragma GCC unroll 4
    for (int slot = 0; slot < Cell::kSlots; ++slot) own[slot] = values[slot].v[i];
    store_cell<T, Cell>(loop, step, place[i], own, state.h.v[i],
                        Cell::kCarriesC ? state.c.v[i] : Vec{});
  }
}

// The cell on all of a tile.
template <class Format, class Cell>
inline void forward_tile(const ForwardTile<Format, Cell>& tile, const TilePlace& at) {
  using T = typename Format::Real;
  CellPlace place[kMaxAccumulators];
  int count = 0;
  for (int m = 0; m < at.rows; ++m) {
    for (int b = 0; b < at.blocks; ++b, ++count) {
      const int64_t unit = at.unit + b * kLanes<T>;
      place[count] = {at.row[m], unit, existing<T>(tile.loop.units - unit)};
    }
  }
  // Gates that are kept live longer: fewer cells fit into registers then.
  const int most = tile.loop.keep ? 1 : kTogether;
  int together = 0;
  for (int v = 0; v < count; v += together) {
    together = next_together(count - v, most);
    if (together == 3) forward_cells<3>(tile, place + v, v);
    if (together == 2) forward_cells<2>(tile, place + v, v);
    if (together == 1) forward_cells<1>(tile, place + v, v);
  }
}

// This member's units, for the first `count` of its rows.
template <class Format, class Cell, class T>
inline void forward_units(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  constexpr int kGates = Cell::kGates;
  const Share& share = loop.share;
  const auto work = [&](const TilePlace& place) {
    auto product = panels_of<Format>(loop.panels, kGates, loop.outputs, place.unit);
    if (place.tile < kAskers) {
      const auto next = panels_of<Format>(loop.panels, kGates, loop.outputs, place.next_unit);
      product.ahead = next.panel + ahead_of<Format>(place.tile, product.segment_length);
    }
    for (int m = 0; m < place.rows; ++m) product.rows[m] = h_row<Format>(loop, step, place.row[m]);
    ForwardTile<Format, Cell> tile(loop, step, place);
    tile.multiply(product);
    forward_tile(tile, place);
  };
  for_each_tile<T, kGates>(share, share.group_begin, share.group_end, 0, count, work);
}

// y = W_hr hidden, for this member's outputs.
template <class Format, class T>
inline void forward_projection(const ForwardLoop<T>& loop, const ForwardStep<T>& step,
                               int64_t count) {
  constexpr int kLane = kLanes<T>;
  const Share& share = loop.share;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  const auto row_of = [&](int64_t row) { return hidden_row<Format>(loop, step, row); };
  const auto work = [&](const TilePlace& place) {
    multiply_plain<Format>(place, loop.projection_panels, loop.units, row_of, tile);
    for (int v = 0; v < place.rows * place.blocks; ++v) {
      const int64_t row = place.row[v / place.blocks], at = place.unit + v % place.blocks * kLane;
      const auto h = load(tile + v * kLane);
      store(step.h_write + row * loop.state_stride + at, h);
      store_upto(loop.y.at(step.s, row) + at, h, existing<T>(loop.outputs - at));
    }
  };
  for_each_tile<T, 1>(share, share.output_group_begin, share.output_group_end, 0, count, work);
}

template <class Format, class Cell>
void recurrence_forward(const ForwardLoop<typename Format::Real>& loop) {
  const Share& share = loop.share;
  for (int64_t s = share.step_begin; s < share.step_end; ++s) {
    const auto step = forward_step(loop, s);
    const int64_t count = rows_of(share, s);
    quantize_step<Format>(loop, step, count);
    forward_units<Format, Cell>(loop, step, count);
    if (loop.projection_panels) {
      if (!share.proceed(share.context)) return;
      quantize_hidden<Format>(loop, step, count);
      forward_projection<Format>(loop, step, count);
    }
    if (!share.proceed(share.context)) return;
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
