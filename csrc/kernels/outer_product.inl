// A weight's gradient: one product over all steps and rows at once.
//
//   c[i, j] = sum over rows k in their order of da[k, i] b[k, j]
//
// Both operands are copied into panels that stay in cache (a tile's rows of da side by side, b in
// blocks of one vector), up to kOuterDepth rows of the sum at a time; between these the sum waits
// in c. Where c is so narrow that da is read but once or twice, it is read where it is. Which
// thread owns which rows of c never changes the order of a sum.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Where a run of neighbouring rows i is found side by side in a slot row.
struct SlotRun {
  int64_t column;
  int from, count;
};

// Cuts `count` columns into runs of at most a group; returns how many.
inline int find_runs(const int64_t* columns, int count, SlotRun* runs) {
  int found = 0;
  for (int i = 0; i < count; ++i) {
    SlotRun* last = runs + found - 1;
    if (i && columns[i] == columns[i - 1] + 1 && last->count < kGroup) {
      ++last->count;
    } else {
      runs[found++] = {columns[i], i, 1};
    }
  }
  return found;
}

template <class T>
inline void copy_upto_group(T* to, const T* from, int count) {
  constexpr int kLane = kLanes<T>;
  for (int i = 0; i < count; i += kLane) {
    const int exist = existing<T>(count - i);
    store_upto(to + i, load_upto(from + i, exist), exist);
  }
}

// da[k][column(i)] for i in [begin, begin + count) as [tile][k][kTallest].
template <class T>
inline void pack_gradients(const OuterProduct<T>& p, int64_t k_begin, int64_t depth, int64_t begin,
                           int64_t count, T* packed) {
  constexpr int kTall = TileShape<1>::kTallest;
  SlotRun runs[kOuterHeight];
  T line[kOuterHeight + kGroup];
  const int found = find_runs(p.gradient_columns + begin, static_cast<int>(count), runs);
  for (int64_t k = 0; k < depth; ++k) {
    const T* row = p.gradients + (k_begin + k) * p.gradients_stride;
    for (int r = 0; r < found; ++r) {
      copy_upto_group(line + runs[r].from, row + runs[r].column, runs[r].count);
    }
    T* to = packed + k * kTall;
    for (int64_t i = 0; i < count; i += kTall, to += depth * kTall) {
      copy_upto_group(to, line + i, kTall);
    }
  }
}

// Some columns of a factor's b and c.
template <class T>
struct OuterStrip {
  const OuterFactor<T>* factor;
  int64_t begin, end;
  const T* packed;
};

// b[k][j] of a strip as [block][k][lane], four blocks in turn.
template <class T>
inline void pack_b(const OuterStrip<T>& strip, int64_t k_begin, int64_t depth, T* packed) {
  constexpr int kLane = kLanes<T>, kAtOnce = 4;
  for (int64_t j = strip.begin; j < strip.end; j += kAtOnce * kLane) {
    const int64_t last = strip.end - j < kAtOnce * kLane ? strip.end : j + kAtOnce * kLane;
    T* panel = packed + (j - strip.begin) * depth;
    for (int64_t k = 0; k < depth; ++k) {
      const T* row = strip.factor->b[k_begin + k];
      T* to = panel + k * kLane;
      for (int64_t at = j; at < last; at += kLane, to += depth * kLane) {
        store(to, load_upto(row + at, existing<T>(last - at)));
      }
    }
  }
}

template <class T>
struct OuterBlock {
  int64_t depth, begin, count;  // rows i of c
  bool first, last;             // of the blocks of k
  const T* gradients;           // packed, or slot rows from k's first on
  ptrdiff_t k_stride;
  const int64_t* columns;  // of slot rows read in place; else null
};

template <class T>
inline void outer_tile(const OuterStrip<T>& strip, const OuterBlock<T>& block, int64_t i, int rows,
                       int64_t j, int blocks) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kTall = TileShape<1>::kTallest;
  const OuterFactor<T>& factor = *strip.factor;
  const bool adds = block.last && factor.add_to;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  Product<FullWeights<T>> product;
  product.k_stride = block.k_stride;
  product.segment_length = block.depth;
  product.segment_stride = 0;
  product.block_stride = block.depth * kLane;
  product.panel = strip.packed + (j - strip.begin) / kLane * product.block_stride;
  const T* row[kMaxRows];
  product.rows = row;
  T* to = tile;
  for (int m = 0; m < rows; ++m) {
    row[m] = block.columns ? block.gradients + block.columns[i + m]
                           : block.gradients + i / kTall * block.depth * kTall + m;
    const ptrdiff_t at = (block.begin + i + m) * factor.c_stride + j;
    if (adds || block.first) prefetch_row((adds ? factor.add_to : factor.c) + at, blocks * kLane);
    for (int v = 0; v < blocks; ++v, to += kLane) {
      const int exist = existing<T>(strip.end - j - v * kLane);
      store(to,
            block.first ? typename VecOf<T>::Vec{} : load_upto(factor.c + at + v * kLane, exist));
    }
  }
  choose_tile<FullWeights<T>, 1>(rows, blocks)(&product, 1, in_place(tile, blocks, 1));
  to = tile;
  for (int m = 0; m < rows; ++m) {
    T* c = (adds ? factor.add_to : factor.c) + (block.begin + i + m) * factor.c_stride + j;
    for (int v = 0; v < blocks; ++v, to += kLane) {
      const int exist = existing<T>(strip.end - j - v * kLane);
      const auto sum = load(to);
      store_upto(c + v * kLane, adds ? load_upto(c + v * kLane, exist) + sum : sum, exist);
    }
  }
}

