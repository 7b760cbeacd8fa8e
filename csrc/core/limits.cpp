// Measures the machine on the same team and instruction set as the kernels. See rnncore/limits.h.
#include "rnncore/limits.h"

#include <algorithm>
#include <chrono>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/team.h"
#include "rnncore/stream.h"

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

double measure_stream_step(const PackedStack& packed, int64_t batch, int64_t steps,
                           int num_threads) {
  const StackSpec& s = packed.spec();
  Stream stream(packed, batch, num_threads);
  const Buffer x = Buffer(static_cast<size_t>(batch * s.input_size * s.item_size()));
  const Buffer y = Buffer(static_cast<size_t>(batch * s.outputs() * s.item_size()));
  std::fill_n(x.as<char>(), x.size(), char{0});
  const auto start = Clock::now();
  for (int64_t i = 0; i < steps; ++i) {
    stream.step(x.as<void>(), s.input_size, y.as<void>(), s.outputs());
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return seconds / static_cast<double>(std::max<int64_t>(1, steps));
}

}  // namespace rnncore
