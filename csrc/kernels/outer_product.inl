// A weight's gradient: one product over all steps and rows at once.
//
//   c[i, j] = sum over packed rows k ascending of da[k, i] b[k, j]
//
// Both operands are copied into panels that stay in cache (a tile's rows of da side by side, b in
// blocks of one vector), kOuterDepth rows of the sum at a time; between these the sum waits in c.
// Which thread owns which rows of c never changes the order of a sum.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// da[k][column(i)] for i in [begin, begin + count) as [tile][k][kTallest].
template <class T>
inline void pack_gradients(const OuterProduct<T>& p, int64_t k_begin, int64_t depth, int64_t begin,
                           int64_t count, T* packed) {
  constexpr int64_t kTall = TileShape<1>::kTallest;
  for (int64_t k = 0; k < depth; ++k) {
    const T* row = p.gradients + (k_begin + k) * p.gradients_stride;
    const int64_t* column = p.gradient_columns + begin;
    int64_t i = 0;
    for (T* to = packed + k * kTall; i + kTall <= count; i += kTall, to += depth * kTall) {
      for (int64_t m = 0; m < kTall; ++m) to[m] = row[column[i + m]];
    }
    T* to = packed + (i / kTall * depth + k) * kTall;
    for (int64_t m = 0; i + m < count; ++m) to[m] = row[column[i + m]];
  }
}

// b[k][j] for j in [begin, end) as [block][k][lane].
template <class T>
inline void pack_b(const OuterProduct<T>& p, int64_t k_begin, int64_t depth, int64_t begin,
                   int64_t end, T* packed) {
  constexpr int kLane = kLanes<T>;
  for (int64_t k = 0; k < depth; ++k) {
    const T* row = p.b[k_begin + k];
    T* to = packed + k * kLane;
    for (int64_t j = begin; j < end; j += kLane, to += depth * kLane) {
      store(to, load_upto(row + j, existing<T>(end - j)));
    }
  }
}

template <class T>
struct OuterBlock {
  int64_t depth, begin, count, column_begin, column_end;  // rows i and columns j of c
  bool first;                                             // of the blocks of k
  const T *gradients, *b;
};

template <class T>
inline void outer_tile(const OuterProduct<T>& p, const OuterBlock<T>& block, int64_t i, int rows,
                       int64_t j, int blocks) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kTall = TileShape<1>::kTallest;
  alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
  Product<T> product;
  product.k_stride = kTall;
  product.segment_length = block.depth;
  product.segment_stride = 0;
  product.block_stride = block.depth * kLane;
  product.panel = block.b + (j - block.column_begin) / kLane * product.block_stride;
  T* to = tile;
  for (int m = 0; m < rows; ++m) {
    product.rows[m] = block.gradients + i / kTall * block.depth * kTall + m;
    for (int v = 0; v < blocks; ++v, to += kLane) {
      const int64_t column = j + v * kLane;
      const T* from = p.c + (block.begin + i + m) * p.c_stride + column;
      const int exist = existing<T>(block.column_end - column);
      store(to, block.first ? typename VecOf<T>::Vec{} : load_upto(from, exist));
    }
  }
  choose_tile<T, 1>(rows, blocks)(product, tile);
  to = tile;
  for (int m = 0; m < rows; ++m) {
    for (int v = 0; v < blocks; ++v, to += kLane) {
      const int64_t column = j + v * kLane;
      store_upto(p.c + (block.begin + i + m) * p.c_stride + column, load(to),
                 existing<T>(block.column_end - column));
    }
  }
}

template <class T>
inline void outer_block(const OuterProduct<T>& p, const OuterBlock<T>& block) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kTall = TileShape<1>::kTallest;
  int blocks = 1;
  for (int64_t j = block.column_begin; j < block.column_end; j += blocks * kLane) {
    const int64_t left = (block.column_end - j + kLane - 1) / kLane;
    const int fit = TileShape<1>::blocks(kTall);
    blocks = fit < left ? fit : static_cast<int>(left);
    for (int64_t i = 0; i < block.count; i += kTall) {
      const int rows = static_cast<int>(block.count - i < kTall ? block.count - i : kTall);
      outer_tile(p, block, i, rows, j, blocks);
    }
  }
}

template <class T>
void outer_product(const OuterProduct<T>& p) {
  constexpr int64_t kTall = TileShape<1>::kTallest;
  constexpr int64_t kHigh = kOuterHeight / kTall * kTall;
  T* b = p.scratch;
  T* gradients = p.scratch + kOuterDepth * (kOuterWidth + kGroup);
  for (int64_t i = p.begin; p.length == 0 && !p.accumulate && i < p.end; ++i) {
    memset(p.c + i * p.c_stride, 0, static_cast<size_t>(p.columns) * sizeof(T));
  }
  for (int64_t k = 0; k < p.length; k += kOuterDepth) {
    const bool first = k == 0 && !p.accumulate;
    const int64_t depth = p.length - k < kOuterDepth ? p.length - k : kOuterDepth;
    for (int64_t j = 0; j < p.columns; j += kOuterWidth) {
      const int64_t j_end = p.columns - j < kOuterWidth ? p.columns : j + kOuterWidth;
      pack_b(p, k, depth, j, j_end, b);
      for (int64_t i = p.begin; i < p.end; i += kHigh) {
        const int64_t count = p.end - i < kHigh ? p.end - i : kHigh;
        pack_gradients(p, k, depth, i, count, gradients);
        outer_block(p, OuterBlock<T>{depth, i, count, j, j_end, first, gradients, b});
      }
    }
  }
}

// sums[j] = sum over k ascending of rows[k][j]: the gradient of a bias, in slot order.
template <class T>
void sum_rows(const T* rows, ptrdiff_t stride, int64_t length, int64_t begin, int64_t end,
              T* sums) {
  constexpr int kLane = kLanes<T>;
  for (int64_t j = begin; j < end; j += kGroup) {
    typename VecOf<T>::Vec sum[kGroup / kLane] = {};
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
