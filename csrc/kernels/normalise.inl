// Layer norm (Ba, Kiros, Hinton 2016): a row's products W x and U h, and the c of an LSTM, less
// their mean, over their deviation, times a gain.
//
//   forward:   v = (a - mean(a)) / sqrt(mean((a - mean(a))^2) + 1e-5)
//   backward:  da = (dv - mean(dv) - v mean(dv v)) / the same root
//
// Statistics need all of a row, so a step with layer norm is a product into rows of a buffer, which
// the threads share by units, and then the cell on whole rows, which they share by rows. A sum
// along a row has sixteen partial sums, by unit modulo 16, and a tree of fixed shape: the same bits
// for any vector width and any split.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

constexpr double kNormEpsilon = 1e-5;

// sum of value(unit, gate) over a row.
template <class T, class Value>
inline T sum_over_row(int64_t units, int gates, const Value& value) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>, kVectors = kGroup / kLane;
  Vec sum[kVectors] = {};
  for (int64_t group = 0; group < units; group += kGroup) {
    for (int g = 0; g < gates; ++g) {
      for (int v = 0; v < kVectors; ++v) {
        const int64_t unit = group + v * kLane;
        const int exist = existing<T>(units - unit);
        if (exist == 0) continue;
        const Vec term = value(unit, g);
        sum[v] = sum[v] + (exist < kLane ? keep_first<T>(term, exist) : term);
      }
    }
  }
  alignas(kVectorBytes) T partial[kGroup];
  for (int v = 0; v < kVectors; ++v) store(partial + v * kLane, sum[v]);
  return sum_of_partials(partial);
}

// Some gates of a row of products: [group][slots][16], from `first` on.
template <class T>
struct NormRow {
  T* values;
  int slots, first, gates;
  int64_t units;

  T* at(int64_t unit, int g) const { return values + slot_at<T>(unit, slots, first + g); }
  T count() const { return static_cast<T>(gates * units); }
};

template <class T>
struct Moments {
  T mean, inverse;
};

template <class T>
inline Moments<T> moments_of(const NormRow<T>& row) {
  const T mean = sum_over_row<T>(row.units, row.gates,
                                 [&](int64_t unit, int g) { return load(row.at(unit, g)); }) /
                 row.count();
  const auto shift = broadcast(mean);
  const T variance = sum_over_row<T>(row.units, row.gates,
                                     [&](int64_t unit, int g) {
                                       const auto less = load(row.at(unit, g)) - shift;
                                       return less * less;
                                     }) /
                     row.count();
  return {mean, T(1) / square_root(variance + static_cast<T>(kNormEpsilon))};
}

template <class T, class Work>
inline void for_row(const NormRow<T>& row, const Work& work) {
  for (int64_t unit = 0; unit < row.units; unit += kLanes<T>) {
    const int exist = existing<T>(row.units - unit);
    for (int g = 0; g < row.gates; ++g) {
      auto v = work(unit, g);
      if (exist < kLanes<T>) v = keep_first<T>(v, exist);
      store(row.at(unit, g), v);
    }
  }
}

// The row becomes its normalised values; returns what they were multiplied by.
template <class T>
inline T normalise(const NormRow<T>& row) {
  const Moments<T> moments = moments_of(row);
  const auto mean = broadcast(moments.mean), inverse = broadcast(moments.inverse);
  for_row(row, [&](int64_t unit, int g) { return (load(row.at(unit, g)) - mean) * inverse; });
  return moments.inverse;
}

// Normalised values become the gradient of the raw ones; gradient(unit, g) is that of the former.
template <class T, class Gradient>
inline void normalise_backward(const NormRow<T>& row, T inverse, const Gradient& gradient) {
  const T mean = sum_over_row<T>(row.units, row.gates, gradient) / row.count();
  const T along = sum_over_row<T>(row.units, row.gates,
                                  [&](int64_t unit, int g) {
                                    return gradient(unit, g) * load(row.at(unit, g));
                                  }) /
                  row.count();
  const auto m = broadcast(mean), a = broadcast(along), i = broadcast(inverse);
  for_row(row, [&](int64_t unit, int g) {
    return (gradient(unit, g) - m - load(row.at(unit, g)) * a) * i;
  });
}

template <class Cell, int kPhase, class T>
inline NormRow<T> recurrent_row(T* values, int64_t units) {
  const int first = kPhase ? Cell::kFirstGates : 0;
  return {values, Cell::kRecurrentGates, first, kPhaseGates<Cell, kPhase>, units};
}
template <class Cell, class T>
inline NormRow<T> input_row(T* values, int64_t units) {
  return {values, Cell::kInputGates, 0, Cell::kInputGates, units};
}

// --- forward
// --------------------------------------------------------------------------------------

// A phase's product of this member's rows, for its units.
template <class Format, class Cell, int kPhase, class T>
inline void multiply_rows(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  const Share& share = loop.share;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = share.row_begin + i * share.row_stride;
    loop.a[i] = kPhase ? hidden_row(loop, step, row) : entering_row(loop, step, row);
    loop.to[i] = step.normalised.recurrent + row * loop.normalised.recurrent_stride;
  }
  RowsProduct<T> product;
  product.rows = count;
  product.a = loop.a;
  product.c = loop.to;
  product.segment_length = kPhase ? loop.units : loop.outputs;
  product.panels = kPhase ? loop.second_panels : loop.panels;
  product.group_begin = share.group_begin;
  product.group_end = share.group_end;
  product.columns = padded(loop.units);
  product.gates = kPhaseGates<Cell, kPhase>;
  product.slots = Cell::kRecurrentGates;
  product.first_slot = kPhase ? Cell::kFirstGates : 0;
  product.records = loop.h_records;
  rows_product<Format>(product);
}