template <class T>
inline void outer_block(const OuterStrip<T>& strip, const OuterBlock<T>& block) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kTall = TileShape<1>::kTallest;
  const Parts widths = {(strip.end - strip.begin + kLane - 1) / kLane, TileShape<1>::blocks(kTall)};
  int64_t j = strip.begin;
  for (int64_t column = 0; column < widths.count; j += widths.size(column++) * kLane) {
    const int blocks = widths.size(column);
    for (int64_t i = 0; i < block.count; i += kTall) {
      const int rows = static_cast<int>(block.count - i < kTall ? block.count - i : kTall);
      outer_tile(strip, block, i, rows, j, blocks);
    }
  }
}

// One or two strips of columns, for one block of k.
template <class T>
inline void outer_strips(const OuterProduct<T>& p, OuterStrip<T>* strips, int count, int64_t k,
                         int64_t depth, bool first, bool last) {
  constexpr int64_t kTall = TileShape<1>::kTallest;
  constexpr int64_t kHigh = kOuterHeight / kTall * kTall;
  int64_t width = 0;
  for (int s = 0; s < count; ++s) {
    T* packed = p.scratch + s * p.strip;
    pack_b(strips[s], k, depth, packed);
    strips[s].packed = packed;
    width += strips[s].end - strips[s].begin;
  }
  const bool narrow = width <= 2 * TileShape<1>::blocks(kTall) * kLanes<T>;
  T* gradients = p.scratch + 2 * p.strip;
  for (int64_t i = p.begin; i < p.end; i += kHigh) {
    const int64_t rows = p.end - i < kHigh ? p.end - i : kHigh;
    OuterBlock<T> block = {depth, i, rows, first, last, gradients, kTall, nullptr};
    if (narrow) {
      block.gradients = p.gradients + k * p.gradients_stride;
      block.k_stride = p.gradients_stride;
      block.columns = p.gradient_columns + i;
    } else {
      pack_gradients(p, k, depth, i, rows, gradients);
    }
    for (int s = 0; s < count; ++s) outer_block(strips[s], block);
  }
}

template <class T>
inline void outer_depth(const OuterProduct<T>& p, int64_t k, int64_t depth, bool first, bool last) {
  OuterStrip<T> strips[2];
  int waiting = 0;
  for (int f = 0; f < p.factors; ++f) {
    const OuterFactor<T>& factor = p.factor[f];
    for (int64_t j = 0; j < factor.columns; j += kOuterWidth) {
      const int64_t end = factor.columns - j < kOuterWidth ? factor.columns : j + kOuterWidth;
      strips[waiting++] = {&factor, j, end, nullptr};
      if (waiting < 2) continue;
      outer_strips(p, strips, waiting, k, depth, first, last);
      waiting = 0;
    }
  }
  if (waiting) outer_strips(p, strips, waiting, k, depth, first, last);
}

// Sums of a few values, row by row: panels and tiles would cost more than they save.
constexpr int64_t kFew = 4;

template <class T>
inline void outer_few(const OuterProduct<T>& p) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>;
  for (int64_t i = p.begin; i < p.end; ++i) {
    Vec gradient[kFew];
    for (int64_t k = 0; k < p.length; ++k) {
      gradient[k] = broadcast(p.gradients[k * p.gradients_stride + p.gradient_columns[i]]);
    }
    for (int f = 0; f < p.factors; ++f) {
      const OuterFactor<T>& factor = p.factor[f];
      T* to = (factor.add_to ? factor.add_to : factor.c) + i * factor.c_stride;
      for (int64_t j = 0; j < factor.columns; j += kLane) {
        const int exist = existing<T>(factor.columns - j);
        Vec sum = {};
        for (int64_t k = 0; k < p.length; ++k) {
          sum = fma(gradient[k], load_upto(factor.b[k] + j, exist), sum);
        }
        store_upto(to + j, factor.add_to ? load_upto(to + j, exist) + sum : sum, exist);
      }
    }
  }
}

template <class T>
void outer_product(const OuterProduct<T>& p) {
  if (p.length <= kFew && p.finished && !p.accumulate) return outer_few(p);
  const int64_t parts = (p.length + kOuterDepth - 1) / kOuterDepth;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t k = p.length * part / parts;
    outer_depth(p, k, p.length * (part + 1) / parts - k, part == 0 && !p.accumulate,
                part + 1 == parts && p.finished);
  }
}

// sums[j] = sum over k ascending of rows[k][j]: the gradient of a bias, in slot order.
template <class T>
void sum_rows(const T* rows, ptrdiff_t stride, int64_t length, int64_t begin, int64_t end,
              bool accumulate, T* sums) {
  constexpr int kLane = kLanes<T>;
  for (int64_t j = begin; j < end; j += kGroup) {
    typename VecOf<T>::Vec sum[kGroup / kLane] = {};
    for (int v = 0; accumulate && v < kGroup / kLane; ++v) {
      const int64_t at = j + v * kLane;
      sum[v] = load_upto(sums + at, existing<T>(end - at));
    }
    for (int64_t k = 0; k < length; ++k) {
      for (int v = 0; v < kGroup / kLane; ++v) {
        const int64_t at = j + v * kLane;
        sum[v] = sum[v] + load_upto(rows + k * stride + at, existing<T>(end - at));
      }
    }
    for (int v = 0; v < kGroup / kLane; ++v) {
      const int64_t at = j + v * kLane;
      store_upto(sums + at, sum[v], existing<T>(end - at));
    }
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
