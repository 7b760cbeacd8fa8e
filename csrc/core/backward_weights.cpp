// BackwardRun: gradients of the parameters, from those of the gates. See backward_run.h.
#include <algorithm>

#include "core/backward_run.h"
#include "core/packed_row.h"

namespace rnncore {
namespace {

// The next run of neighbours among gates of the parameters, from `after` on; empty at the end.
// Those of a coupled LSTM have a gap.
Range next_run(const int* order, int gates, int64_t after) {
  const auto has = [&](int64_t gate) {
    return std::find(order, order + gates, gate) != order + gates;
  };
  const int64_t most = gates ? *std::max_element(order, order + gates) + 1 : 0;
  Range run = {after, after};
  while (run.begin < most && !has(run.begin)) ++run.begin;
  run.end = run.begin;
  while (run.end < most && has(run.end)) ++run.end;
  return run;
}

}  // namespace

// A matrix, its place in the scratch and the caller's gradient of it.
template <class T>
typename BackwardRun<T>::Weight BackwardRun<T>::weight_of(int64_t layer, int64_t k,
                                                          Factor factor) const {
  const size_t which = static_cast<size_t>(layer * spec_.num_directions + k);
  const LayerGradients& given = call_.gradients[which];
  const int64_t height = spec_.gates() * spec_.hidden_size, inputs = spec_.layer_inputs(layer);
  const int64_t outputs = spec_.outputs(), biases = spec_.bias ? 2 * height : 0;
  Weight weight = {factor, inputs, nullptr, static_cast<T*>(given.weight_ih)};
  int64_t at = 0;
  if (factor == Factor::state_before || (factor == Factor::hidden && !spec_.proj_size)) {
    weight = {factor, outputs, nullptr, static_cast<T*>(given.weight_hh)};
    at = height * inputs;
  } else if (factor == Factor::hidden) {
    weight = {factor, spec_.hidden_size, nullptr, static_cast<T*>(given.weight_hr)};
    at = height * (inputs + outputs) + biases;
  }
  if (sums_wait_) weight.c = directions_[which].weights.template as<T>() + at;
  if (!adds_at_once_) weight.add_to = nullptr;
  return weight;
}

template <class T>
bool BackwardRun<T>::make_weights(Run& run, int index, int64_t layer, int64_t k,
                                  const Block& block) {
  if (!make_matrices(run, index, layer, k, block)) return false;
  if (spec_.bias) {
    sum_biases(index, layer, k, block);
    if (block.last) make_biases(index, layer, k);
  }
  if (!spec_.proj_size) return true;
  const T* doutput = gates_of(layer, k).doutput.template as<T>();
  const Gradients of_outputs = {doutput, padded(spec_.outputs()), output_columns_.as<int64_t>(), 0,
                                spec_.outputs()};
  const Weight projection = weight_of(layer, k, Factor::hidden);
  return make_products(run, index, layer, k, block, of_outputs, &projection, 1);
}

// dW and dU. Where both products share their gates' sums, they share the gradients too.
template <class T>
bool BackwardRun<T>::make_matrices(Run& run, int index, int64_t layer, int64_t k,
                                   const Block& block) {
  const CellShape& shape = packed_.shape;
  const Gates& gates = gates_of(layer, k);
  const NormalisedRows<T>& norm = gates.normalised;
  const int64_t units = spec_.hidden_size;
  Gradients in = {gates.slots, tape_.slots_stride, input_columns_.as<int64_t>(), 0, 0};
  Gradients re = {gates.slots, tape_.slots_stride, recurrent_columns_.as<int64_t>(), 0, 0};
  if (spec_.layer_norm) {
    in.rows = norm.input;
    in.stride = norm.input_stride;
    re.rows = norm.recurrent;
    re.stride = norm.recurrent_stride;
  }
  const bool shared =
      shape.input_slot == shape.recurrent_slot && !spec_.layer_norm && !shape.second_gates();
  const Weight weights[] = {weight_of(layer, k, Factor::input),
                            weight_of(layer, k, Factor::state_before)};
  const auto make = [&](Gradients& from, const int* order, int count, const Weight* which,
                        int matrices) {
    for (Range gate = next_run(order, count, 0); gate.begin < gate.end;
         gate = next_run(order, count, gate.end)) {
      from.begin = gate.begin * units;
      from.end = gate.end * units;
      if (!make_products(run, index, layer, k, block, from, which, matrices)) return false;
    }
    return true;
  };
  if (!make(in, shape.input_order, shape.input_gates, weights, shared ? 2 : 1)) return false;
  if (shared) return true;
  const int* order = shape.recurrent_order;
  if (!make(re, order, shape.first_gates, weights + 1, 1)) return false;
  if (!shape.second_gates()) return true;
  const Weight of_hidden = weight_of(layer, k, Factor::hidden);
  return make(re, order + shape.first_gates, shape.second_gates(), &of_hidden, 1);
}

// What a gradient is multiplied by at a packed row; `copy` takes it where it lies nowhere.
template <class T>
const T* BackwardRun<T>::factor_row(int64_t layer, int64_t k, Factor factor, const Block& block,
                                    int64_t s, int64_t r, T* copy) {
  const Direction& d = direction(layer, k);
  const int64_t packed = sequences_.offsets()[s] + r;
  if (factor == Factor::input) return d.x.from(0).at(s, r);
  if (factor == Factor::hidden) {
    return gates_of(layer, k).hidden + (packed - block.rows.begin) * padded(spec_.hidden_size);
  }
  if (d.options.fresh && d.options.fresh[packed]) return zeros_.template as<T>();
  const T* h = s ? d.y.from(0).at(s - 1, r) : d.h_initial.template as<T>() + r * state_stride_;
  if (!d.options.entering_mask) return h;
  kernels_.multiply(copy, h, d.options.entering_mask[r], spec_.outputs());
  return copy;
}

// Gradients of matrices: this member's rows of them, over a block's packed rows from the last one
// on.
template <class T>
bool BackwardRun<T>::make_products(Run& run, int index, int64_t layer, int64_t k,
                                   const Block& block, const Gradients& gradients,
                                   const Weight* weights, int count) {
  const Scratch& scratch = scratch_[static_cast<size_t>(index)];
  const Range mine = part_of(gradients.end - gradients.begin, index, threads_);
  OuterProduct<T> product;
  product.gradients_stride = -gradients.stride;
  product.gradient_columns = gradients.columns;
  product.begin = gradients.begin + mine.begin;
  product.end = gradients.begin + mine.end;
  product.factors = count;
  product.scratch = scratch.outer.template as<T>();
  product.strip = outer_strip(most_rows(), widest_factor());
  int64_t end = block.rows.end;
  do {
    product.length = std::min(end - block.rows.begin, kRowsAtOnce);
    const int64_t begin = end - product.length, last = end - 1 - block.rows.begin;
    product.gradients = gradients.rows + (product.length ? last * gradients.stride : 0);
    product.accumulate = !block.first || end < block.rows.end;
    product.finished = block.last && begin == block.rows.begin;
    for (int f = 0; f < count; ++f) {
      const Weight& weight = weights[f];
      const T** b = scratch.a.template as<const T*>() + f * kRowsAtOnce;
      product.factor[f] = {b, weight.width, weight.c, weight.add_to, weight.width};
      if (product.length == 0) continue;
      PackedRow at(sequences_, begin);
      for (int64_t i = product.length - 1; i >= 0; --i, at.next()) {
        T* entering = scratch.entering.template as<T>();
        T* copy = entering ? entering + i * spec_.outputs() : nullptr;
        b[i] = factor_row(layer, k, weight.factor, block, at.s, at.r, copy);
      }
    }
    kernels_.outer_product(product);
    end = begin;
    if (adds_at_once_) continue;
    if (index == 0) run.poll();
    if (!run.live()) return false;
  } while (end > block.rows.begin);
  return true;
}

// Both biases' gradients come from one sum of the slot rows.
template <class T>
void BackwardRun<T>::sum_biases(int index, int64_t layer, int64_t k, const Block& block) {
  const T* slots = gates_of(layer, k).slots;
  const int64_t rows = block.rows.end - block.rows.begin;
  const int64_t group_values = packed_.shape.slots * kGroup;
  const Range groups = part_of(padded(spec_.hidden_size) / kGroup, index, threads_);
  T* sums = direction(layer, k).bias_sums.template as<T>();
  const T* last = slots + (rows ? (rows - 1) * tape_.slots_stride : 0);
  for (int64_t group = groups.begin; group < groups.end; ++group) {
    const int64_t at = group * group_values;
    kernels_.sum_rows(last + at, -tape_.slots_stride, rows, 0, group_values, !block.first,
                      sums + at);
  }
}

template <class T>
void BackwardRun<T>::make_biases(int index, int64_t layer, int64_t k) {
  const Direction& d = direction(layer, k);
  const CellShape& shape = packed_.shape;
  const int64_t units = spec_.hidden_size, height = spec_.gates() * units;
  const LayerGradients& given =
      call_.gradients[static_cast<size_t>(layer * spec_.num_directions + k)];
  T* scratch = adds_at_once_ ? nullptr
                             : d.weights.template as<T>() +
                                   height * (spec_.layer_inputs(layer) + spec_.outputs());
  const Range groups = part_of(padded(units) / kGroup, index, threads_);
  const auto give = [&](const int* order, int gates, int first_slot, void* gradient, T* waiting) {
    for (int64_t group = groups.begin; group < groups.end; ++group) {
      const T* sums = d.bias_sums.template as<T>() + group * shape.slots * kGroup;
      const int64_t exist = std::min<int64_t>(kGroup, units - group * kGroup);
      for (int place = 0; place < gates; ++place) {
        const T* from = sums + (first_slot + place) * kGroup;
        const int64_t at = order[place] * units + group * kGroup;
        if (adds_at_once_) {
          kernels_.add(static_cast<T*>(gradient) + at, from, exist);
        } else {
          std::copy_n(from, exist, waiting + at);
        }
      }
    }
  };
  give(shape.input_order, shape.input_gates, shape.input_slot, given.bias_ih, scratch);
  give(shape.recurrent_order, shape.recurrent_gates, shape.recurrent_slot, given.bias_hh,
       scratch ? scratch + height : nullptr);
}

// In the order in which they lie there: that of the parameters.
template <class T>
typename BackwardRun<T>::WaitingList BackwardRun<T>::waiting(size_t which) const {
  const StackSpec& s = spec_;
  const int64_t height = s.gates() * s.hidden_size;
  const int64_t inputs = s.layer_inputs(static_cast<int64_t>(which) / s.num_directions);
  const T* sum = directions_[which].weights.template as<T>();
  WaitingList list;
  const auto next = [&](void* LayerGradients::* place, int64_t count) {
    list.parts[list.count++] = {place, sum, count};
    sum += count;
  };
  next(&LayerGradients::weight_ih, height * inputs);
  next(&LayerGradients::weight_hh, height * s.outputs());
  if (s.bias) {
    next(&LayerGradients::bias_ih, height);
    next(&LayerGradients::bias_hh, height);
  }
  if (s.proj_size) next(&LayerGradients::weight_hr, s.proj_size * s.hidden_size);
  return list;
}

// Each member adds up its share; then the calling thread's tells of the layer.
template <class T>
bool BackwardRun<T>::report(Run& run, int index, int64_t layer) {
  for (int64_t k = 0; k < spec_.num_directions; ++k) {
    const size_t which = static_cast<size_t>(layer * spec_.num_directions + k);
    for (const Waiting& part : waiting(which)) {
      const Range mine = part_of(part.count, index, threads_);
      const int64_t count = mine.end - mine.begin;
      T* total = static_cast<T*>(call_.report.totals[which].*part.place) + mine.begin;
      std::copy_n(static_cast<const T*>(call_.gradients[which].*part.place) + mine.begin, count,
                  total);
      kernels_.add(total, part.sum + mine.begin, count);
    }
  }
  if (!all_.wait(run)) return false;
  if (index == 0) {
    run.ask([&] { return call_.report.finished(call_.report.context, layer); });
  }
  return run.live();
}

template <class T>
void BackwardRun<T>::add_job(void* self, Run&, int index) {
  BackwardRun& b = *static_cast<BackwardRun*>(self);
  for (size_t i = 0; i < b.directions_.size(); ++i) {
    for (const Waiting& part : b.waiting(i)) {
      const Range mine = part_of(part.count, index, b.threads_);
      T* to = static_cast<T*>(b.call_.gradients[i].*part.place) + mine.begin;
      if (b.call_.overwrite) {
        std::copy_n(part.sum + mine.begin, mine.end - mine.begin, to);
      } else {
        b.kernels_.add(to, part.sum + mine.begin, mine.end - mine.begin);
      }
    }
  }
}

// Gradients of vectors: the rows' sums over t, summed over rows.
template <class T>
void BackwardRun<T>::add_vectors_job(void* self, Run&, int index) {
  BackwardRun& b = *static_cast<BackwardRun*>(self);
  const int64_t count = static_cast<int64_t>(b.directions_.size());
  for (int64_t i = index; i < count; i += b.threads_) b.add_vectors(i);
}

template <class T>
void BackwardRun<T>::add_vectors(int64_t which) {
  const UnitGradients& at = unit_places_;
  const CellShape& shape = packed_.shape;
  const int64_t units = spec_.hidden_size, wide = padded(units);
  const T* rows = directions_[static_cast<size_t>(which)].unit_gradients.template as<T>();
  const LayerGradients& to = call_.gradients[static_cast<size_t>(which)];
  T* sums = vector_sums_.as<T>() + which * at.size;
  kernels_.sum_rows(rows, at.size, sequences_.batch(), 0, at.size, false, sums);
  const auto add = [&](ptrdiff_t place, int gates, const int* order, void* gradient) {
    if (place < 0) return;
    T* g = static_cast<T*>(gradient);
    for (int i = 0; i < gates; ++i) {
      for (int64_t u = 0; u < units; ++u) {
        g[order[i] * units + u] += sums[place + (u / kGroup * gates + i) * kGroup + u % kGroup];
      }
    }
  };
  constexpr int kFirst[] = {0};
  for (int p = 0; p < 3 && at.peephole >= 0; ++p) {
    add(at.peephole + p * wide, 1, &p, to.peephole);
  }
  add(at.norm_input, shape.input_gates, shape.input_order, to.norm_ih);
  add(at.norm_recurrent, shape.recurrent_gates, shape.recurrent_order, to.norm_hh);
  add(at.norm_c, 1, kFirst, to.norm_c);
  add(at.norm_c_bias, 1, kFirst, to.norm_c_bias);
}

template <class T>
void BackwardRun<T>::clear_gradients() const {
  const int64_t units = spec_.hidden_size, height = spec_.gates() * units;
  const auto clear = [](void* array, int64_t count) {
    if (array) std::fill_n(static_cast<T*>(array), count, T(0));
  };
  for (size_t i = 0; i < directions_.size(); ++i) {
    const LayerGradients& to = call_.gradients[i];
    clear(to.peephole, 3 * units);
    clear(to.norm_ih, height);
    clear(to.norm_hh, height);
    clear(to.norm_c, units);
    clear(to.norm_c_bias, units);
    if (!adds_at_once_) continue;
    clear(to.weight_ih,
          height * spec_.layer_inputs(static_cast<int64_t>(i) / spec_.num_directions));
    clear(to.weight_hh, height * spec_.outputs());
    clear(to.bias_ih, height);
    clear(to.bias_hh, height);
    clear(to.weight_hr, spec_.proj_size * units);
  }
}

template <class T>
void BackwardRun<T>::add_gradients(Lease& lease) {
  if (!adds_at_once_) lease.run(threads_, Interrupt(), add_job, this);
  if (unit_places_.size) lease.run(threads_, Interrupt(), add_vectors_job, this);
}

template class BackwardRun<float>;
template class BackwardRun<double>;

}  // namespace rnncore
