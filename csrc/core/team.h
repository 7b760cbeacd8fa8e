// The thread team: one for the process, woken once a call, not once a step.
//
// A caller leases it; who comes while it is taken runs alone, with the same bits. Members spin for
// some microseconds at a barrier, then sleep, and at once where there are more of them than CPUs.
// It starts at the first parallel call, never at import, and survives fork: the child starts anew.
// Where a host lends the threads of its OpenMP runtime, they are the members instead.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/float_environment.h"
#include "rnncore/threads.h"
#include "rnncore/types.h"

namespace rnncore {

constexpr int kMaxThreads = 256;

// What the members of one parallel run share.
struct Run {
  std::atomic<int> cancelled{0};
  int spins = 0;  // before a waiting member sleeps
  Interrupt interrupt;
  const FloatEnvironment* environment = nullptr;  // of member 0, whom the interrupt is asked by
  std::chrono::steady_clock::time_point next_poll;

  // Called by member 0: what answers may run any code of the caller's, in the caller's environment.
  template <class Answer>
  void ask(const Answer& stop) {
    environment->leave();
    const bool stops = stop();
    environment->enter();
    if (stops) cancelled.store(1, std::memory_order_relaxed);
  }
  // Called by member 0 between pieces of work: asks the interrupt about every 50 ms.
  void poll();
  // The same between steps, which may be so short that reading the clock shows: steps are then let
  // pass, as many as take about a millisecond.
  void poll_step() {
    if (passed++ < passing) return;
    passed = 0;
    poll_after_steps();
  }
  void poll_after_steps();
  // Written at every step: apart from `cancelled`, which all members read.
  alignas(64) int passed = 0;
  int passing = 0;
  std::chrono::steady_clock::time_point last_step;

  bool live() const { return cancelled.load(std::memory_order_relaxed) == 0; }
};

// Where a fixed number of members meet. False: the run was cancelled, leave.
class Barrier {
 public:
  void reset(int members);
  bool wait(Run& run);

 private:
  int members_ = 1;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
  std::atomic<int> sleepers_{0};
};

// What a member does between the steps of a recurrence.
struct StepGate {
  Run* run;
  Barrier* barrier;  // of the members that share its units
  bool polls;

  static bool proceed(void* gate) {
    const StepGate& self = *static_cast<StepGate*>(gate);
    if (self.polls) self.run->poll_step();
    return self.barrier->wait(*self.run);
  }
};

class Team;

// The right to run jobs on up to `wanted` threads, the caller's among them.
class Lease {
 public:
  explicit Lease(int wanted);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int size() const { return size_; }

  // Runs job(context, member) on members 0 (the caller) to `members` - 1, in the engine's
  // floating-point environment; false when it was cancelled. A job that throws cancels the run and
  // its exception is thrown here, after all members have left.
  bool run(int members, const Interrupt& interrupt, void (*job)(void*, Run&, int), void* context);

 private:
  Team* team_ = nullptr;
  const OpenMP* lent_ = nullptr;
  int size_ = 1;
};

}  // namespace rnncore
