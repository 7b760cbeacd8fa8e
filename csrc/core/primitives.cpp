// Linear layers, softmax, embedding and Adam on the team. See rnncore/primitives.h.
#include "rnncore/primitives.h"

#include <algorithm>
#include <cmath>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/plan.h"
#include "core/team.h"
#include "rnncore/stack.h"

namespace rnncore {
namespace {

constexpr int kIdentity[] = {0};
constexpr int64_t kRowsAtOnce = 768;
constexpr double kWorthwhile = 2e5;  // operations below which waking the team does not pay

// Runs `work(part, parts)` on the team, where there is enough of it.
template <class Work>
void on_team(double operations, int num_threads, const Work& work) {
  Lease lease(operations < kWorthwhile ? 1 : num_threads);
  struct Job {
    const Work* work;
    int parts;
  } job = {&work, lease.size()};
  lease.run(
      lease.size(), Interrupt(),
      [](void* context, Run&, int part) {
        const Job& self = *static_cast<Job*>(context);
        (*self.work)(part, self.parts);
      },
      &job);
}

// rows of a (rows, inner) times panels for `columns` columns, into c (rows, columns).
template <class T>
void product_of_rows(const Kernels<T>& kernels, Range rows, const T* a, int64_t inner,
                     const T* panels, T* c, int64_t columns, const T* start) {
  const T* from[kRowsAtOnce];
  T* to[kRowsAtOnce];
  RowsProduct<T> p;
  p.a = from;
  p.c = to;
  p.segment_length = inner;
  p.panels = panels;
  p.columns = columns;
  p.group_end = padded(columns) / kGroup;
  p.start = start;
  for (int64_t begin = rows.begin; begin < rows.end; begin += kRowsAtOnce) {
    p.rows = std::min(kRowsAtOnce, rows.end - begin);
    for (int64_t i = 0; i < p.rows; ++i) {
      from[i] = a + (begin + i) * inner;
      to[i] = c + (begin + i) * columns;
    }
    kernels.weights[kFull].rows_product(p);
  }
}

template <class T>
void pack_part(const Kernels<T>& kernels, const Linear<T>& l, T* panels, bool by_columns, int part,
               int parts) {
  const Range groups = part_of(padded(by_columns ? l.inputs : l.outputs) / kGroup, part, parts);
  if (by_columns) {
    PackColumns<T> pack;
    pack.panels = panels;
    pack.w = l.weight;
    pack.w_stride = l.inputs;
    pack.units = l.outputs;
    pack.packed_units = l.outputs;
    pack.columns = l.inputs;
    pack.source = kIdentity;
    pack.group_begin = groups.begin;
    pack.group_end = groups.end;
    kernels.pack_columns(pack);
    return;
  }
  PackGates<T> pack;
  pack.panels = panels;
  pack.w = l.weight;
  pack.w_stride = l.inputs;
  pack.units = l.outputs;
  pack.length = l.inputs;
  pack.source = kIdentity;
  pack.group_begin = groups.begin;
  pack.group_end = groups.end;
  kernels.weights[kFull].pack_gates(pack);
}

double operations(int64_t a, int64_t b, int64_t c) {
  return 2.0 * static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

template <class T>
void weight_part(const Kernels<T>& kernels, const Linear<T>& l, const T* dout, T* dweight, T* dbias,
                 const int64_t* columns, T* scratch, T* sums, T* column_sums, int part, int parts) {
  const Range mine = part_of(l.outputs, part, parts);
  const T* b[kRowsAtOnce];
  OuterProduct<T> p;
  p.gradients_stride = l.outputs;
  p.gradient_columns = columns;
  p.factor[0] = {b, l.inputs, sums, dweight, l.inputs};
  p.begin = mine.begin;
  p.end = mine.end;
  p.scratch = scratch;
  p.strip = outer_strip(l.rows, l.inputs);
  for (int64_t begin = 0; begin == 0 || begin < l.rows; begin += kRowsAtOnce) {
    p.length = std::min(kRowsAtOnce, l.rows - begin);
    p.gradients = dout + begin * l.outputs;
    p.accumulate = begin > 0;
    p.finished = begin + p.length == l.rows;
    for (int64_t i = 0; i < p.length; ++i) b[i] = l.x + (begin + i) * l.inputs;
    kernels.outer_product(p);
  }
  if (!dbias || mine.begin == mine.end) return;
  kernels.sum_rows(dout, l.outputs, l.rows, mine.begin, mine.end, false, column_sums);
  kernels.add(dbias + mine.begin, column_sums + mine.begin, mine.end - mine.begin);
}

}  // namespace

template <class T>
void linear_forward(const Linear<T>& l, T* out) {
  const Kernels<T>& kernels = kernels_of<T>(chosen_kernels());
  const Buffer panels = Buffer::of<T>(padded(l.outputs) * l.inputs);
  T* packed = panels.as<T>();
  const double work = operations(l.rows, l.inputs, l.outputs);
  const auto pack = [&](int part, int parts) { pack_part(kernels, l, packed, false, part, parts); };
  on_team(work, l.num_threads, pack);
  on_team(work, l.num_threads, [&](int part, int parts) {
    product_of_rows(kernels, part_of(l.rows, part, parts), l.x, l.inputs, packed, out, l.outputs,
                    l.bias);
  });
}

template <class T>
void linear_backward(const Linear<T>& l, const T* dout, T* dx, T* dweight, T* dbias) {
  const Kernels<T>& kernels = kernels_of<T>(chosen_kernels());
  const double work = operations(l.rows, l.inputs, l.outputs);
  if (dx) {
    const Buffer panels = Buffer::of<T>(padded(l.inputs) * l.outputs);
    T* packed = panels.as<T>();
    const auto pack = [&](int part, int parts) {
      pack_part(kernels, l, packed, true, part, parts);
    };
    on_team(work, l.num_threads, pack);
    on_team(work, l.num_threads, [&](int part, int parts) {
      product_of_rows(kernels, part_of(l.rows, part, parts), dout, l.outputs, packed, dx, l.inputs,
                      static_cast<const T*>(nullptr));
    });
  }
  const Buffer columns = Buffer::of<int64_t>(l.outputs);
  for (int64_t i = 0; i < l.outputs; ++i) columns.as<int64_t>()[i] = i;
  // Where sums wait that are longer than a product.
  const Buffer sums = Buffer::of<T>(l.rows > kRowsAtOnce ? l.outputs * l.inputs : 0);
  const Buffer column_sums = Buffer::of<T>(l.outputs);
  const int64_t each = outer_scratch(l.rows, l.inputs);
  const Buffer scratch = Buffer::of<T>(each * std::max(1, l.num_threads));
  on_team(work, l.num_threads, [&](int part, int parts) {
    weight_part(kernels, l, dout, dweight, dbias, columns.as<int64_t>(),
                scratch.as<T>() + part * each, sums.as<T>(), column_sums.as<T>(), part, parts);
  });
}

template <class T>
double softmax_cross_entropy(const T* logits, const int64_t* targets, int64_t rows, int64_t classes,
                             T* dlogits, int num_threads) {
  const Buffer scratch = Buffer::of<T>(2 * rows);
  const Buffer own = dlogits ? Buffer() : Buffer::of<T>(rows * classes);
  SoftmaxRows<T> all;
  all.logits = logits;
  all.logits_stride = classes;
  all.targets = targets;
  all.classes = classes;
  all.dlogits = dlogits ? dlogits : own.as<T>();
  all.sum = scratch.as<T>();
  all.shifted = scratch.as<T>() + rows;
  on_team(operations(rows, classes, 8), num_threads, [&](int part, int parts) {
    SoftmaxRows<T> mine = all;
    const Range range = part_of(rows, part, parts);
    mine.row_begin = range.begin;
    mine.row_end = range.end;
    kernels_of<T>(chosen_kernels()).softmax_rows(mine);
  });
  double loss = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (targets[i] < 0) continue;
    loss += std::log(static_cast<double>(all.sum[i])) - static_cast<double>(all.shifted[i]);
  }
  return loss;
}

template <class T>
void embedding_backward(const int64_t* indices, const T* dout, int64_t count, int64_t size,
                        T* dweight) {
  const Kernels<T>& kernels = kernels_of<T>(chosen_kernels());
  on_team(0, 1, [&](int, int) {
    for (int64_t i = 0; i < count; ++i) {
      kernels.add(dweight + indices[i] * size, dout + i * size, size);
    }
  });
}

template <class T>
void adam_step(T* param, const T* grad, T* m, T* v, int64_t count, const AdamRule& rule,
               int num_threads) {
  AdamStep<T> all;
  all.w = param;
  all.m = m;
  all.v = v;
  all.g = grad;
  all.rate = static_cast<T>(rule.rate);
  all.keep1 = static_cast<T>(rule.beta1);
  all.new1 = static_cast<T>(1 - rule.beta1);
  all.keep2 = static_cast<T>(rule.beta2);
  all.new2 = static_cast<T>(1 - rule.beta2);
  all.epsilon = static_cast<T>(rule.epsilon);
  all.decay = static_cast<T>(rule.weight_decay);
  const double step = static_cast<double>(rule.step);
  all.correction1 = static_cast<T>(1 - std::pow(rule.beta1, step));
  all.correction2 = static_cast<T>(1 - std::pow(rule.beta2, step));
  on_team(static_cast<double>(count) * 8, num_threads, [&](int part, int parts) {
    AdamStep<T> mine = all;
    const Range range = part_of(count, part, parts);
    mine.begin = range.begin;
    mine.end = range.end;
    kernels_of<T>(chosen_kernels()).adam(mine);
  });
}

template <class T>
void apply(Function function, const char* isa, const T* x, T* out, int64_t count) {
  const KernelTable& table = isa ? kernels_named(isa) : chosen_kernels();
  const auto kernel = kernels_of<T>(table).activation[static_cast<int>(function)];
  on_team(0, 1, [&](int, int) { kernel(x, out, count); });
}

#define RNNCORE_INSTANTIATE(T)                                                                   \
  template void linear_forward<T>(const Linear<T>&, T*);                                         \
  template void linear_backward<T>(const Linear<T>&, const T*, T*, T*, T*);                      \
  template double softmax_cross_entropy<T>(const T*, const int64_t*, int64_t, int64_t, T*, int); \
  template void embedding_backward<T>(const int64_t*, const T*, int64_t, int64_t, T*);           \
  template void adam_step<T>(T*, const T*, T*, T*, int64_t, const AdamRule&, int);               \
  template void apply<T>(Function, const char*, const T*, T*, int64_t);

RNNCORE_INSTANTIATE(float)
RNNCORE_INSTANTIATE(double)
#undef RNNCORE_INSTANTIATE

}  // namespace rnncore
