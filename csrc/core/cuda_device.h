// What the core asks of a CUDA device: a table of functions, of the driver and cuBLAS or of the
// emulation that stands in for them in tests. All work goes to a stream, in order; nothing waits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rnncore {

enum class CudaType : int32_t { float16, bfloat16, float32, float64 };

// c[i][j] = sum over k of a[i][k] b[k][j], plus beta c[i][j]. All are rows of values side by side;
// a transposed one is stored as [k][i], or as [j][k]. Sums are made in c's type, float32 or
// float64; a and b are of one type, c's own or a 16-bit one.
struct CudaProduct {
  CudaType factors, result;
  int64_t m, n, k;
  const void *a, *b;
  void* c;
  int64_t a_stride, b_stride, c_stride;
  int32_t a_transposed, b_transposed;
  double beta;
  int32_t allow_tf32;  // whether float32 factors may be rounded to 10 bits
};

struct CudaLaunch {
  void* kernel;
  int64_t blocks_x, blocks_y;
  int64_t threads;
  int64_t shared_bytes;
  const void* arguments;  // one struct, copied before the call returns
  size_t arguments_bytes;
};

// Functions return 0, or a status that `message` explains.
struct CudaDevice {
  void* context;
  int (*launch)(void* context, void* stream, const CudaLaunch* launch);
  int (*multiply)(void* context, void* stream, const CudaProduct* product);
  int (*clear)(void* context, void* stream, void* to, size_t bytes);
  int (*copy)(void* context, void* stream, void* to, const void* from, size_t bytes);  // on device
  int (*upload)(void* context, void* stream, void* to, const void* from, size_t bytes);
  const char* (*message)(void* context, int status);
};

}  // namespace rnncore
