// A backward step with layer norm: a block for a row, as in normalised_forward.cuh. The gradients
// of the products, which weights, x and h are multiplied with, take the normalised values' places.
#pragma once

#include "cuda/backward_step.cuh"
#include "cuda/normalise.cuh"

namespace rnncore {
namespace cuda {

// From dL/dh to dL/dc' through the output's activation and norm(c), in scratch; the output gate's
// slot becomes its gradient. Scratch holds c', then dL/dnorm(c), a row each.
template <class T, class Cell, class CellOptions>
RNNCORE_DEVICE void normalised_outputs_backward(const BackwardStep& step,
                                                const CellOptions& options, const Place& place,
                                                Real<T>* slots, Real<T>* scratch,
                                                const Real<T>* dh) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const Index units = common.units;
  Value *c = scratch, *d_normed = scratch + units;
  for (Index u = thread_index(); u < units; u += thread_count()) {
    Value values[Cell::kSlots];
    for (int slot = 0; slot < Cell::kSlots; ++slot) values[slot] = read(slots + slot * units + u);
    write(c + u, states_around<T, Cell, false>(step, options, place, u, values).c);
  }
  const auto moment = moments<Value>(units, [&](Index u) { return read(c + u); });
  const auto normed = [&](Index u) { return (read(c + u) - moment.mean) * moment.inverse; };
  Value* sums = at<Value>(step.unit_gradients, place.r * step.unit_stride);
  for (Index u = thread_index(); u < units; u += thread_count()) {
    Value values[Cell::kSlots];
    for (int slot = 0; slot < Cell::kSlots; ++slot) values[slot] = read(slots + slot * units + u);
    const Value n = normed(u);
    const Value out =
        fma(n, read(at<Value>(common.norm_c, u)), read(at<Value>(common.norm_c_bias, u)));
    const Value d = Cell::output_backward(options, values, out, read(dh + u), Value(0));
    for (int slot = 0; slot < Cell::kSlots; ++slot) write(slots + slot * units + u, values[slot]);
    write(d_normed + u, d);
    Value* gain = sums + step.norm_c_at + u;
    Value* bias = sums + step.norm_c_bias_at + u;
    write(gain, fma(d, n, read(gain)));
    write(bias, read(bias) + d);
  }
  const auto gradient = [&](Index u) {
    return read(d_normed + u) * read(at<Value>(common.norm_c, u));
  };
  const auto common_part = common_gradient<Value>(units, gradient, normed);
  for (Index u = thread_index(); u < units; u += thread_count()) {
    const Value dc = gradient(u) - common_part.mean - normed(u) * common_part.along;
    write(d_normed + u, dc * moment.inverse);
  }
}

// The gradient of a product from those of the gates, in slots from `first` on, `gates` of them;
// `normed` becomes it, `narrowed` too where there are 16-bit products, and `gains` sums up.
template <class T>
RNNCORE_DEVICE void product_backward(Index units, int gates, const Real<T>* slots, int first,
                                     const Real<T>* gain, Real<T> inverse, Real<T>* normed,
                                     T* narrowed, T* gradients, Real<T>* gains) {
  using Value = Real<T>;
  const Index width = gates * units;
  const auto d = [&](Index i) { return read(slots + first * units + i); };
  const auto gradient = [&](Index i) { return d(i) * read(gain + i); };
  const auto part =
      common_gradient<Value>(width, gradient, [&](Index i) { return read(normed + i); });
  for (Index i = thread_index(); i < width; i += thread_count()) {
    const Value n = read(normed + i);
    write(gains + i, fma(d(i), n, read(gains + i)));
    const Value made = (gradient(i) - part.mean - n * part.along) * inverse;
    write(normed + i, made);
    if (narrowed) store(narrowed + i, made);
    if (gradients) store(gradients + i, made);
  }
}

// A row that ended: its gradients count in sums over all rows, as zeros.
template <class T, class Cell, int kPhase>
RNNCORE_DEVICE void clear_row(const BackwardStep& step, Index r) {
  const Index units = step.common.units;
  const int first = kPhase ? Cell::kFirstGates : 0, gates = Phases<Cell>::gates(kPhase);
  for (Index u = thread_index(); u < units; u += thread_count()) {
    clear_slots<T>(step, r, step.s, u, Cell::kSlots);
    for (int g = 0; g < gates; ++g) {
      const Index i = (first + g) * units + u;
      write(row_at<Real<T>>(step.normalised_recurrent, step.s, r) + i, Real<T>(0));
      if (step.recurrent_gradients.data) {
        store(row_at<T>(step.recurrent_gradients, step.s, r) + i, Real<T>(0));
      }
      store(at<T>(step.gradients, (r * gates + g) * units + u), Real<T>(0));
    }
    for (int g = 0; g < Cell::kInputGates; ++g) {
      const Index i = g * units + u;
      write(row_at<Real<T>>(step.normalised_input, step.s, r) + i, Real<T>(0));
      if (step.input_gradients.data) {
        store(row_at<T>(step.input_gradients, step.s, r) + i, Real<T>(0));
      }
    }
  }
}

// Both products' gradients, once the slots hold those of the gates.
template <class T, class Cell, int kPhase>
RNNCORE_DEVICE void products_backward(const BackwardStep& step, const Place& place,
                                      const Real<T>* slots) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const Index units = common.units, r = place.r;
  constexpr int kGates = Phases<Cell>::gates(kPhase), kFirst = kPhase ? Cell::kFirstGates : 0;
  const Value* inverse = row_at<Value>(step.inverse, place.t, r);
  Value* sums = at<Value>(step.unit_gradients, r * step.unit_stride);
  T* narrowed = step.recurrent_gradients.data
                    ? row_at<T>(step.recurrent_gradients, place.t, r) + kFirst * units
                    : nullptr;
  block_barrier();
  product_backward<T>(units, kGates, slots, Phases<Cell>::slot(kPhase),
                      at<Value>(common.norm_recurrent, kFirst * units), read(inverse + 1 + kPhase),
                      row_at<Value>(step.normalised_recurrent, place.t, r) + kFirst * units,
                      narrowed, at<T>(step.gradients, r * kGates * units),
                      sums + step.norm_recurrent_at + kFirst * units);
  if (kPhase == 1) return;
  narrowed = step.input_gradients.data ? row_at<T>(step.input_gradients, place.t, r) : nullptr;
  product_backward<T>(units, Cell::kInputGates, slots, Cell::kInputSlot,
                      at<Value>(common.norm_input, 0), read(inverse),
                      row_at<Value>(step.normalised_input, place.t, r), narrowed,
                      static_cast<T*>(nullptr), sums + step.norm_input_at);
}

