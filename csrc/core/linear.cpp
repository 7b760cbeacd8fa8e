// Linear layers and batches of products on the team. See rnncore/primitives.h.
#include <algorithm>

#include "core/dispatch.h"
#include "core/memory.h"
#include "core/on_team.h"
#include "core/plan.h"
#include "rnncore/primitives.h"

namespace rnncore {
namespace {

constexpr int kIdentity[] = {0};
constexpr int64_t kRowsAtOnce = 768;
constexpr int64_t kBatchRows = 96;  // of one product of a batch that a member takes at a time

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
  const auto fill = [&](auto& pack) {
    pack.panels = panels;
    pack.w = l.weight;
    pack.w_stride = l.inputs;
    pack.units = l.outputs;
    pack.source = kIdentity;
    pack.group_begin = groups.begin;
    pack.group_end = groups.end;
  };
  if (by_columns) {
    PackColumns<T> pack;
    fill(pack);
    pack.packed_units = l.outputs;
    pack.columns = l.inputs;
    kernels.pack_columns(pack);
  } else {
    PackGates<T> pack;
    fill(pack);
    pack.length = l.inputs;
    kernels.weights[kFull].pack_gates(pack);
  }
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
void batched_product(const BatchedProduct<T>& p) {
  const Kernels<T>& kernels = kernels_of<T>(chosen_kernels());
  const int64_t blocks = (p.rows + kBatchRows - 1) / kBatchRows;
  const int64_t each = padded(p.columns) * p.inner;
  const Buffer panels = Buffer::of<T>(each * std::max(1, p.num_threads));
  const double work = operations(p.count * p.rows, p.inner, p.columns);
  on_team(work, p.num_threads, [&](int part, int parts) {
    T* packed = panels.as<T>() + part * each;
    const Range mine = part_of(p.count * blocks, part, parts);
    int64_t held = -1;
    for (int64_t at = mine.begin; at < mine.end; ++at) {
      const int64_t item = at / blocks, first = at % blocks * kBatchRows;
      if (item != held) {
        Linear<T> l;
        l.weight = p.b + item * p.inner * p.columns;
        l.outputs = p.transposed ? p.columns : p.inner;
        l.inputs = p.transposed ? p.inner : p.columns;
        pack_part(kernels, l, packed, !p.transposed, 0, 1);
        held = item;
      }
      const Range rows = {first, std::min(first + kBatchRows, p.rows)};
      product_of_rows(kernels, rows, p.a + item * p.rows * p.inner, p.inner, packed,
                      p.c + item * p.rows * p.columns, p.columns, static_cast<const T*>(nullptr));
    }
  });
}

#define RNNCORE_INSTANTIATE(T)                                              \
  template void linear_forward<T>(const Linear<T>&, T*);                    \
  template void linear_backward<T>(const Linear<T>&, const T*, T*, T*, T*); \
  template void batched_product<T>(const BatchedProduct<T>&);

RNNCORE_INSTANTIATE(float)
RNNCORE_INSTANTIATE(double)
#undef RNNCORE_INSTANTIATE

}  // namespace rnncore
