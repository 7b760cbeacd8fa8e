// Which rows of memory a batch's steps have on a device, and the tables by which kernels find them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/cuda_call.h"

namespace rnncore {

using cuda::Index;
using cuda::Rows;

// Takes arrays one after another from a block of device memory, or, without one, counts bytes.
// Arrays start at multiples of 16 bytes: as wide as any load, cuBLAS' own among them, and narrow
// enough for a tape whose size is a number of values for each step and row (cuda_tape_width).
class CudaCarve {
 public:
  explicit CudaCarve(void* base) : base_(static_cast<char*>(base)) {}
  void* take(int64_t count, int64_t item_size) {
    void* taken = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<size_t>(count * item_size) + 15) / 16 * 16;
    return taken;
  }
  size_t used() const { return used_; }
  bool measures() const { return !base_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Lengths that the host knows sort the rows, longest first: memory then has live rows alone, and a
// step runs a prefix of them. Lengths that are on the device leave rows as they are, and kernels
// pass over those that have ended.
class CudaRows {
 public:
  CudaRows(int64_t steps, int64_t batch, const int64_t* host_lengths, const int32_t* lengths);

  int64_t steps() const { return steps_; }
  int64_t batch() const { return batch_; }
  int64_t total() const { return total_; }  // rows of memory that a sequence has
  int64_t alive(int64_t s) const;           // rows that may be alive at a step: the first ones
  bool sorted() const { return !order_.empty(); }
  bool ragged() const { return sorted() || device_lengths_; }
  // Whether memory has rows that ended: what is summed over must be zero there.
  bool has_dead_rows() const { return device_lengths_ && !sorted(); }

  // Takes the tables' memory; the call that does so with memory fills it.
  void place(CudaCarve& carve);
  void upload(const CudaCall& call) const;

  const int* lengths() const { return device_lengths_; }  // by row of memory
  const int* order() const { return device_order_; }
  // Rows of the core's own arrays: values side by side, `width` of them from `data` on.
  Rows own(void* data, int64_t width) const;
  // A caller's array, by its own order.
  Rows given(const void* data, int64_t time_stride, int64_t row_stride) const {
    return {const_cast<void*>(data), time_stride, row_stride, nullptr, device_order_};
  }
  // Own arrays then follow a batch-first x, so that it needs no copy.
  void follow_batch_first() { batch_first_ = true; }

 private:
  int64_t steps_, batch_, total_;
  bool batch_first_ = false;
  std::vector<int32_t> order_, lengths_;
  std::vector<Index> offsets_;
  const int *device_order_ = nullptr, *device_lengths_ = nullptr;
  const Index* device_offsets_ = nullptr;
};

}  // namespace rnncore
