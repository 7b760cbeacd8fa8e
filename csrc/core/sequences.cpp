#include "core/sequences.h"

#include <algorithm>
#include <numeric>

namespace rnncore {

Sequences::Sequences(int64_t steps, int64_t batch, const int64_t* lengths,
                     const unsigned char* resets)
    : all_steps_(steps), steps_(steps), batch_(batch) {
  order_ = Buffer::of<int64_t>(batch);
  length_ = Buffer::of<int64_t>(batch);
  int64_t* order = order_.as<int64_t>();
  int64_t* length = length_.as<int64_t>();
  std::iota(order, order + batch, int64_t{0});
  if (lengths) {
    ragged_ = std::any_of(lengths, lengths + batch, [&](int64_t n) { return n != steps; });
    std::stable_sort(order, order + batch,
                     [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    steps_ = batch ? lengths[order[0]] : 0;
  } else if (!batch) {
    steps_ = 0;
  }
  for (int64_t r = 0; r < batch; ++r) length[r] = lengths ? lengths[order[r]] : steps;
  offsets_ = Buffer::of<int64_t>(steps_ + 1);
  int64_t* offsets = offsets_.as<int64_t>();
  offsets[0] = 0;
  int64_t alive = batch;
  for (int64_t s = 0; s < steps_; ++s) {
    while (alive && length[alive - 1] <= s) --alive;
    offsets[s + 1] = offsets[s] + alive;
  }
  if (resets) mark_segments(resets);
}

// A segment starts at time t where resets says so: the forward direction comes there from t - 1,
// the reversed one comes to t - 1 from there.
void Sequences::mark_segments(const unsigned char* resets) {
  for (Buffer& flags : fresh_) flags = Buffer::zeros<unsigned char>(live());
  for (int64_t s = 0; s < steps_; ++s) {
    for (int64_t r = 0; r < alive(s); ++r) {
      const int64_t packed = offsets()[s] + r, row = order()[r];
      fresh_[0].as<unsigned char>()[packed] = resets[s * batch_ + row];
      if (s == 0) continue;
      const int64_t after = length()[r] - s;  // the time that the reversed direction comes from
      fresh_[1].as<unsigned char>()[packed] = resets[after * batch_ + row];
    }
  }
}

}  // namespace rnncore
