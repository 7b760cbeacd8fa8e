// The mirror of persistent_forward.cuh: all steps of a few rows back through time in one kernel.
//
//   carry = sum over gates g and units j of da[g][j] U[g][j], then as in backward_step.cuh
//
// U's columns stay in registers; the gates' gradients of a step meet them in shared memory, and go
// to the slot rows for the products over all times that follow.
#pragma once

#include "cuda/backward_step.cuh"
#include "cuda/persistent.cuh"

namespace rnncore {
namespace cuda {

template <class T, class Cell, class CellOptions, int kWidth>
class BackwardBlock {
 public:
  using Value = Real<T>;
  static constexpr int kGates = Cell::kRecurrentGates, kRuns = kWidth / (kSplit * kRun);

  RNNCORE_DEVICE BackwardBlock(const PersistentBackward& given, const CellOptions& options)
      : step_(given.step), common_(given.step.common), seat_(seat_of()), options_(options) {
    live_ = seat_.unit < common_.units && seat_.row < common_.rows;
    const Index units = common_.units, unit = seat_.unit;
    const auto where = [=](int g, int k) { return (g * units + k) * units + unit; };
    load_weights(at<T>(given.recurrent, 0), seat_, units, where, weights_);
    if (Cell::kCarriesC && live_) {
      flow_.dc = read(at<Value>(step_.dc, seat_.row * common_.units + seat_.unit));
    }
  }

  RNNCORE_DEVICE void run() {
    const Index row = seat_.row < common_.rows ? seat_.row : 0;
    int turn = 0;
    const Value none[Cell::kSlots] = {};
    write_gradients(turn, false, none);
    block_barrier();
    clear_after_end(row);
    for (Index s = steps_of_block(common_) - 1; s >= 0; --s) {
      Place place = place_of(common_, s, row);
      place.alive = place.alive && live_;
      Value values[Cell::kSlots] = {};
      StepState<Value> around = {};
      if (place.alive) {
        load_slots(place, values);
        around = states_around<T, Cell, false>(step_, options_, place, seat_.unit, values);
      }
      flow_.product = multiply(turn);
      if (place.alive) {
        const Value d = take_dh<T>(step_, place, seat_.unit, flow_);
        backward_unit<T, Cell, 0>(step_, options_, place, seat_.unit, d, values, around, flow_);
      }
      turn = 1 - turn;
      write_gradients(turn, place.alive, values);
      block_barrier();
    }
    flow_.product = multiply(turn);
    if (live_) give_states(row);
  }

 private:
  RNNCORE_DEVICE Value* operand(int turn, int row, int gate) const {
    return reinterpret_cast<Value*>(shared_memory()) +
           ((turn * kRows + row) * kGates + gate) * kWidth;
  }

  RNNCORE_DEVICE void load_slots(const Place& place, Value* values) const {
    const Value* slots = row_at<Value>(step_.slots, place.t, place.r);
#pragma unroll
    for (int slot = 0; slot < Cell::kSlots; ++slot) {
      values[slot] = read(slots + slot * common_.units + seat_.unit);
    }
  }

  // Gradients of the step before times U, for this thread's row and unit.
  RNNCORE_DEVICE Value multiply(int turn) const {
    Value product = Value(0);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      Value sums[kGates] = {};
#pragma unroll
      for (int i = 0; i < kRuns; ++i) {
#pragma unroll
        for (int g = 0; g < kGates; ++g) {
          const auto d = read(reinterpret_cast<const Run<Value>*>(operand(turn, row, g) +
                                                                  run_start(seat_.part, i)));
#pragma unroll
          for (int j = 0; j < kRun; ++j) sums[g] = fma(weights_[g][i][j], d.v[j], sums[g]);
        }
      }
      Value sum = sums[0];
#pragma unroll
      for (int g = 1; g < kGates; ++g) sum += sums[g];
      sum = sum_parts(sum);
      if (row == seat_.part) product = sum;
    }
    return product;
  }

  // The gates' gradients of this thread's row and unit, from the slots of one that is alive.
  RNNCORE_DEVICE void write_gradients(int turn, bool alive, const Value* slots) const {
#pragma unroll
    for (int g = 0; g < kGates; ++g) {
      const Value d = slots[Phases<Cell>::slot(0) + g];
      write(operand(turn, seat_.part, g) + seat_.unit, alive ? d : Value(0));
    }
  }

  // Slots of memory past a row's end, where memory has them.
  RNNCORE_DEVICE void clear_after_end(Index row) const {
    if (!live_ || !step_.clears) return;
    for (Index s = length_of(common_.lengths, common_.steps, row); s < common_.steps; ++s) {
      clear_slots<T>(step_, row, s, seat_.unit, Cell::kSlots);
    }
  }

  RNNCORE_DEVICE void give_states(Index row) const {
    Place before = {};
    before.r = row;
    before.s = -1;
    const Index index = row * common_.units + seat_.unit;
    write(at<Value>(step_.dh, index), carry_of<T>(step_, before, seat_.unit, flow_));
    if (!Cell::kCarriesC) return;
    const bool fresh = place_of(common_, 0, row).fresh;
    write(at<Value>(step_.dc, index), fresh ? Value(0) : flow_.dc);
  }

  const BackwardStep& step_;
  const Steps& common_;
  const Seat seat_;
  const CellOptions& options_;
  bool live_;
  Value weights_[kGates][kRuns][kRun];
  Flow<Value> flow_ = {};
};

template <class T, class Cell, class CellOptions, int kWidth>
RNNCORE_DEVICE void persistent_backward(const PersistentBackward& given) {
  run_block<BackwardBlock<T, Cell, CellOptions, kWidth>, CellOptions>(given);
}

}  // namespace cuda
}  // namespace rnncore
