// How the work of a call is split among threads: directions x hidden units x batch rows.
//
// Rows need no barrier, so they go first where there are enough of them; units make each thread's
// slice of the weights small enough for its own cache, at one barrier a step. Which of them is
// faster follows from a cost model of one step, from sizes alone. The split never changes a bit.
#pragma once

#include <cstdint>

namespace rnncore {

struct Work {
  int64_t steps = 0;  // of the longest sequence
  int64_t live = 0;   // rows that are alive, over all steps
  int64_t rows = 0;   // N
  int64_t directions = 1;
  int64_t layers = 1;
  int64_t groups = 1;  // of 16 hidden units
  int64_t gates = 4;
  int64_t inputs = 1;   // of a layer
  int64_t outputs = 1;  // P
  int64_t item_size = 4;
  double weight_size = 4;  // bytes of a weight as packed
  int64_t lanes = 16;
  int64_t meetings = 1;  // of the members that share units, in a step
};

struct Plan {
  int directions = 1, units = 1, rows = 1;  // parts of each
  int64_t chunk = 1;                        // steps whose input projection is made at a time
  int64_t turn = 1;    // steps that one layer does before the next one: some chunks
  bool fused = false;  // W x is made step by step, in the tile that U h is added to

  int members() const { return directions * units * rows; }
};

// One member's place in the plan.
struct Member {
  int direction, unit, row;
};

inline Member member_of(const Plan& plan, int index) {
  const int unit = index % plan.units, rest = index / plan.units;
  return {rest % plan.directions, unit, rest / plan.directions};
}

// Part `part` of `parts` of a range: nearly equal, in order.
struct Range {
  int64_t begin, end;
};
inline Range part_of(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

Plan make_plan(const Work& work, int threads);

// Seconds that the recurrence of one layer takes by the model; for tests and show.
double modelled_seconds(const Work& work, const Plan& plan);

}  // namespace rnncore
