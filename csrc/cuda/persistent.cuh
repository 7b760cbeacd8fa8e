// What both persistent loops share: how a block that keeps a cell's U in registers is laid out.
//
// A block has kRows rows of the batch and all units, kWidth of them with padding. Four neighbouring
// lanes have one unit: of its products each makes a quarter, and when these are summed each has one
// of the block's four rows for everything pointwise. A quarter is every fourth run of four values,
// so that the lanes of a warp read h from shared memory in one piece.
//
//   registers: U [gates][kWidth / 4] a thread
//   shared:    the operand of the next product, [2][kRows][...]: one barrier a step
#pragma once

#include "cuda/options.cuh"

namespace rnncore {
namespace cuda {

constexpr int kSplit = 4, kRun = 4, kRows = kSplit;

template <class Value>
struct alignas(16) Run {
  Value v[kRun];
};

// Of the k-values of a unit's product, the first of a quarter's i-th run.
RNNCORE_DEVICE int run_start(int part, int i) { return (i * kSplit + part) * kRun; }

// Sums over the four lanes of a unit, for all of them.
template <class Value>
RNNCORE_DEVICE Value sum_parts(Value value) {
  value += shuffle_xor(value, 1);
  return value + shuffle_xor(value, 2);
}

// A thread's unit, its part of a unit's products, and the row that it has.
struct Seat {
  int unit, part;
  Index row;
};

RNNCORE_DEVICE Seat seat_of() {
  const int thread = thread_index();
  const int part = thread % kSplit;
  return {thread / kSplit, part, static_cast<Index>(block_x()) * kRows + part};
}

// A thread's part of U, in which gate g's weight of the unit's k-th value is at where(g, k).
template <class T, int kGates, int kRuns, class Where>
RNNCORE_DEVICE void load_weights(const T* recurrent, const Seat& seat, Index units,
                                 const Where& where, Real<T> (&weights)[kGates][kRuns][kRun]) {
#pragma unroll
  for (int g = 0; g < kGates; ++g) {
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
#pragma unroll
      for (int j = 0; j < kRun; ++j) {
        const int k = run_start(seat.part, i) + j;
        const bool there = seat.unit < units && k < units;
        weights[g][i][j] = there ? load(recurrent + where(g, k)) : Real<T>(0);
      }
    }
  }
}

// Steps until the last row of the block has ended, alike for all of its threads.
RNNCORE_DEVICE Index steps_of_block(const Steps& common) {
  Index longest = 0;
  for (int i = 0; i < kRows; ++i) {
    const Index row = static_cast<Index>(block_x()) * kRows + i;
    if (row >= common.rows) break;
    const Index length = length_of(common.lengths, common.steps, row);
    if (length > longest) longest = length;
  }
  return longest;
}

// All steps of a block. The options are not the block's own: asked from calls that are not inlined,
// they have an address, and an object with an address is not kept in registers.
template <class Block, class CellOptions, class Arguments>
RNNCORE_DEVICE void run_block(const Arguments& given) {
  CellOptions options;
  take_options(given.step.common.options, options);
  Block(given, options).run();
}

}  // namespace cuda
}  // namespace rnncore
