// Which batch rows run at which step, and where their values are.
//
// Rows are ordered by falling length, so that a step runs a prefix of them and dead rows cost
// nothing. `order` and `length` are by rank in that order; everything inside the core counts rows
// by rank, and only addresses into a caller's arrays know the caller's order.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory.h"
#include "kernels/kernel_table.h"
#include "rnncore/types.h"

namespace rnncore {

class Sequences {
 public:
  Sequences() = default;
  Sequences(int64_t steps, int64_t batch, const int64_t* lengths,
            const unsigned char* resets = nullptr);

  int64_t batch() const { return batch_; }
  int64_t all_steps() const { return all_steps_; }  // T
  int64_t steps() const { return steps_; }          // of the longest sequence
  int64_t live() const { return steps_ ? offsets()[steps_] : 0; }
  bool ragged() const { return ragged_; }
  const int64_t* order() const { return order_.as<int64_t>(); }
  const int64_t* length() const { return length_.as<int64_t>(); }
  const int64_t* offsets() const { return offsets_.as<int64_t>(); }  // steps() + 1 of them
  int64_t alive(int64_t s) const { return offsets()[s + 1] - offsets()[s]; }
  // By packed row of one direction: 1 where the state before the step is replaced by zeros, since a
  // segment starts. Null: nowhere.
  const unsigned char* fresh(bool reversed) const { return fresh_[reversed].as<unsigned char>(); }

  // Fills first[rank] with where step 0 of each row is, for a forward or a reversed direction, in
  // an array whose rows are in the caller's order, or by rank.
  template <class T>
  ptrdiff_t locate(T* data, int64_t time_stride, int64_t row_stride, bool reversed, bool by_rank,
                   T** first) const {
    for (int64_t r = 0; r < batch_; ++r) {
      const int64_t row = by_rank ? r : order()[r];
      const int64_t t = reversed && length()[r] ? length()[r] - 1 : 0;
      first[r] = data + row * row_stride + t * time_stride;
    }
    return reversed ? -time_stride : time_stride;
  }

 private:
  void mark_segments(const unsigned char* resets);

  int64_t all_steps_ = 0, steps_ = 0, batch_ = 0;
  bool ragged_ = false;
  Buffer order_, length_, offsets_, fresh_[2];
};

}  // namespace rnncore
