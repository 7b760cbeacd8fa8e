#include "core/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "rnncore/threads.h"

namespace rnncore {
namespace {

struct Build {
  const char* name;
  const KernelTable* (*table)();
  bool (*supported)();
};

bool always() { return true; }

#if defined(__x86_64__)
// The compiler's CPU check asks the operating system, too, whether it saves the wide registers.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
// VNNI makes nothing faster but 8-bit weights, and no bit different: it is no instruction set of
// its own. RNNCORE_VNNI=0 leaves it out, for tests and measurements.
const KernelTable* best_avx512_kernels() {
  static const KernelTable table = [] {
    KernelTable made = *avx512_kernels();
    const char* wanted = std::getenv("RNNCORE_VNNI");
    const bool refused = wanted && std::strcmp(wanted, "0") == 0;
    if (!refused && __builtin_cpu_supports("avx512vnni")) {
      made.f32.weights[kInt8] = *avx512vnni_int8();
    }
    return made;
  }();
  return &table;
}
constexpr Build kBuilds[] = {{"baseline", baseline_kernels, always},
                             {"avx2", avx2_kernels, has_avx2},
                             {"avx512", best_avx512_kernels, has_avx512}};
#else
constexpr Build kBuilds[] = {{"baseline", baseline_kernels, always}};
#endif

std::atomic<const KernelTable*> chosen{nullptr};

std::string names(const std::vector<const char*>& all) {
  std::string text;
  for (const char* name : all) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

const KernelTable& first_choice() {
  if (const char* forced = std::getenv("RNNCORE_ISA")) {
    if (*forced) return kernels_named(forced);
  }
  return kernels_named(supported_isas().back());
}

}  // namespace

const KernelTable& kernels_named(const char* name) {
  for (const Build& build : kBuilds) {
    if (std::strcmp(build.name, name) != 0) continue;
    if (build.supported()) return *build.table();
    throw std::invalid_argument("isa: this machine has no " + std::string(name) + ", only " +
                                names(supported_isas()));
  }
  throw std::invalid_argument("isa: expected one of " + names(compiled_isas()) + ", got '" +
                              std::string(name) + "'");
}

const KernelTable& chosen_kernels() {
  const KernelTable* table = chosen.load(std::memory_order_acquire);
  if (!table) {
    table = &first_choice();
    chosen.store(table, std::memory_order_release);
  }
  return *table;
}

const char* isa() { return chosen_kernels().name; }

void set_isa(const char* name) { chosen.store(&kernels_named(name), std::memory_order_release); }

std::vector<const char*> compiled_isas() {
  std::vector<const char*> all;
  for (const Build& build : kBuilds) all.push_back(build.name);
  return all;
}

std::vector<const char*> supported_isas() {
  std::vector<const char*> all;
  for (const Build& build : kBuilds) {
    if (build.supported()) all.push_back(build.name);
  }
  return all;
}

}  // namespace rnncore
