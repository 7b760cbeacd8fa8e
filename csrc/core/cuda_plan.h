// Which regime runs a recurrence on a device.
#pragma once

#include "core/cuda_call.h"
#include "rnncore/types.h"

namespace rnncore {

// Of persistent blocks, see csrc/cuda/persistent.cuh.
constexpr int64_t kPersistentRows = 4, kPersistentSplit = 4;
constexpr int64_t kPersistentWidths[] = {32, 64, 96, 128};

// Units, with padding, that a persistent block's kernels are compiled for; 0: U does not fit into
// its registers, or a step has more than one product, so that every step is kernels of its own.
int64_t persistent_width(const StackSpec& spec, CudaType type);

}  // namespace rnncore