// A row's slots from `unit` on: biases and what was normalised.
template <class Cell, int kPhase, class T, class Vec>
inline void load_normalised(const ForwardLoop<T>& loop, const T* input, const T* recurrent,
                            const T* kept, int64_t unit, Vec* values) {
  const CellOptions<T>& options = *loop.options;
  for (int slot = 0; slot < Cell::kSlots; ++slot) {
    if (!in_phase<Cell, kPhase>(slot)) {
      if (kPhase == 1) values[slot] = load(kept + slot_at<T>(unit, Cell::kSlots, slot));
      continue;
    }
    Vec value = load(loop.bias + slot_at<T>(unit, Cell::kSlots, slot));
    const int in = slot - Cell::kInputSlot, re = slot - Cell::kRecurrentSlot;
    if (in >= 0 && in < Cell::kInputGates) {
      const ptrdiff_t at = slot_at<T>(unit, Cell::kInputGates, in);
      value = fma(load(options.norm_input + at), load(input + at), value);
    }
    if (re >= 0 && re < Cell::kRecurrentGates) {
      const ptrdiff_t at = slot_at<T>(unit, Cell::kRecurrentGates, re);
      value = fma(load(options.norm_recurrent + at), load(recurrent + at), value);
    }
    values[slot] = value;
  }
}

// h of a row whose c' is complete.
template <class Cell, class Options, class T>
inline void normalised_outputs(const Options& options, const ForwardLoop<T>& loop,
                               const ForwardStep<T>& step, int64_t row, const T* slots) {
  using Vec = typename VecOf<T>::Vec;
  if constexpr (Cell::kCarriesC) {
    const Moments<T> moments = moments_of(NormRow<T>{loop.row_scratch, 1, 0, 1, loop.units});
    const Vec mean = broadcast(moments.mean), inverse = broadcast(moments.inverse);
    for (int64_t unit = 0; unit < padded(loop.units); unit += kLanes<T>) {
      const CellPlace place = {row, unit, existing<T>(loop.units - unit)};
      const Vec c = load(loop.row_scratch + unit);
      const Vec normed = fma((c - mean) * inverse, load(loop.options->norm_c + unit),
                             load(loop.options->norm_c_bias + unit));
      Vec kept[Cell::kSlots];
      for (int slot = 0; slot < Cell::kSlots; ++slot) {
        kept[slot] = load(slots + slot_at<T>(unit, Cell::kSlots, slot));
      }
      const Vec h = Cell::output(options, Cell::output_gate(options, kept), normed);
      store_c<true>(loop, step, place, c_before<true, Vec>(loop, step, place), c);
      if (step.hidden) {
        store_hidden(loop, step, place, h);
      } else {
        store_h<true>(loop, step, place, h);
      }
    }
  }
}

template <class Cell, int kPhase, class Options, class T>
inline void normalised_cell(const Options& options, const ForwardLoop<T>& loop,
                            const ForwardStep<T>& step, int64_t row) {
  using Vec = typename VecOf<T>::Vec;
  T* input = step.normalised.input + row * loop.normalised.input_stride;
  T* recurrent = step.normalised.recurrent + row * loop.normalised.recurrent_stride;
  T* inverse = step.normalised.inverse + row * kInverses;
  T* slots = step.slots + row * loop.slots_stride;
  if (kPhase == 0) inverse[0] = normalise(input_row<Cell>(input, loop.units));
  inverse[1 + kPhase] = normalise(recurrent_row<Cell, kPhase>(recurrent, loop.units));
  for (int64_t unit = 0; unit < padded(loop.units); unit += kLanes<T>) {
    const CellPlace place = {row, unit, existing<T>(loop.units - unit)};
    Vec values[Cell::kSlots];
    load_normalised<Cell, kPhase>(loop, input, recurrent, slots, unit, values);
    StepState<Vec> state = {};
    UnitWeights<Vec> own = {};
    load_unit_weights(*loop.options, loop.units, unit, own);
    if (kTwoPhases<Cell> && kPhase == 0) {
      state.h_entering = load_upto(entering_row(loop, step, row) + unit, place.exist);
    } else if (Cell::kReadsH) {
      state.h_before = h_before<true, Vec>(loop, step, place);
    }
    if (Cell::kCarriesC) state.c_before = c_before<true, Vec>(loop, step, place);
    Cell::template forward<kPhase>(options, own, values, state);
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      if (!in_phase<Cell, kPhase>(slot)) continue;
      if (place.exist < kLanes<T>) values[slot] = keep_first<T>(values[slot], place.exist);
      store(slots + slot_at<T>(unit, Cell::kSlots, slot), values[slot]);
    }
    if (Cell::kCarriesC) {
      store(loop.row_scratch + unit, state.c);
    } else if (kTwoPhases<Cell> && kPhase == 0) {
      store_hidden(loop, step, place, state.hidden);
    } else {
      store_h<true>(loop, step, place, state.h);
    }
  }
  normalised_outputs<Cell>(options, loop, step, row, slots);
}

// The cell on this member's part of the first `count` rows that it shares.
template <class Cell, int kPhase, class Options, class T>
__attribute__((noinline)) void normalised_cells(const Options& options, const ForwardLoop<T>& loop,
                                                const ForwardStep<T>& step, int64_t count) {
  const Share& share = loop.share;
  for (int64_t i = share.member; i < count; i += share.members) {
    normalised_cell<Cell, kPhase>(options, loop, step, share.row_begin + i * share.row_stride);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
