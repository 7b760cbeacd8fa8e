// Softmax, embedding, Adam and functions of arrays on the team. See rnncore/primitives.h.
#include "rnncore/primitives.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/on_team.h"
#include "core/plan.h"
#include "rnncore/stack.h"

namespace rnncore {

template <class T>
double softmax_cross_entropy(const SoftmaxLoss<T>& l) {
  const Buffer scratch = Buffer::of<T>(2 * l.rows);
  // Without a gradient to write, each member's exponentials have one row of its own.
  const int64_t own_rows = l.dlogits ? 0 : std::max(1, l.num_threads);
  const Buffer own = Buffer::of<T>(own_rows * l.classes);
  SoftmaxRows<T> all;
  all.logits = l.logits;
  all.logits_stride = l.classes;
  all.targets = l.targets;
  all.classes = l.classes;
  all.weights = l.weights;
  all.scale = static_cast<T>(l.scale);
  all.dlogits = l.dlogits;
  all.dlogits_stride = l.dlogits ? l.classes : 0;
  all.sum = scratch.as<T>();
  all.shifted = scratch.as<T>() + l.rows;
  const double work = 8.0 * static_cast<double>(l.rows) * static_cast<double>(l.classes);
  on_team(work, l.num_threads, [&](int part, int parts) {
    SoftmaxRows<T> mine = all;
    const Range range = part_of(l.rows, part, parts);
    mine.row_begin = range.begin;
    mine.row_end = range.end;
    if (!l.dlogits) mine.dlogits = own.as<T>() + part * l.classes;
    kernels_of<T>(chosen_kernels()).softmax_rows(mine);
  });
  double loss = 0;
  for (int64_t i = 0; i < l.rows; ++i) {
    if (l.targets[i] < 0) continue;
    const double weight = l.weights ? static_cast<double>(l.weights[l.targets[i]]) : 1.0;
    loss +=
        weight * (std::log(static_cast<double>(all.sum[i])) - static_cast<double>(all.shifted[i]));
  }
  return loss;
}

template <class T>
void embedding_backward(const int64_t* indices, const T* dout, int64_t count, int64_t size,
                        T* dweight, int num_threads) {
  const Kernels<T>& kernels = kernels_of<T>(chosen_kernels());
  const double work = 8.0 * static_cast<double>(count) * static_cast<double>(size);
  // Members share the columns, so that equal indices are added in one order.
  on_team(work, num_threads, [&](int part, int parts) {
    const Range groups = part_of(padded(size) / kGroup, part, parts);
    const int64_t begin = groups.begin * kGroup, end = std::min(groups.end * kGroup, size);
    if (begin >= end) return;
    for (int64_t i = 0; i < count; ++i) {
      kernels.add(dweight + indices[i] * size + begin, dout + i * size + begin, end - begin);
    }
  });
}

namespace {

// What the kernels have no vectors for comes from the C library, value by value.
template <class T>
void library_function(Function function, const T* x, T* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(x[i]);
    out[i] = static_cast<T>(function == Function::erf ? std::erf(value) : std::log1p(value));
  }
}

}  // namespace

template <class T>
void apply(Function function, const char* isa, const T* x, T* out, int64_t count, int num_threads) {
  const KernelTable& table = isa ? kernels_named(isa) : chosen_kernels();
  on_team(static_cast<double>(count) * 16, num_threads, [&](int part, int parts) {
    const Range range = part_of(count, part, parts);
    const T* from = x + range.begin;
    T* to = out + range.begin;
    if (function == Function::erf || function == Function::log1p) {
      library_function(function, from, to, range.end - range.begin);
    } else {
      const auto kernel = kernels_of<T>(table).activation[static_cast<int>(function)];
      kernel(from, to, range.end - range.begin);
    }
  });
}

#define RNNCORE_INSTANTIATE(T)                                                              \
  template double softmax_cross_entropy<T>(const SoftmaxLoss<T>&);                          \
  template void embedding_backward<T>(const int64_t*, const T*, int64_t, int64_t, T*, int); \
  template void apply<T>(Function, const char*, const T*, T*, int64_t, int);

RNNCORE_INSTANTIATE(float)
RNNCORE_INSTANTIATE(double)
#undef RNNCORE_INSTANTIATE

}  // namespace rnncore
