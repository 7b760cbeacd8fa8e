#include "core/lent_threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

#include "core/waiting.h"

namespace rnncore {
namespace {

// What it points to is never freed: a call may still be reading it when another is lent.
std::atomic<const OpenMP*> lent{nullptr};

// An OpenMP runtime has no threads in a forked child, and does not know it.
void forget_in_child() { lent.store(nullptr); }

// Moves the calling thread to another of its CPUs, if it has another.
void leave_cpu(int cpu) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t elsewhere = allowed;
  CPU_CLR(cpu, &elsewhere);
  sched_setaffinity(0, sizeof elsewhere, &elsewhere);
  sched_setaffinity(0, sizeof allowed, &allowed);
}

struct Region {
  const OpenMP& runtime;
  int members;
  void (*body)(void*, int);
  void* context;
  int cpu = sched_getcpu();  // the caller's
  bool complete = true;
  std::atomic<int> absent{members - 1};

  // The runtime's threads may be more than the members, never fewer.
  static void enter(void* region) {
    Region& self = *static_cast<Region*>(region);
    const int member = self.runtime.thread_num();
    if (self.runtime.num_threads() < self.members) {
      if (member == 0) self.complete = false;
      return;
    }
    if (member >= self.members) return;
    self.meet(member);
    self.body(self.context, member);
  }

  // A worker that slept may have been woken on the CPU of the caller, who would spin at the work's
  // first barrier and keep it from running for ten milliseconds. So he lets it run until all others
  // have come, and who is then on his CPU leaves it. He does not sleep: who wakes him would have
  // him put on the CPU of its own.
  void meet(int member) {
    if (member > 0) {
      if (sched_getcpu() == cpu) leave_cpu(cpu);
      absent.fetch_sub(1, std::memory_order_release);
      return;
    }
    for (int i = 0; absent.load(std::memory_order_acquire) > 0; ++i) spin(i);
  }
};

}  // namespace

void borrow_threads(const OpenMP& runtime) {
  static const int registered = pthread_atfork(nullptr, nullptr, forget_in_child);
  (void)registered;
  lent.store(new OpenMP(runtime));
}

void return_threads() { lent.store(nullptr); }

const OpenMP* lent_threads() {
  const OpenMP* runtime = lent.load(std::memory_order_acquire);
  return runtime && !runtime->in_parallel() && !runtime->dynamic() ? runtime : nullptr;
}

// Always asks for as many threads as the host does: a runtime that is asked for fewer ends the
// others, and starts new ones for the host's next region.
bool run_on_lent_threads(const OpenMP& runtime, int members, void (*body)(void*, int),
                         void* context) {
  Region region{runtime, members, body, context};
  const int threads = std::max(members, runtime.max_threads());
  runtime.parallel(&Region::enter, &region, static_cast<unsigned>(threads), 0);
  return region.complete;
}

}  // namespace rnncore
