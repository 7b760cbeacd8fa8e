// One call's way to a device: launches and products on a stream, with failures as exceptions.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "core/cuda_device.h"
#include "cuda/arguments.h"

namespace rnncore {

// Every kernel by the name of its entry point, less cell, dtype and options.
#define RNNCORE_CUDA_KERNELS(X)                            \
  X(copy_rows)      /* sequences, times a mask */          \
  X(copy_gradients) /* sums to a sequence, times a mask */ \
  X(mask_gradients) /* sums to sums, times a mask */       \
  X(gather_entering)                                       \
  X(copy_states)                                           \
  X(take_lengths) /* of the device, clamped */             \
  X(pack_gates)                                            \
  X(pack_vectors)                                          \
  X(pack_bias)                                             \
  X(add_gates)                                             \
  X(sum_rows)                                              \
  X(normalise_rows)                                        \
  X(forward_output)                                        \
  X(backward_output)                                       \
  X(backward_start)                                        \
  X(backward_start_c)                                      \
  X(forward_gates_0)                                       \
  X(forward_gates_1)                                       \
  X(backward_gates_0)                                      \
  X(backward_gates_1)                                      \
  X(normalised_gates_0)                                    \
  X(normalised_gates_1)                                    \
  X(normalised_gates_backward_0)                           \
  X(normalised_gates_backward_1)                           \
  X(persistent_forward)                                    \
  X(persistent_backward)

enum class CudaKernel : int {
#define RNNCORE_ENUMERATOR(name) name,
  RNNCORE_CUDA_KERNELS(RNNCORE_ENUMERATOR)
#undef RNNCORE_ENUMERATOR
      kCount
};

inline CudaKernel of_phase(CudaKernel first, int phase) {
  return static_cast<CudaKernel>(static_cast<int>(first) + phase);
}

// Compiled kernels of one cell and dtype; null where the cell has no use for one.
struct CudaProgram {
  const CudaDevice* device = nullptr;
  int64_t width = 0;  // units of a persistent block; 0: there is none
  void* kernels[static_cast<int>(CudaKernel::kCount)] = {};
};

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline int64_t size_of(CudaType type) {
  return type == CudaType::float64 ? 8 : type == CudaType::float32 ? 4 : 2;
}
// The type of sums and states.
inline CudaType real_of(CudaType type) {
  return type == CudaType::float64 ? CudaType::float64 : CudaType::float32;
}

// Threads of a block: those that kernels are compiled for, see rnncore/cuda/program.py.
constexpr int64_t kCudaThreads = 256;
constexpr int64_t kCudaSumBytes = 32 * 8;  // of block_sum

class CudaCall {
 public:
  CudaCall(const CudaProgram& program, void* stream, bool allow_tf32)
      : program_(program), stream_(stream), allow_tf32_(allow_tf32) {}

  // A thread for each of `count` values.
  template <class Arguments>
  void for_each(CudaKernel kernel, int64_t count, const Arguments& arguments) const {
    if (count) launch(kernel, (count + kCudaThreads - 1) / kCudaThreads, 0, arguments);
  }
  // Threads that stride over `count` values.
  template <class Arguments>
  void stride_over(CudaKernel kernel, int64_t count, const Arguments& arguments) const {
    if (!count) return;
    launch(kernel, std::min<int64_t>((count + kCudaThreads - 1) / kCudaThreads, kMostBlocks), 0,
           arguments);
  }
  // A block for each of `count` rows.
  template <class Arguments>
  void for_each_row(CudaKernel kernel, int64_t count, const Arguments& arguments) const {
    if (count) launch(kernel, count, kCudaSumBytes, arguments);
  }

  // A block for every few rows, of `width` units.
  template <class Arguments>
  void persist(CudaKernel kernel, int64_t blocks, int64_t threads, int64_t shared,
               const Arguments& arguments) const {
    if (blocks) launch(kernel, blocks, shared, arguments, threads);
  }
  int64_t width() const { return program_.width; }

  void multiply(CudaProduct product) const {
    if (!product.m || !product.n) return;
    product.allow_tf32 = allow_tf32_;
    check("a product", device().multiply(device().context, stream_, &product));
  }
  void clear(void* to, size_t bytes) const {
    if (bytes) check("clearing memory", device().clear(device().context, stream_, to, bytes));
  }
  void copy(void* to, const void* from, size_t bytes) const {
    if (bytes) check("a copy", device().copy(device().context, stream_, to, from, bytes));
  }
  void upload(void* to, const void* from, size_t bytes) const {
    if (bytes) check("an upload", device().upload(device().context, stream_, to, from, bytes));
  }

 private:
  static constexpr int64_t kMostBlocks = 4096;

  const CudaDevice& device() const { return *program_.device; }

  void check(const char* what, int status) const {
    if (!status) return;
    throw CudaError(std::string(what) + " failed: " + device().message(device().context, status));
  }

  template <class Arguments>
  void launch(CudaKernel kernel, int64_t blocks, int64_t shared, const Arguments& arguments,
              int64_t threads = kCudaThreads) const {
    CudaLaunch launch;
    launch.kernel = program_.kernels[static_cast<int>(kernel)];
    if (!launch.kernel) throw std::logic_error("a kernel that was not compiled");
    launch.blocks_x = blocks;
    launch.blocks_y = 1;
    launch.threads = threads;
    launch.shared_bytes = shared;
    launch.arguments = &arguments;
    launch.arguments_bytes = sizeof(Arguments);
    check("a launch", device().launch(device().context, stream_, &launch));
  }

  const CudaProgram& program_;
  void* stream_;
  bool allow_tf32_;
};

}  // namespace rnncore
