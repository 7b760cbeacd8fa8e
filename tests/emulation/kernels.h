// The entry points that were compiled in, by name.
#pragma once

#include "cuda/emulated.h"

namespace rnncore {
namespace emulation {

// What a launch may ask for without opting in to more.
constexpr int kSharedBytesAtMost = 48 * 1024;

// Null where there is none of that name, or more than one.
const cuda::emulation::Kernel* find_kernel(const char* name);
bool is_kernel(const cuda::emulation::Kernel* kernel);

}  // namespace emulation
}  // namespace rnncore
