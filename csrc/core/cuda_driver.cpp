// A CUDA device through the driver's and cuBLAS' own functions, found when they are first needed:
// the module loads on machines that have neither. Their types are spelled out here, so that no CUDA
// header is needed to build it.
#include "core/cuda_driver.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/cuda_call.h"

namespace rnncore {
namespace {

// --- the driver's and cuBLAS' functions ---------------------------------------------------------

using Pointer = unsigned long long;  // CUdeviceptr
using Status = int;

struct Driver {
  Status (*cuLaunchKernel)(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                           unsigned by, unsigned bz, unsigned shared, void* stream,
                           void** arguments, void** extra);
  Status (*cuMemsetD8Async)(Pointer to, unsigned char value, size_t bytes, void* stream);
  Status (*cuMemcpyDtoDAsync_v2)(Pointer to, Pointer from, size_t bytes, void* stream);
  Status (*cuMemcpyHtoDAsync_v2)(Pointer to, const void* from, size_t bytes, void* stream);
  Status (*cuGetErrorString)(Status status, const char** text);
  Status (*cuCtxGetCurrent)(void** context);
  Status (*cuMemAlloc_v2)(Pointer* memory, size_t bytes);
};

// cuBLAS' numbers for types and ways to compute (library_types.h, cublas_api.h).
enum { kReal32 = 0, kReal64 = 1, kReal16 = 2, kBfloat16 = 14 };
enum { kCompute32 = 68, kCompute64 = 70, kComputeFastTf32 = 77 };
enum { kPlain = 0, kTransposed = 1, kDefaultAlgorithm = -1 };

struct Blas {
  Status (*cublasCreate_v2)(void** handle);
  Status (*cublasSetStream_v2)(void* handle, void* stream);
  Status (*cublasSetWorkspace_v2)(void* handle, void* workspace, size_t bytes);
  Status (*cublasGemmEx_64)(void* handle, int a_op, int b_op, int64_t m, int64_t n, int64_t k,
                            const void* alpha, const void* a, int a_type, int64_t a_stride,
                            const void* b, int b_type, int64_t b_stride, const void* beta, void* c,
                            int c_type, int64_t c_stride, int compute, int algorithm);
  const char* (*cublasGetStatusString)(Status status);
};

void* open_library(const std::vector<const char*>& names) {
  for (const char* name : names) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw CudaError(std::string("expected to find ") + names.front() + ": " + dlerror());
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw CudaError(std::string("expected a function ") + name + " in the library");
}

// --- the device ---------------------------------------------------------------------------------

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// Statuses of cuBLAS are told from the driver's by this much.
constexpr Status kBlasStatus = 1 << 20;

class Device {
 public:
  Device() {
    void* driver = open_library({"libcuda.so.1"});
#define RNNCORE_FIND(library, name) find(library, #name, library##_.name)
    RNNCORE_FIND(driver, cuLaunchKernel);
    RNNCORE_FIND(driver, cuMemsetD8Async);
    RNNCORE_FIND(driver, cuMemcpyDtoDAsync_v2);
    RNNCORE_FIND(driver, cuMemcpyHtoDAsync_v2);
    RNNCORE_FIND(driver, cuGetErrorString);
    RNNCORE_FIND(driver, cuCtxGetCurrent);
    RNNCORE_FIND(driver, cuMemAlloc_v2);
    void* blas = open_library({"libcublas.so.13", "libcublas.so.12", "libcublas.so"});
    RNNCORE_FIND(blas, cublasCreate_v2);
    RNNCORE_FIND(blas, cublasSetStream_v2);
    RNNCORE_FIND(blas, cublasSetWorkspace_v2);
    RNNCORE_FIND(blas, cublasGemmEx_64);
    RNNCORE_FIND(blas, cublasGetStatusString);
#undef RNNCORE_FIND
  }

  Status launch(void* stream, const CudaLaunch& launch) {
    void* arguments[] = {const_cast<void*>(launch.arguments)};
    return driver_.cuLaunchKernel(
        launch.kernel, static_cast<unsigned>(launch.blocks_x),
        static_cast<unsigned>(launch.blocks_y), 1, static_cast<unsigned>(launch.threads), 1, 1,
        static_cast<unsigned>(launch.shared_bytes), stream, arguments, nullptr);
  }

