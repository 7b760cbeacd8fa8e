// Measures the machine on the same team and instruction set as the kernels. See rnncore/limits.h.
#include "rnncore/limits.h"

#include <algorithm>
#include <chrono>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/team.h"

namespace rnncore {
namespace {

using Clock = std::chrono::steady_clock;

struct Measurement {
  const KernelTable* table;
  const float* data;  // null: arithmetic
  int64_t amount;     // rounds, or floats of one part
  int64_t repeats;
};

void measure_part(void* context, Run&, int part) {
  const Measurement& m = *static_cast<const Measurement*>(context);
  volatile double sink = 0;
  for (int64_t i = 0; i < m.repeats; ++i) {
    sink = sink + (m.data ? m.table->read_once(m.data + part * m.amount, m.amount)
                          : m.table->fma_rounds(m.amount));
  }
}

// The best rate of several runs of about 10 ms, in units of `work` a repeat and thread.
double best_rate(Lease& lease, Measurement m, double work, double seconds) {
  const auto timed = [&](int64_t repeats) {
    m.repeats = repeats;
    const auto start = Clock::now();
    lease.run(lease.size(), Interrupt(), measure_part, &m);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  int64_t repeats = 1;
  while (timed(repeats) < 0.01 && repeats < (int64_t{1} << 40)) repeats *= 2;
  double best = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    best = std::max(best, work * static_cast<double>(repeats) * lease.size() / timed(repeats));
  } while (Clock::now() < end);
  return best;
}

}  // namespace

double measure_fma_rate(int num_threads, double seconds) {
  Lease lease(num_threads);
  const KernelTable& table = chosen_kernels();
  const double work = 2.0 * table.f32.lanes * table.accumulators * 1000;
  return best_rate(lease, {&table, nullptr, 1000, 1}, work, seconds);
}

double measure_read_rate(int64_t bytes, int num_threads, double seconds) {
  Lease lease(num_threads);
  constexpr int64_t kUnit = 8 * 16;  // floats: eight of the widest vectors
  const int64_t part = std::max(kUnit, bytes / 4 / lease.size() / kUnit * kUnit);
  const Buffer data = Buffer::zeros<float>(part * lease.size());
  const double work = static_cast<double>(part) * 4;
  return best_rate(lease, {&chosen_kernels(), data.as<float>(), part, 1}, work, seconds);
}

}  // namespace rnncore
