#include "core/plan.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace rnncore {
namespace {

// Of a core, as measured on servers with AVX-512; only their ratios matter.
constexpr double kFlops = 1.1e11;     // float32 with 16 lanes
constexpr double kNearBytes = 8e10;   // a second, from the core's own L2
constexpr double kFarBytes = 2.2e10;  // from L3
constexpr double kPointwise = 4e-8;   // a vector of units: gates, states, stores
constexpr double kBarrier = 4e-7;     // with the spread between members
constexpr double kWake = 4e-6;        // a call
constexpr double kStep = 4e-8;        // of the loop itself

// As the kernel says: sysconf counts the last level of AMD's processors once for every core.
double cache_bytes(int level, double otherwise) {
  const std::string index = "index" + std::to_string(level);
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/" + index + "/size");
  double size = 0;
  char unit = 0;
  if (!(file >> size >> unit) || size <= 0) return otherwise;
  return size * (unit == 'M' ? 1 << 20 : 1 << 10);
}
double near_cache_bytes() {
  static const double bytes = cache_bytes(2, 1 << 20);
  return bytes;
}
double far_cache_bytes() {
  static const double bytes = cache_bytes(3, 16 << 20);
  return bytes;
}

// Steps per chunk: enough rows to use a panel well once it is read, few enough for the projected
// gates to be in cache when the recurrence comes for them.
int64_t chunk_steps(const Work& work) {
  constexpr int64_t kRows = 192, kBytes = 256 << 10;
  const int64_t row_bytes = work.groups * 16 * work.gates * work.item_size;
  const int64_t rows = std::max(kRows, kBytes / row_bytes);
  return std::max<int64_t>(1, rows / std::max<int64_t>(1, work.rows));
}

// A projection of its own writes every gate to memory and reads it back, but reads W once for many
// steps. With enough rows in a step W is read in the shadow of arithmetic: of few where it comes
// from near, of some more where it comes from far, if it stays there.
bool fuses(const Work& work, const Plan& plan) {
  const double mean_rows =
      static_cast<double>(work.live) / static_cast<double>(std::max<int64_t>(1, work.steps));
  const double rows = mean_rows / plan.rows;
  const double units = static_cast<double>((work.groups + plan.units - 1) / plan.units) * 16;
  const double bytes =
      units * static_cast<double>(work.gates * (work.inputs + work.outputs)) * work.weight_size;
  if (bytes < 0.75 * near_cache_bytes()) return rows >= 2;
  const double layer = bytes * plan.units * static_cast<double>(work.directions);
  return rows >= 4 && layer < far_cache_bytes() / 2;
}

// Steps of a layer's turn. Weights that do not fit a core's own cache come from far or from memory
// at its start, so a turn is as long as what one layer leaves for the next stays in L3.
int64_t turn_steps(const Work& work, const Plan& plan) {
  const double units = static_cast<double>((work.groups + plan.units - 1) / plan.units) * 16;
  const double weights = static_cast<double>(work.layers * work.gates) * units *
                         static_cast<double>(work.inputs + work.outputs) * work.weight_size;
  if (work.layers == 1 || weights < 0.75 * near_cache_bytes()) return plan.chunk;
  constexpr double kMostBytes = 16 << 20;
  const int64_t bytes = static_cast<int64_t>(std::min(far_cache_bytes() / 4, kMostBytes));
  const int64_t step = std::max<int64_t>(1, work.rows * work.outputs * work.item_size);
  return std::max<int64_t>(1, bytes / step / plan.chunk) * plan.chunk;
}

}  // namespace

double modelled_seconds(const Work& work, const Plan& plan) {
  const double sequential =
      static_cast<double>((work.directions + plan.directions - 1) / plan.directions);
  const double mean_rows =
      static_cast<double>(work.live) / static_cast<double>(std::max<int64_t>(1, work.steps));
  const double rows = std::max(1.0, mean_rows / plan.rows);
  const double units = static_cast<double>((work.groups + plan.units - 1) / plan.units) * 16;
  const double vectors = units / static_cast<double>(work.lanes);
  const double length = static_cast<double>(work.gates * work.outputs);
  const double flops = 2 * rows * units * length;
  // 8-bit products come four to a lane; half of that is what is left of it in a step.
  const double faster = work.weight_size < 2 ? 2 : 1;
  const double peak = faster * kFlops * static_cast<double>(work.lanes) / 16;
  const double used = rows >= 3 ? 1 : 0.45;
  const double bytes = units * length * work.weight_size;
  const bool near = bytes < 0.9 * near_cache_bytes();
  const double reading = bytes / (near ? kNearBytes : kFarBytes);
  const double pointwise = rows * vectors * kPointwise;
  const double input = rows * units * 2 * static_cast<double>(work.gates * work.inputs) / peak;
  double step = kStep + std::max(flops / (peak * used), reading) + pointwise + input;
  if (plan.units > 1) step += kBarrier * static_cast<double>(work.meetings);
  const double layers = static_cast<double>(work.layers);
  const double all = static_cast<double>(work.steps) * step * sequential * layers;
  return all + (plan.members() > 1 ? kWake : 0);
}

Plan make_plan(const Work& work, int threads) {
  Plan best;
  best.chunk = chunk_steps(work);
  best.fused = fuses(work, best);
  best.turn = turn_steps(work, best);
  if (threads <= 1 || work.live == 0) return best;
  double least = modelled_seconds(work, best);
  const int most_directions = static_cast<int>(std::min<int64_t>(work.directions, threads));
  for (int directions = 1; directions <= most_directions; ++directions) {
    for (int units = 1; directions * units <= threads && units <= work.groups; ++units) {
      const int64_t rows = std::min<int64_t>(threads / (directions * units), work.rows);
      Plan plan = best;
      plan.directions = directions;
      plan.units = units;
      plan.rows = static_cast<int>(std::max<int64_t>(1, rows));
      const double seconds = modelled_seconds(work, plan);
      if (seconds < least * 0.98) {
        least = seconds;
        best = plan;
      }
    }
  }
  best.fused = fuses(work, best);
  best.turn = turn_steps(work, best);
  return best;
}

}  // namespace rnncore
