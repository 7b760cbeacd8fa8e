// Aligned memory for panels, tapes and scratch.
//
// Blocks of 2 MiB and more are aligned to huge pages and ask for them: streaming 16 MB of weights
// from 4 KB pages halves the rate. Freed blocks are kept for the next call, up to a bound, since
// fresh pages cost about as much as a pass over them. Counters and an injected failure serve tests.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rnncore {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // throws std::bad_alloc; contents are arbitrary
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // Someone else's memory, which outlives this object.
  static Buffer at(void* memory, size_t bytes);
  template <class T>
  static Buffer of(int64_t count) {
    return Buffer(checked_bytes(count, sizeof(T)));
  }
  template <class T>
  static Buffer zeros(int64_t count) {
    Buffer buffer = of<T>(count);
    buffer.clear();
    return buffer;
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t size() const { return size_; }
  void clear();
  explicit operator bool() const { return data_ != nullptr; }

 private:
  static size_t checked_bytes(int64_t count, size_t item);
  void* data_ = nullptr;
  size_t size_ = 0;  // as asked
  bool owned_ = true;
};

}  // namespace rnncore
