// How many threads calls use, process-wide. See rnncore/threads.h.
#include "rnncore/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <string>

#include "core/team.h"

namespace rnncore {
namespace {

std::atomic<int> asked{0};  // 0: the default

// Whole CPUs of the cgroup's quota; a large number where there is none.
int quota_cpus() {
  constexpr int kNone = 1 << 20;
  double quota = 0, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  std::string word;
  if (v2 >> word >> period) {
    if (word == "max" || period <= 0) return kNone;
    quota = std::atof(word.c_str());
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    std::ifstream p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota) || !(p >> period)) return kNone;
  }
  if (quota <= 0 || period <= 0) return kNone;
  return std::max(1, static_cast<int>(quota / period));
}

}  // namespace

int default_num_threads() {
  cpu_set_t set;
  const int allowed = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
  static const int quota = quota_cpus();
  return std::max(1, std::min({allowed, quota, kMaxThreads}));
}

int get_num_threads() {
  const int n = asked.load(std::memory_order_relaxed);
  return n ? n : default_num_threads();
}

void set_num_threads(int n) { asked.store(std::clamp(n, 1, kMaxThreads)); }

}  // namespace rnncore

// Found by name by threadpoolctl, which limits every thread pool of a process at once.
extern "C" {
__attribute__((visibility("default"))) int rnncore_get_num_threads() {
  return rnncore::get_num_threads();
}
__attribute__((visibility("default"))) void rnncore_set_num_threads(int n) {
  rnncore::set_num_threads(n);
}
}
