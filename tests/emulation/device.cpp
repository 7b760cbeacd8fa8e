// The device table on host memory, and what tests ask of the emulation beside it.
#include <cmath>
#include <mutex>
#include <string>
#include <type_traits>

#include "emulation/kernels.h"
#include "emulation/launch.h"

namespace rnncore {
namespace emulation {
namespace {

enum Status { kDone = 0, kRefused = 1, kWrong = 2, kInjected = 3 };

// One launch or copy at a time, whichever thread asks for it, as on one stream.
struct Device {
  std::mutex mutex;
  Memory memory;
  Shadow shadow;
  Stacks stacks;
  uint64_t random = 1;
  int64_t calls_until_failure = 0;  // 0: none is to fail
};

Device& device() {
  static Device* const one = new Device();  // outlives threads that still use it at exit
  return *one;
}

thread_local std::string message_of_thread;

int fail(Status status, std::string text) {
  message_of_thread = std::move(text);
  return status;
}

template <class Work>
int call(const char* name, Work work) {
  const std::lock_guard<std::mutex> lock(device().mutex);
  int64_t& left = device().calls_until_failure;
  if (left > 0 && --left == 0) {
    return fail(kInjected, std::string(name) + " failed, as the test asked");
  }
  return work();
}

int launch(void*, void*, const CudaLaunch* asked) {
  return call("launch", [&] {
    const std::string refused = check_launch(*asked);
    if (!refused.empty()) return fail(kRefused, refused);
    Device& here = device();
    Launch running(here.memory, here.shadow, here.stacks, here.random);
    const std::string wrong = running.run(*asked);
    here.stacks.keep_few();
    return wrong.empty() ? int{kDone} : fail(kWrong, wrong);
  });
}

// --- products -----------------------------------------------------------------------------------

// A matrix as it lies in memory, rows side by side.
struct Stored {
  const char* name;
  const void* data;
  int64_t rows, columns, stride;
  size_t value_bytes;
};

size_t bytes_of(CudaType type) {
  switch (type) {
    case CudaType::float16:
    case CudaType::bfloat16:
      return 2;
    case CudaType::float32:
      return 4;
    case CudaType::float64:
      return 8;
  }
  return 0;
}

std::string check_stored(const Memory& memory, const Stored& matrix) {
  const std::string name = std::string("multiply: ") + matrix.name;
  if (matrix.stride < matrix.columns) {
    return name + " has rows of " + std::to_string(matrix.columns) + " values " +
           std::to_string(matrix.stride) + " apart";
  }
  const Address start = reinterpret_cast<Address>(matrix.data);
  if (start % matrix.value_bytes) return name + " is misaligned at " + memory.describe(start);
  const size_t values = (matrix.rows - 1) * matrix.stride + matrix.columns;
  if (!memory.holds(start, values * matrix.value_bytes)) {
    return name + ", " + std::to_string(matrix.rows) + " rows of " +
           std::to_string(matrix.columns) + " values " + std::to_string(matrix.stride) +
           " apart, leaves its allocation: it starts at " + memory.describe(start);
  }
  return "";
}

// Writes c's bytes in an era of their own, where reading a factor's would race with it.
bool overlap(Shadow& shadow, const Stored& factor, const Stored& result) {
  const unsigned era = shadow.new_era();
  const auto visit = [](const Stored& matrix, const auto& touch) {
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t column = 0; column < matrix.columns; ++column) {
        const size_t index = row * matrix.stride + column;
        touch(reinterpret_cast<Address>(matrix.data) + index * matrix.value_bytes);
      }
    }
  };
  bool found = false;
  visit(result, [&](Address at) { shadow.write(era, at, result.value_bytes, {0, 0, 0, {}}); });
  visit(factor, [&](Address at) {
    found = found || shadow.read(era, at, factor.value_bytes, {1, 0, 0, {}}).race;
  });
  return found;
}

std::string check_product(const CudaProduct& product) {
  const bool is_double = product.result == CudaType::float64;
  if (!is_double && product.result != CudaType::float32) return "multiply: c is float32 or float64";
  if (product.factors != product.result && bytes_of(product.factors) != 2) {
    return "multiply: factors are of c's type or of 16 bits";
  }
  if (is_double && bytes_of(product.factors) == 2) {
    return "multiply: factors of 16 bits have a float32 result";
  }
  if (product.m < 0 || product.n < 0 || product.k < 0) return "multiply: a size is negative";
  if (product.m == 0 || product.n == 0) return "";
  const size_t factor = bytes_of(product.factors);
  const Stored c = {"c",       product.c,        product.m,
                    product.n, product.c_stride, bytes_of(product.result)};
  std::string wrong = check_stored(device().memory, c);
  if (product.k == 0 || !wrong.empty()) return wrong;
  Stored a = {"a", product.a, product.m, product.k, product.a_stride, factor};
  Stored b = {"b", product.b, product.k, product.n, product.b_stride, factor};
  if (product.a_transposed) std::swap(a.rows, a.columns);
  if (product.b_transposed) std::swap(b.rows, b.columns);
  for (const Stored* matrix : {&a, &b}) {
    wrong = check_stored(device().memory, *matrix);
    if (!wrong.empty()) return wrong;
    if (overlap(device().shadow, *matrix, c)) {
      return std::string("multiply: c overlaps ") + matrix->name;
    }
  }
  return "";
}

float value_of(float value) { return value; }
double value_of(double value) { return value; }
float value_of(cuda::Float16 value) { return cuda::widen(value); }
float value_of(cuda::BFloat16 value) { return cuda::widen(value); }

template <class Factor, class Real>
void multiply_values(const CudaProduct& product) {
  const auto* a = static_cast<const Factor*>(product.a);
  const auto* b = static_cast<const Factor*>(product.b);
  const auto at = [](int64_t row, int64_t column, int64_t stride, bool transposed) {
    return transposed ? column * stride + row : row * stride + column;
  };
  for (int64_t i = 0; i < product.m; ++i) {
    for (int64_t j = 0; j < product.n; ++j) {
      Real sum = 0;
      for (int64_t k = 0; k < product.k; ++k) {
        const Real left = value_of(a[at(i, k, product.a_stride, product.a_transposed)]);
        const Real right = value_of(b[at(k, j, product.b_stride, product.b_transposed)]);
        sum = std::fma(left, right, sum);
      }
      Real& c = static_cast<Real*>(product.c)[i * product.c_stride + j];
      c = product.beta == 0 ? sum : std::fma(static_cast<Real>(product.beta), c, sum);
    }
  }
}

int multiply(void*, void*, const CudaProduct* product) {
  return call("multiply", [&] {
    const std::string wrong = check_product(*product);
    if (!wrong.empty()) return fail(kRefused, wrong);
    switch (product->factors) {
      case CudaType::float16:
        multiply_values<cuda::Float16, float>(*product);
        break;
      case CudaType::bfloat16:
        multiply_values<cuda::BFloat16, float>(*product);
        break;
      case CudaType::float32:
        multiply_values<float, float>(*product);
        break;
      case CudaType::float64:
        multiply_values<double, double>(*product);
        break;
    }
    return int{kDone};
  });
}

// --- copies -------------------------------------------------------------------------------------

std::string check_device_range(const char* name, const void* start, size_t bytes) {
  const Memory& memory = device().memory;
  const Address address = reinterpret_cast<Address>(start);
  if (bytes == 0 || memory.holds(address, bytes)) return "";
  return std::string(name) + " of " + std::to_string(bytes) +
         " bytes out of bounds: it starts at " + memory.describe(address);
}

int clear(void*, void*, void* to, size_t bytes) {
  return call("clear", [&] {
    const std::string wrong = check_device_range("clear", to, bytes);
    if (!wrong.empty()) return fail(kRefused, wrong);
    if (bytes) std::memset(to, 0, bytes);
    return int{kDone};
  });
}

int copy(void*, void*, void* to, const void* from, size_t bytes) {
  return call("copy", [&] {
    std::string wrong = check_device_range("copy to", to, bytes);
    if (wrong.empty()) wrong = check_device_range("copy from", from, bytes);
    const Address a = reinterpret_cast<Address>(to), b = reinterpret_cast<Address>(from);
    if (wrong.empty() && a < b + bytes && b < a + bytes) wrong = "copy: its two ranges overlap";
    if (!wrong.empty()) return fail(kRefused, wrong);
    if (bytes) std::memcpy(to, from, bytes);
    return int{kDone};
  });
}

int upload(void*, void*, void* to, const void* from, size_t bytes) {
  return call("upload", [&] {
    std::string wrong = check_device_range("upload to", to, bytes);
    if (wrong.empty() && device().memory.touches(reinterpret_cast<Address>(from), bytes)) {
      wrong = "upload: it reads memory of the device, where memory of the host was meant";
    }
    if (!wrong.empty()) return fail(kRefused, wrong);
    if (bytes) std::memcpy(to, from, bytes);
    return int{kDone};
  });
}

const char* message(void*, int) { return message_of_thread.c_str(); }

CudaDevice table = {nullptr, launch, multiply, clear, copy, upload, message};

}  // namespace
}  // namespace emulation
}  // namespace rnncore

// --- what tests call ----------------------------------------------------------------------------

using rnncore::emulation::Address;
using rnncore::emulation::device;

extern "C" {

const rnncore::CudaDevice* rnncore_emulated_device() { return &rnncore::emulation::table; }

const void* rnncore_emulated_kernel(const char* name) {
  return rnncore::emulation::find_kernel(name);
}

// 0, or -1 where the range overlaps one that is registered or, for unregister, where none starts.
int rnncore_emulated_register(const void* start, size_t bytes) {
  const std::lock_guard<std::mutex> lock(device().mutex);
  return device().memory.add(reinterpret_cast<Address>(start), bytes) ? 0 : -1;
}
int rnncore_emulated_unregister(const void* start) {
  const std::lock_guard<std::mutex> lock(device().mutex);
  return device().memory.remove(reinterpret_cast<Address>(start)) ? 0 : -1;
}

// What the order of threads follows from, launch after launch.
void rnncore_emulated_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(device().mutex);
  device().random = (seed + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

// The n-th call of the table from now on fails; 0: none.
void rnncore_emulated_fail_after(int64_t calls) {
  const std::lock_guard<std::mutex> lock(device().mutex);
  device().calls_until_failure = calls;
}

}  // extern "C"
