// Work that any number of members may share, without a barrier between them.
#pragma once

#include "core/team.h"

namespace rnncore {

constexpr double kWorthwhile = 2e5;  // operations below which waking the team does not pay

// Runs `work(part, parts)` on the team, where there is enough of it.
template <class Work>
void on_team(double operations, int num_threads, const Work& work) {
  Lease lease(operations < kWorthwhile ? 1 : num_threads);
  struct Job {
    const Work* work;
    int parts;
  } job = {&work, lease.size()};
  lease.run(
      lease.size(), Interrupt(),
      [](void* context, Run&, int part) {
        const Job& self = *static_cast<Job*>(context);
        (*self.work)(part, self.parts);
      },
      &job);
}

}  // namespace rnncore