template <class T, class Cell, class CellOptions, int kPhase>
RNNCORE_DEVICE void normalised_gates_backward(const BackwardStep& step) {
  using Value = Real<T>;
  const Steps& common = step.common;
  const Index units = common.units, r = block_x();
  constexpr bool kFirstOfTwo = Phases<Cell>::kTwo && kPhase == 0;
  const Place place = place_of(common, step.s, r);
  if (!place.alive) return clear_row<T, Cell, kPhase>(step, r);
  CellOptions options;
  take_options(common.options, options);
  Value* slots = row_at<Value>(step.slots, place.t, r);
  Value* scratch = at<Value>(step.row_scratch, r * 3 * units);
  Value* dh = scratch + 2 * units;
  const bool behind_product = kFirstOfTwo || step.projects;
  for (Index u = thread_index(); u < units; u += thread_count()) {
    auto flow = load_flow<T, false>(step, r, u);
    write(dh + u, behind_product ? read(at<Value>(step.product, r * units + u))
                                 : take_dh<T>(step, place, u, flow));
    store_flow<T, false>(step, r, u, flow);
  }
  if constexpr (Cell::kCarriesC) {
    normalised_outputs_backward<T, Cell>(step, options, place, slots, scratch, dh);
  }
  for (Index u = thread_index(); u < units; u += thread_count()) {
    Value values[Cell::kSlots];
    for (int slot = 0; slot < Cell::kSlots; ++slot) values[slot] = read(slots + slot * units + u);
    auto around = states_around<T, Cell, kFirstOfTwo>(step, options, place, u, values);
    auto flow = load_flow<T, Cell::kCarriesC>(step, r, u);
    StepGradient<Value> gradient = {};
    (kFirstOfTwo ? gradient.dhidden : gradient.dh) = read(dh + u);
    Value past_c = Value(0);
    if constexpr (Cell::kCarriesC) {
      around.c = read(scratch + u);
      const auto dc = take_dc(step, place, u, flow);
      past_c = dc.old;
      gradient.dc = dc.made + read(scratch + units + u);
    }
    backward_cell<T, Cell, kPhase>(step, options, place, u, values, around, gradient, past_c, flow);
    store_flow<T, Cell::kCarriesC>(step, r, u, flow);
  }
  products_backward<T, Cell, kPhase>(step, place, slots);
}

}  // namespace cuda
}  // namespace rnncore
