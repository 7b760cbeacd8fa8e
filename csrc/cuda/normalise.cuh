// Layer norm of a product's row: a block has the row, so that its mean and deviation are made by
// threads that can wait for one another.
//
//   n = (a - mean(a)) / sqrt(var(a) + 1e-5);   a = the gates of W x, or of U h, side by side
//
// Sums run over the row with the block's stride, then over lanes by a fixed tree: the same bits in
// every run.
#pragma once

#include "cuda/values.cuh"

namespace rnncore {
namespace cuda {

constexpr int kWarp = 32, kMostWarps = 32;
constexpr double kNormEpsilon = 1e-5;

// The sum of every thread's value, for all threads. The block is of whole warps.
template <class Value>
RNNCORE_DEVICE Value block_sum(Value value) {
  Value* parts = reinterpret_cast<Value*>(shared_memory());
#pragma unroll
  for (int mask = kWarp / 2; mask; mask /= 2) value += shuffle_xor(value, mask);
  block_barrier();  // parts may still be read from the sum before
  const int lane = thread_index() % kWarp, warp = thread_index() / kWarp;
  if (lane == 0) write(parts + warp, value);
  block_barrier();
  Value sum = Value(0);
  for (int w = 0; w < thread_count() / kWarp; ++w) sum += read(parts + w);
  return sum;
}

template <class Value>
struct Moments {
  Value mean, inverse;
};

// Of `width` values that of(i) gives; each thread asks for its own alone.
template <class Value, class Of>
RNNCORE_DEVICE Moments<Value> moments(Index width, const Of& of) {
  Value sum = Value(0);
  for (Index i = thread_index(); i < width; i += thread_count()) sum += of(i);
  const Value mean = block_sum(sum) / static_cast<Value>(width);
  Value squares = Value(0);
  for (Index i = thread_index(); i < width; i += thread_count()) {
    const Value less = of(i) - mean;
    squares = fma(less, less, squares);
  }
  const Value variance = block_sum(squares) / static_cast<Value>(width);
  return {mean, Value(1) / square_root(variance + constant<Value>(kNormEpsilon))};
}

// What layer norm's gradient takes off: with g the gradient of the normalised values n,
// da = (g - mean(g) - n mean(g n)) / deviation. of(i) gives g, normed(i) gives n.
template <class Value>
struct Common {
  Value mean, along;
};

template <class Value, class Gradient, class Normed>
RNNCORE_DEVICE Common<Value> common_gradient(Index width, const Gradient& of,
                                             const Normed& normed) {
  Value sum = Value(0), along = Value(0);
  for (Index i = thread_index(); i < width; i += thread_count()) {
    const Value gradient = of(i);
    sum += gradient;
    along = fma(gradient, normed(i), along);
  }
  const Value mean = block_sum(sum) / static_cast<Value>(width);
  return {mean, block_sum(along) / static_cast<Value>(width)};
}

// A block for a row of W x, at any time.
template <class Value>
RNNCORE_DEVICE void normalise_rows(const NormaliseRows& rows) {
  const Index r = block_x() % rows.rows;
  for (Index t = block_x() / rows.rows; t < rows.steps; t += blocks_x() / rows.rows) {
    if (t >= length_of(rows.lengths, rows.steps, r)) continue;
    Value* row = row_at<Value>(rows.values, t, r);
    const auto moment = moments<Value>(rows.width, [&](Index i) { return read(row + i); });
    for (Index i = thread_index(); i < rows.width; i += thread_count()) {
      write(row + i, (read(row + i) - moment.mean) * moment.inverse);
    }
    if (thread_index() == 0) write(row_at<Value>(rows.inverse, t, r), moment.inverse);
  }
}

}  // namespace cuda
}  // namespace rnncore
