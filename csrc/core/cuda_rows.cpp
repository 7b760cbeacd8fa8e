#include "core/cuda_rows.h"

#include <algorithm>
#include <numeric>

namespace rnncore {

CudaRows::CudaRows(int64_t steps, int64_t batch, const int64_t* host_lengths,
                   const int32_t* lengths)
    : steps_(steps), batch_(batch), total_(steps * batch), device_lengths_(lengths) {
  const auto is_full = [&](int64_t length) { return length == steps; };
  if (!host_lengths || std::all_of(host_lengths, host_lengths + batch, is_full)) return;
  order_.resize(static_cast<size_t>(batch));
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int32_t a, int32_t b) { return host_lengths[a] > host_lengths[b]; });
  for (const int32_t n : order_) lengths_.push_back(static_cast<int32_t>(host_lengths[n]));
  offsets_.assign(1, 0);
  int64_t alive = batch;
  for (int64_t t = 0; t < steps; ++t) {
    while (alive && lengths_[static_cast<size_t>(alive - 1)] <= t) --alive;
    offsets_.push_back(offsets_.back() + alive);
  }
  total_ = offsets_.back();
}

int64_t CudaRows::alive(int64_t s) const {
  if (!sorted()) return batch_;
  const size_t at = static_cast<size_t>(s);
  return offsets_[at + 1] - offsets_[at];
}

void CudaRows::place(CudaCarve& carve) {
  if (!sorted()) return;
  device_order_ = static_cast<const int*>(carve.take(batch_, 4));
  device_lengths_ = static_cast<const int*>(carve.take(batch_, 4));
  device_offsets_ = static_cast<const Index*>(carve.take(steps_ + 1, 8));
}

void CudaRows::upload(const CudaCall& call) const {
  if (!sorted()) return;
  call.upload(const_cast<int*>(device_order_), order_.data(), order_.size() * 4);
  call.upload(const_cast<int*>(device_lengths_), lengths_.data(), lengths_.size() * 4);
  call.upload(const_cast<Index*>(device_offsets_), offsets_.data(), offsets_.size() * 8);
}

Rows CudaRows::own(void* data, int64_t width) const {
  if (sorted()) return {data, width, width, device_offsets_, nullptr};
  if (batch_first_) return {data, width, steps_ * width, nullptr, nullptr};
  return {data, batch_ * width, width, nullptr, nullptr};
}

}  // namespace rnncore
