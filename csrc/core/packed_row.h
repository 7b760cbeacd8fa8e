// Packed rows as steps and ranks.
#pragma once

#include <algorithm>

#include "core/sequences.h"

namespace rnncore {

// Walks packed rows in order, as step and rank.
struct PackedRow {
  const Sequences& sequences;
  int64_t s, r;

  PackedRow(const Sequences& all, int64_t packed) : sequences(all) {
    const int64_t* offsets = all.offsets();
    s = std::upper_bound(offsets, offsets + all.steps() + 1, packed) - offsets - 1;
    r = packed - offsets[s];
  }
  void next() {
    if (++r < sequences.alive(s)) return;
    r = 0;
    ++s;
  }
};

}  // namespace rnncore
