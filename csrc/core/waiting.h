// How a thread waits for a word to change: a while on its CPU, then asleep.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <ctime>

namespace rnncore {

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One turn of waiting. Who waits longer than members are usually apart may have the CPU of the one
// that it waits for.
inline void spin(int turn) {
  constexpr int kPatience = 256, kEvery = 64;
  if (turn >= kPatience && turn % kEvery == 0) {
    sched_yield();
  } else {
    pause_cpu();
  }
}

inline void sleep_on(std::atomic<int>& word, int value, const timespec* limit = nullptr) {
  syscall(SYS_futex, reinterpret_cast<int*>(&word), FUTEX_WAIT_PRIVATE, value, limit, nullptr, 0);
}

// Sleeps while `word` is `value`, 10 ms at most, so that a cancelled run is noticed.
inline void sleep_while(std::atomic<int>& word, int value) {
  const timespec limit = {0, 10'000'000};
  sleep_on(word, value, &limit);
}

inline void wake_all(std::atomic<int>& word) {
  syscall(SYS_futex, reinterpret_cast<int*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr,
          0);
}

}  // namespace rnncore
