// The CUDA device of this machine.
#pragma once

#include "core/cuda_device.h"

namespace rnncore {

// The table of the driver and cuBLAS, whose libraries the first call opens. Throws CudaError where
// they are not there; the calling thread needs a current context by the time of its first call
// through the table.
const CudaDevice* cuda_device();

}  // namespace rnncore
