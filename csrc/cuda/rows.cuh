// What is done with whole sequences and weights around the recurrence: copies between a caller's
// layout and rows side by side, weights in the order of slots, sums over rows.
#pragma once

#include "cuda/options.cuh"

namespace rnncore {
namespace cuda {

// A row at a time, for threads that stride over all of them; grids are smaller than sequences.
template <class Work>
RNNCORE_DEVICE void for_each_value(Index count, const Work& work) {
  const Index stride = static_cast<Index>(blocks_x()) * thread_count();
  Index i = static_cast<Index>(block_x()) * thread_count() + thread_index();
  for (; i < count; i += stride) work(i);
}

template <class To, class From, class Mask>
RNNCORE_DEVICE void copy_rows(const CopyRows& copy) {
  for_each_value(copy.steps * copy.rows * copy.features, [&](Index i) {
    const Index f = i % copy.features, row = i / copy.features;
    const Index r = row % copy.rows, t = row / copy.rows;
    const bool alive = t < length_of(copy.lengths, copy.steps, r);
    if (!alive && !copy.clears) return;
    To* to = row_at<To>(copy.out, t, r) + f;
    if (!alive) return store(to, Real<To>(0));
    Real<To> value = load(row_at<From>(copy.in, t, r) + f);
    if (copy.mask.data) value *= load(row_at<Mask>(copy.mask, t, r) + f);
    store(to, value);
  });
}

// What entered U at every time: h of the step before, times the mask.
template <class T>
RNNCORE_DEVICE void gather_entering(const GatherEntering& gather) {
  const Steps& common = gather.common;
  for_each_value(common.steps * common.rows * common.outputs, [&](Index i) {
    const Index u = i % common.outputs, row = i / common.outputs;
    const Index r = row % common.rows, s = row / common.rows;
    const Place place = place_of(common, s, r);
    if (!place.alive) {
      if (gather.clears) store(row_at<T>(gather.before, s, r) + u, Real<T>(0));
      return;
    }
    Real<T> h = Real<T>(0);
    if (!place.fresh) {
      h = s ? load(row_at<T>(gather.y, time_before(common, place), r) + u)
            : read(at<Real<T>>(gather.h_initial, r * common.outputs + u));
    }
    store(row_at<T>(gather.before, place.t, r) + u, h * entering_factor<T>(common, r, u));
  });
}

// States of rows in another order; `entering` is the state as it enters U.
template <class T>
RNNCORE_DEVICE void copy_states(const CopyStates& copy) {
  using Value = Real<T>;
  for_each_value(copy.rows * copy.units, [&](Index i) {
    const Index r = i / copy.units, u = i % copy.units;
    const Index n = copy.order ? read(copy.order + r) : r;
    const Index from = copy.scatter ? r : n, to = copy.scatter ? n : r;
    const Value value = copy.from ? read(at<Value>(copy.from, from * copy.units + u)) : Value(0);
    write(at<Value>(copy.to, to * copy.units + u), value);
    if (!copy.entering) return;
    Value factor = Value(1);
    if (copy.mask.data) factor = load(row_at<T>(copy.mask, 0, r) + u);
    store(at<T>(copy.entering, to * copy.units + u), value * factor);
  });
}

// Weights to slots' order, in the type that products multiply.
template <class T>
RNNCORE_DEVICE void pack_gates(const MoveGates& move) {
  const Index block = move.units * move.columns;
  for_each_value(move.gates * block, [&](Index i) {
    const Index from = move.order[i / block] * block + i % block;
    store(at<T>(move.to, i), read(at<Real<T>>(move.from, from)));
  });
}

// Gradients back to the parameters' order, where they are added.
template <class Value>
RNNCORE_DEVICE void add_gates(const MoveGates& move) {
  const Index block = move.units * move.columns;
  for_each_value(move.gates * block, [&](Index i) {
    Value* to = at<Value>(move.to, move.order[i / block] * block + i % block);
    write(to, read(to) + read(at<Value>(move.from, i)));
  });
}

template <class Value>
RNNCORE_DEVICE void pack_bias(const PackBias& pack) {
  for_each_value(pack.slots * pack.units, [&](Index i) {
    const int slot = static_cast<int>(i / pack.units);
    const Index u = i % pack.units;
    Value sum = Value(0);
    if (pack.bias_ih && pack.input[slot] >= 0) {
      sum += read(at<Value>(pack.bias_ih, pack.input[slot] * pack.units + u));
    }
    if (pack.bias_hh && pack.recurrent[slot] >= 0) {
      sum += read(at<Value>(pack.bias_hh, pack.recurrent[slot] * pack.units + u));
    }
    write(at<Value>(pack.bias, i), sum);
  });
}

// Sums over rows in parts of `height`, a thread for a part and column: called again on the parts
// until one is left. The order depends on the sizes alone.
template <class Value>
RNNCORE_DEVICE void sum_rows(const SumRows& sum) {
  const Index parts = (sum.rows + sum.height - 1) / sum.height;
  for_each_value(parts * sum.columns, [&](Index i) {
    const Index column = i % sum.columns, first = i / sum.columns * sum.height;
    const Index end = first + sum.height < sum.rows ? first + sum.height : sum.rows;
    Value total = Value(0);
    for (Index row = first; row < end; ++row) {
      total += read(at<Value>(sum.in, row * sum.stride + column));
    }
    write(at<Value>(sum.parts, i), total);
  });
}

}  // namespace cuda
}  // namespace rnncore