  // Rows of cuBLAS are our columns: it makes the transposed of c from b and a.
  Status multiply(void* stream, const CudaProduct& p) {
    Handle handle;
    if (const Status status = take_handle(stream, handle)) return status;
    const bool wide = p.result == CudaType::float64;
    const float one = 1, beta = static_cast<float>(p.beta);
    const double wide_one = 1, wide_beta = p.beta;
    const int compute = wide                                             ? kCompute64
                        : p.allow_tf32 && p.factors == CudaType::float32 ? kComputeFastTf32
                                                                         : kCompute32;
    const Status status = blas_.cublasGemmEx_64(
        handle.blas, p.b_transposed ? kTransposed : kPlain, p.a_transposed ? kTransposed : kPlain,
        p.n, p.m, p.k, wide ? static_cast<const void*>(&wide_one) : &one, p.b, number(p.factors),
        p.b_stride, p.a, number(p.factors), p.a_stride,
        wide ? static_cast<const void*>(&wide_beta) : &beta, p.c, number(p.result), p.c_stride,
        compute, kDefaultAlgorithm);
    give_handle(handle);
    return status ? kBlasStatus + status : 0;
  }

  Status clear(void* stream, void* to, size_t bytes) {
    return driver_.cuMemsetD8Async(address(to), 0, bytes, stream);
  }
  Status copy(void* stream, void* to, const void* from, size_t bytes) {
    return driver_.cuMemcpyDtoDAsync_v2(address(to), address(from), bytes, stream);
  }
  Status upload(void* stream, void* to, const void* from, size_t bytes) {
    return driver_.cuMemcpyHtoDAsync_v2(address(to), from, bytes, stream);
  }

  const char* message(Status status) {
    if (status >= kBlasStatus) return blas_.cublasGetStatusString(status - kBlasStatus);
    const char* text = nullptr;
    driver_.cuGetErrorString(status, &text);
    return text ? text : "an unknown error";
  }

 private:
  // A handle stays with one stream of one context for good: its workspace may still be in use by
  // what was asked for last, and cuBLAS promises equal bits for one stream and workspace alone.
  struct Handle {
    std::pair<void*, void*> owner;
    void* blas = nullptr;
  };

  static Pointer address(const void* memory) { return reinterpret_cast<Pointer>(memory); }
  static int number(CudaType type) {
    switch (type) {
      case CudaType::float16:
        return kReal16;
      case CudaType::bfloat16:
        return kBfloat16;
      case CudaType::float32:
        return kReal32;
      default:
        return kReal64;
    }
  }

  Status take_handle(void* stream, Handle& handle) {
    void* context = nullptr;
    if (const Status status = driver_.cuCtxGetCurrent(&context)) return status;
    handle.owner = {context, stream};
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      std::vector<void*>& free = free_[handle.owner];
      if (!free.empty()) {
        handle.blas = free.back();
        free.pop_back();
        return 0;
      }
    }
    return make_handle(stream, handle);
  }

  Status make_handle(void* stream, Handle& handle) {
    Pointer workspace = 0;
    if (const Status status = driver_.cuMemAlloc_v2(&workspace, kWorkspaceBytes)) return status;
    Status status = blas_.cublasCreate_v2(&handle.blas);
    if (!status) status = blas_.cublasSetStream_v2(handle.blas, stream);
    if (!status) {
      status = blas_.cublasSetWorkspace_v2(handle.blas, reinterpret_cast<void*>(workspace),
                                           kWorkspaceBytes);
    }
    return status ? kBlasStatus + status : 0;
  }

  void give_handle(const Handle& handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_[handle.owner].push_back(handle.blas);
  }

  Driver driver_;
  Blas blas_;
  std::mutex mutex_;
  std::map<std::pair<void*, void*>, std::vector<void*>> free_;
};

Device& device(void* context) { return *static_cast<Device*>(context); }

}  // namespace

const CudaDevice* cuda_device() {
  // Never destroyed: threads may still launch while the process ends.
  static Device* const made = new Device;
  static const CudaDevice table = {
      made,
      [](void* c, void* stream, const CudaLaunch* l) { return device(c).launch(stream, *l); },
      [](void* c, void* stream, const CudaProduct* p) { return device(c).multiply(stream, *p); },
      [](void* c, void* stream, void* to, size_t n) { return device(c).clear(stream, to, n); },
      [](void* c, void* stream, void* to, const void* from, size_t n) {
        return device(c).copy(stream, to, from, n);
      },
      [](void* c, void* stream, void* to, const void* from, size_t n) {
        return device(c).upload(stream, to, from, n);
      },
      [](void* c, int status) { return device(c).message(status); }};
  return &table;
}

}  // namespace rnncore
