// One step at a time, for audio, control and sensors: the state stays inside, nothing is allocated.
#pragma once

#include <memory>

#include "rnncore/stack.h"

namespace rnncore {

// Not to be stepped by two threads at once. Gives the bits of one call over the whole sequence.
class Stream {
 public:
  // A stack in one direction, which must outlive the stream; the state starts at zero.
  Stream(const PackedStack& packed, int64_t batch, int num_threads);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  const StackSpec& spec() const;
  int64_t batch() const;

  // x (batch, D), y (batch, P): rows any stride apart, in values; they may not overlap.
  void step(const void* x, int64_t x_row_stride, void* y, int64_t y_row_stride);

  void reset(const unsigned char* rows = nullptr);  // those that are not 0; null: all
  void get_state(void* h, void* c) const;           // (L, batch, P), (L, batch, H)
  void set_state(const void* h, const void* c);     // null: zero

  struct Content;

 private:
  std::unique_ptr<Content> content_;
};

}  // namespace rnncore
