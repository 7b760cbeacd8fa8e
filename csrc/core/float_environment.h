// The floating-point environment of a call: round to nearest, subnormals are zero.
//
// Set on every thread that computes and restored afterwards, so that results depend neither on the
// caller's rounding mode nor on what a worker inherited, and signals that decay through the
// subnormal range do not cost twenty times as much.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cstdint>

namespace rnncore {

class FloatEnvironment {
 public:
#if defined(__x86_64__)
  FloatEnvironment() : saved_(_mm_getcsr()) { enter(); }
  ~FloatEnvironment() { leave(); }
  void enter() const { _mm_setcsr(kMasked | kFlush); }
  void leave() const { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kMasked = 0x1f80;          // all exceptions masked, no flag raised
  static constexpr unsigned kFlush = 0x8000 | 0x0040;  // flush to zero, denormals are zero
  unsigned saved_;
#elif defined(__aarch64__)
  FloatEnvironment() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    enter();
  }
  ~FloatEnvironment() { leave(); }
  void enter() const {
    const uint64_t flush = uint64_t{1} << 24;
    asm volatile("msr fpcr, %0" : : "r"(flush));
  }
  void leave() const { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#else
#error "rnncore runs on x86-64 and aarch64"
#endif

 public:
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;
};

}  // namespace rnncore
