// All steps of a few rows in one kernel, for layers whose U fits into the registers of a block.
//
//   gates = bias + W x + U h, and so on as in forward_step.cuh
//
// h stays in shared memory as U's product reads it, the carried states in registers; W x comes from
// the slot rows and y, c and gates go to memory as in recurrence_forward.cuh.
#pragma once

#include "cuda/forward_step.cuh"
#include "cuda/persistent.cuh"

namespace rnncore {
namespace cuda {

template <class T, class Cell, class CellOptions, int kWidth>
class ForwardBlock {
 public:
  using Value = Real<T>;
  static constexpr int kGates = Cell::kRecurrentGates, kRuns = kWidth / (kSplit * kRun);

  RNNCORE_DEVICE ForwardBlock(const PersistentForward& given, const CellOptions& options)
      : step_(given.step), common_(given.step.common), seat_(seat_of()), options_(options) {
    live_ = seat_.unit < common_.units && seat_.row < common_.rows;
    const Index units = common_.units, unit = seat_.unit;
    const auto where = [=](int g, int k) { return (g * units + unit) * units + k; };
    load_weights(at<T>(given.recurrent, 0), seat_, units, where, weights_);
    if (!live_) return;
    const Index index = seat_.row * common_.units + seat_.unit;
    carried_.h = read(at<Value>(step_.h, index));
    if (Cell::kCarriesC) carried_.c = read(at<Value>(step_.c, index));
  }

  RNNCORE_DEVICE void run() {
    const Index steps = steps_of_block(common_);
    Place place = place_of(common_, 0, seat_.row < common_.rows ? seat_.row : 0);
    place.alive = place.alive && live_;
    write_entering(place, 0);
    block_barrier();
    for (Index s = 0; s < steps; ++s) {
      Value values[Cell::kSlots];
      if (place.alive) {
        load_gates<Cell, 0>(step_, row_at<Value>(step_.slots, place.t, place.r), seat_.unit,
                            values);
      }
      Value products[kGates];
      multiply(static_cast<int>(s % 2), products);
      if (place.alive) finish_step(place, products, values);
      place = place_of(common_, s + 1, place.r);
      place.alive = place.alive && live_;
      write_entering(place, static_cast<int>((s + 1) % 2));
      block_barrier();
    }
    if (!live_) return;
    const Index index = seat_.row * common_.units + seat_.unit;
    write(at<Value>(step_.h, index), carried_.h);
    if (Cell::kCarriesC) write(at<Value>(step_.c, index), carried_.c);
  }

 private:
  RNNCORE_DEVICE Value* operand(int turn, int row) const {
    return reinterpret_cast<Value*>(shared_memory()) + (turn * kRows + row) * kWidth;
  }

  // U h for this thread's row and unit.
  RNNCORE_DEVICE void multiply(int turn, Value* products) const {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      Value sums[kGates] = {};
#pragma unroll
      for (int i = 0; i < kRuns; ++i) {
        const auto h = read(
            reinterpret_cast<const Run<Value>*>(operand(turn, row) + run_start(seat_.part, i)));
#pragma unroll
        for (int j = 0; j < kRun; ++j) {
#pragma unroll
          for (int g = 0; g < kGates; ++g) sums[g] = fma(weights_[g][i][j], h.v[j], sums[g]);
        }
      }
#pragma unroll
      for (int g = 0; g < kGates; ++g) {
        const Value sum = sum_parts(sums[g]);
        if (row == seat_.part) products[g] = sum;
      }
    }
  }

  RNNCORE_DEVICE void finish_step(const Place& place, const Value* products, Value* values) {
    const Index u = seat_.unit;
    add_products<Cell, 0>(products, values);
    if (place.fresh) carried_ = {};
    const Value old = carried_.h;
    const Value made = forward_cell<Cell, 0>(step_, options_, place, u, Value(0), values, carried_);
    store_gates<Cell, 0>(step_, row_at<Value>(step_.slots, place.t, place.r), u, values);
    carried_.h = carry_h<T>(step_, place, u, old, made);
  }

  // h as it enters the product of the step that `place` is at.
  RNNCORE_DEVICE void write_entering(const Place& place, int turn) const {
    Value h = Value(0);
    if (place.alive && !place.fresh) {
      h = carried_.h * entering_factor<T>(common_, place.r, seat_.unit);
    }
    write(operand(turn, seat_.part) + seat_.unit, h);
  }

  const ForwardStep& step_;
  const Steps& common_;
  const Seat seat_;
  const CellOptions& options_;
  bool live_;
  Value weights_[kGates][kRuns][kRun];
  Carried<Value> carried_ = {};
};

template <class T, class Cell, class CellOptions, int kWidth>
RNNCORE_DEVICE void persistent_forward(const PersistentForward& given) {
  run_block<ForwardBlock<T, Cell, CellOptions, kWidth>, CellOptions>(given);
}

}  // namespace cuda
}  // namespace rnncore
