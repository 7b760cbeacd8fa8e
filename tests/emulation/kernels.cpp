#include "emulation/kernels.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace rnncore {
namespace emulation {
namespace {

// Made by the first entry point to be constructed, in whichever file.
std::vector<const cuda::emulation::Kernel*>& all() {
  static std::vector<const cuda::emulation::Kernel*> kernels;
  return kernels;
}

}  // namespace

const cuda::emulation::Kernel* find_kernel(const char* name) {
  const cuda::emulation::Kernel* found = nullptr;
  for (const auto* kernel : all()) {
    if (std::strcmp(kernel->name, name) != 0) continue;
    if (found) return nullptr;
    found = kernel;
  }
  return found;
}

bool is_kernel(const cuda::emulation::Kernel* kernel) {
  return std::find(all().begin(), all().end(), kernel) != all().end();
}

}  // namespace emulation

namespace cuda {
namespace emulation {

Kernel::Kernel(const char* name, int threads, size_t arguments_bytes, void (*run)(const void*))
    : name(name), threads(threads), arguments_bytes(arguments_bytes), run(run) {
  rnncore::emulation::all().push_back(this);
}

}  // namespace emulation
}  // namespace cuda
}  // namespace rnncore
