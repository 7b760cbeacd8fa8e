// THE inner product: a tile of rows times packed panels.
//
//   tile[m][b][g][lane] += sum over k ascending of rows[m][k] * panel[b][k][g][lane]
//
// One chain of fused multiply-adds an output, in ascending k, starting from what the tile holds:
// the same bits for any tile height, number of blocks, batch, thread or vector width. The tile is
// read once, lives in registers over all k, and is written once; it stays in L1 on both sides.
// A panel is read once a tile, a row's value is broadcast to `kGates * kBlocks` vectors.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int kMaxRows = 8;    // of a tile
constexpr int kMaxBlocks = 8;  // of a tile, one gate each

// The values of k may come in equal segments: a GRU's product skips one slot in four.
template <class T>
struct Product {
  const T* rows[kMaxRows];
  ptrdiff_t k_stride = 1;  // between a row's neighbouring k
  const T* panel = nullptr;
  ptrdiff_t block_stride = 0;  // between the panels of neighbouring blocks
  int64_t segments = 1, segment_length = 0;
  ptrdiff_t segment_stride = 0;
};

// Adds one product to sums in registers.
template <class T, int kGates, int kRows, int kBlocks>
inline __attribute__((always_inline)) void add_product(
    const Product<T>& product, typename VecOf<T>::Vec (&sum)[kRows][kGates * kBlocks]) {
  using Vec = typename VecOf<T>::Vec;
  constexpr int kLane = kLanes<T>, kWidth = kGates * kBlocks;
  const T* panel[kBlocks];
  for (int b = 0; b < kBlocks; ++b) panel[b] = product.panel + b * product.block_stride;
  const T* rows[kRows];
  for (int m = 0; m < kRows; ++m) rows[m] = product.rows[m];
  ptrdiff_t at = 0, in_panel = 0;
  const ptrdiff_t k_stride = product.k_stride;
  for (int64_t segment = 0; segment < product.segments; ++segment) {
    at = segment * product.segment_stride;
    for (int64_t k = 0; k < product.segment_length; ++k) {
      if constexpr (kRows >= kWidth) {
        Vec weights[kWidth];
#pragma GCC unroll 16
        for (int v = 0; v < kWidth; ++v) {
          weights[v] = load(panel[v / kGates] + in_panel + (v % kGates) * kLane);
        }
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) {
          const Vec value = broadcast(rows[m][at]);
#pragma GCC unroll 16
          for (int v = 0; v < kWidth; ++v) sum[m][v] = fma(value, weights[v], sum[m][v]);
        }
      } else {
        Vec value[kRows];
#pragma GCC unroll 8
        for (int m = 0; m < kRows; ++m) value[m] = broadcast(rows[m][at]);
#pragma GCC unroll 16
        for (int v = 0; v < kWidth; ++v) {
          const Vec weights = load(panel[v / kGates] + in_panel + (v % kGates) * kLane);
#pragma GCC unroll 8
          for (int m = 0; m < kRows; ++m) sum[m][v] = fma(value[m], weights, sum[m][v]);
        }
      }
      at += k_stride;
      in_panel += kGates * kLane;
    }
  }
}

// `count` products after one another, of the same rows and blocks.
template <class T, int kGates, int kRows, int kBlocks>
void multiply_tile(const Product<T>* products, int count, T* tile) {
  constexpr int kLane = kLanes<T>, kWidth = kGates * kBlocks;
  typename VecOf<T>::Vec sum[kRows][kWidth];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kWidth; ++v) sum[m][v] = load(tile + (m * kWidth + v) * kLane);
  }
  for (int i = 0; i < count; ++i) add_product<T, kGates, kRows, kBlocks>(products[i], sum);
#pragma GCC unroll 8
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kWidth; ++v) store(tile + (m * kWidth + v) * kLane, sum[m][v]);
  }
}

// How tall and wide tiles may be so that sums and operands stay in registers.
template <int kGates>
struct TileShape {
  static constexpr int kTallest =
      kGates == 1 ? (kMaxAccumulators / 4 < kMaxRows ? kMaxAccumulators / 4 : kMaxRows)
                  : (kMaxAccumulators / kGates < kMaxRows ? kMaxAccumulators / kGates : kMaxRows);
  static constexpr int kWidest = kGates == 1 ? kMaxBlocks : 4;
  // Blocks that a tile of `rows` rows may take at once.
  static constexpr int blocks(int rows) {
    const int fit = kMaxAccumulators / (kGates * rows);
    return fit < 1 ? 1 : fit < kWidest ? fit : kWidest;
  }
};

template <class T>
using MultiplyTile = void (*)(const Product<T>*, int, T*);

template <class T>
struct TileTable {
  MultiplyTile<T> at[kMaxRows][kMaxBlocks] = {};
};

template <class T, int kGates, int kRows, int kBlocks>
constexpr void fill_tiles(TileTable<T>& table) {
  if constexpr (kBlocks <= TileShape<kGates>::blocks(kRows)) {
    table.at[kRows - 1][kBlocks - 1] = multiply_tile<T, kGates, kRows, kBlocks>;
    fill_tiles<T, kGates, kRows, kBlocks + 1>(table);
  } else if constexpr (kRows < TileShape<kGates>::kTallest) {
    fill_tiles<T, kGates, kRows + 1, 1>(table);
  }
}

template <class T, int kGates>
constexpr TileTable<T> make_tiles() {
  TileTable<T> table;
  fill_tiles<T, kGates, 1, 1>(table);
  return table;
}

// multiply_tile for a height and a width known only at run time.
template <class T, int kGates>
inline MultiplyTile<T> choose_tile(int rows, int blocks) {
  static constexpr TileTable<T> kTable = make_tiles<T, kGates>();
  return kTable.at[rows - 1][blocks - 1];
}

// Splits `count` rows into tiles of nearly equal height, none taller than the registers allow.
template <int kGates>
inline int next_tile_rows(int64_t remaining) {
  constexpr int64_t kTallest = TileShape<kGates>::kTallest;
  const int64_t tiles = (remaining + kTallest - 1) / kTallest;
  return static_cast<int>((remaining + tiles - 1) / tiles);
}

// Splits blocks into tiles of nearly equal width: a last tile of one block would be half as fast.
template <int kGates>
inline int next_tile_blocks(int64_t remaining, int rows) {
  const int64_t fit = TileShape<kGates>::blocks(rows);
  const int64_t tiles = (remaining + fit - 1) / fit;
  return static_cast<int>((remaining + tiles - 1) / tiles);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
