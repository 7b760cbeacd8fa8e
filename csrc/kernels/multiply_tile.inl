// THE inner product: a tile of rows times packed panels.
//
//   to[m][b][g][lane] = from[m][b][g][lane] + sum over k of rows[m][k] * panel[b][k][g][lane]
//
// One chain of fused multiply-adds an output, in ascending k, starting from what it is added to:
// the same bits for any tile height, number of blocks, batch, thread or vector width. The sums are
// read once, live in registers over all k, and are written once, to a tile that stays in L1.
// A panel is read once a tile, a row's value is broadcast to `kGates * kBlocks` vectors. How a
// panel holds weights is the format's matter (weights.inl); sums of 8-bit weights are whole numbers
// and are added to the tile once, scaled.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int kMaxRows = 8;    // of a tile
constexpr int kMaxBlocks = 8;  // of a tile, one gate each

// The values of k may come in equal segments: a GRU's product skips one slot in four.
template <class Format>
struct Product {
  const typename Format::Row* const* rows = nullptr;
  ptrdiff_t k_stride = 1;  // between a row's neighbouring values
  const typename Format::Word* panel = nullptr;
  ptrdiff_t block_stride = 0;  // between the panels of neighbouring blocks, in words
  int64_t segments = 1, segment_length = 0;
  ptrdiff_t segment_stride = 0;
  // Lines of the panel to come, that this tile asks for while it multiplies. Null: none.
  const typename Format::Word* ahead = nullptr;
};

// Where a tile's sums come from and where they go.
template <class T>
struct TileSums {
  const T* from[kMaxBlocks];  // of each block, in the first row
  ptrdiff_t from_row, from_gate;
  T* to;               // [row][block]
  ptrdiff_t to_block;  // between neighbours of these
};

// A tile [row][block][slot][lane] that is added to.
template <class T>
inline TileSums<T> in_place(T* tile, int blocks, int slots) {
  TileSums<T> sums;
  sums.to = tile;
  sums.to_block = slots * kLanes<T>;
  sums.from_row = blocks * sums.to_block;
  sums.from_gate = kLanes<T>;
  for (int b = 0; b < blocks; ++b) sums.from[b] = tile + b * sums.to_block;
  return sums;
}
// From +0 into a tile of one gate.
template <class T>
inline TileSums<T> from_zero(T* tile, int blocks) {
  alignas(kVectorBytes) static constexpr T kZeros[kLanes<T>] = {};
  TileSums<T> sums;
  sums.to = tile;
  sums.to_block = kLanes<T>;
  sums.from_row = sums.from_gate = 0;
  for (int b = 0; b < blocks; ++b) sums.from[b] = kZeros;
  return sums;
}

// Where a panel serves few tiles, the first of them would wait for L3 as long as it multiplies. So
// the two first tiles of a panel ask for the next one, two lines for every line that they read.
constexpr int kAskers = 2, kLinesAhead = 2;
// Products of one gate are those of backward: they have many tiles a panel. Few rows leave no time
// between loads.
constexpr bool asks_ahead(int gates, int rows) { return gates > 1 && rows >= 3; }

template <class Format>
constexpr ptrdiff_t kAheadLine = 64 / static_cast<ptrdiff_t>(sizeof(typename Format::Word));

// Where in the panel to come a tile begins to ask, when its own has so many lines.
template <class Format>
constexpr ptrdiff_t ahead_of(int64_t tile, int64_t lines) {
  return tile * lines * kLinesAhead * kAheadLine<Format>;
}

// What one value of k, or of as many as a word holds, adds to the sums. Whatever there is less of,
// values of rows or vectors of weights, waits in registers.
template <class Format, int kPart, int kGates, int kRows, int kBlocks>
inline __attribute__((always_inline)) void add_step(
    const typename Format::Row* const (&rows)[kRows], ptrdiff_t at,
    const typename Format::Word* const (&panel)[kBlocks], ptrdiff_t in_panel,
    typename Format::Sum (&sum)[kRows][kGates * kBlocks]) {
  constexpr int kLane = kLanes<typename Format::Real>, kWidth = kGates * kBlocks;
  if constexpr (kRows >= kWidth) {
    typename Format::Weights weights[kWidth];
#pragma GCC unroll 16
    for (int v = 0; v < kWidth; ++v) {
      weights[v] =
          Format::template weights<kPart>(panel[v / kGates] + in_panel + (v % kGates) * kLane);
    }
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const typename Format::Value value = Format::value(rows[m] + at);
#pragma GCC unroll 16
      for (int v = 0; v < kWidth; ++v) {
        sum[m][v] = Format::multiply_add(value, weights[v], sum[m][v]);
      }
    }
  } else {
    typename Format::Value value[kRows];
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) value[m] = Format::value(rows[m] + at);
#pragma GCC unroll 16
    for (int v = 0; v < kWidth; ++v) {
      const typename Format::Weights weights =
          Format::template weights<kPart>(panel[v / kGates] + in_panel + (v % kGates) * kLane);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        sum[m][v] = Format::multiply_add(value[m], weights, sum[m][v]);
      }
    }
  }
}

// Adds one product to sums in registers.
template <class Format, int kGates, int kRows, int kBlocks>
inline __attribute__((always_inline)) void add_product(
    const Product<Format>& product, typename Format::Sum (&sum)[kRows][kGates * kBlocks]) {
  constexpr int kLine = kGates * kLanes<typename Format::Real>;
  const typename Format::Word* panel[kBlocks];
  for (int b = 0; b < kBlocks; ++b) panel[b] = product.panel + b * product.block_stride;
  const typename Format::Row* rows[kRows];
  for (int m = 0; m < kRows; ++m) rows[m] = product.rows[m];
  ptrdiff_t in_panel = Format::kHeader * kLine;
  const typename Format::Word* ahead = product.ahead ? product.ahead : panel[0];
  const ptrdiff_t k_stride = product.k_stride;
  for (int64_t segment = 0; segment < product.segments; ++segment) {
    ptrdiff_t at = segment * product.segment_stride;
    for (int64_t word = 0; word < product.segment_length / Format::kParts; ++word) {
      if constexpr (asks_ahead(kGates, kRows)) {
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + kAheadLine<Format>, 0, 2);
        ahead += kLinesAhead * kAheadLine<Format>;
      }
      add_step<Format, 0, kGates, kRows, kBlocks>(rows, at, panel, in_panel, sum);
      if constexpr (Format::kParts == 2) {
        add_step<Format, 1, kGates, kRows, kBlocks>(rows, at + k_stride, panel, in_panel, sum);
      }
      at += Format::kParts * k_stride;
      in_panel += kLine;
    }
    if (Format::kParts == 2 && product.segment_length % 2) {
      add_step<Format, 0, kGates, kRows, kBlocks>(rows, at, panel, in_panel, sum);
      in_panel += kLine;
    }
  }
}

// `count` products after one another, of the same rows and blocks.
template <class Format, int kGates, int kRows, int kBlocks>
void multiply_tile(const Product<Format>* products, int count,
                   const TileSums<typename Format::Real>& sums) {
  constexpr int kLane = kLanes<typename Format::Real>, kWidth = kGates * kBlocks;
  const auto from = [&](int m, int v) {
    return sums.from[v / kGates] + m * sums.from_row + v % kGates * sums.from_gate;
  };
  const auto to = [&](int m, int v) {
    return sums.to + (m * kBlocks + v / kGates) * sums.to_block + v % kGates * kLane;
  };
  if constexpr (Format::kScaled) {
    for (int m = 0; m < kRows; ++m) {
      for (int v = 0; v < kWidth; ++v) store(to(m, v), load(from(m, v)));
    }
    for (int i = 0; i < count; ++i) {
      typename Format::Sum sum[kRows][kWidth];
      const auto* header = products[i].panel;
      const auto at = [&](int v) {
        return header + v / kGates * products[i].block_stride + v % kGates * kLane;
      };
#pragma GCC unroll 16
      for (int v = 0; v < kWidth; ++v) {
        const auto start = Format::start(at(v), kGates * kLane);
        for (int m = 0; m < kRows; ++m) sum[m][v] = start;
      }
      add_product<Format, kGates, kRows, kBlocks>(products[i], sum);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; ++m) {
        const auto scale = Format::scale_of(products[i].rows[m]);
#pragma GCC unroll 16
        for (int v = 0; v < kWidth; ++v) {
          typename Format::Real* at_to = to(m, v);
          store(at_to, fma(to_float(sum[m][v]), scale * Format::scales(at(v)), load(at_to)));
        }
      }
    }
  } else {
    typename Format::Sum sum[kRows][kWidth];
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 16
      for (int v = 0; v < kWidth; ++v) sum[m][v] = load(from(m, v));
    }
    for (int i = 0; i < count; ++i) add_product<Format, kGates, kRows, kBlocks>(products[i], sum);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 16
      for (int v = 0; v < kWidth; ++v) store(to(m, v), sum[m][v]);
    }
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

template <class Format>
using MultiplyTile = void (*)(const Product<Format>*, int, const TileSums<typename Format::Real>&);

template <class Format>
struct TileTable {
  MultiplyTile<Format> at[kMaxRows][kMaxBlocks] = {};
};

template <class Format, int kGates, int kRows, int kBlocks>
constexpr void fill_tiles(TileTable<Format>& table) {
  if constexpr (kBlocks <= TileShape<kGates>::blocks(kRows)) {
    table.at[kRows - 1][kBlocks - 1] = multiply_tile<Format, kGates, kRows, kBlocks>;
    fill_tiles<Format, kGates, kRows, kBlocks + 1>(table);
  } else if constexpr (kRows < TileShape<kGates>::kTallest) {
    fill_tiles<Format, kGates, kRows + 1, 1>(table);
  }
}

template <class Format, int kGates>
constexpr TileTable<Format> make_tiles() {
  TileTable<Format> table;
  fill_tiles<Format, kGates, 1, 1>(table);
  return table;
}

// multiply_tile for a height and a width known only at run time.
template <class Format, int kGates>
inline MultiplyTile<Format> choose_tile(int rows, int blocks) {
  static constexpr TileTable<Format> kTable = make_tiles<Format, kGates>();
  return kTable.at[rows - 1][blocks - 1];
}

// A number split into parts of nearly equal size, none larger than `most`: a last tile of one row
// or block would be half as fast.
struct Parts {
  int64_t count;
  int smaller;     // size
  int64_t larger;  // how many, the first ones, are larger by one

  Parts(int64_t whole, int64_t most)
      : count((whole + most - 1) / most),
        smaller(count ? static_cast<int>(whole / count) : 0),
        larger(count ? whole % count : 0) {}
  int size(int64_t i) const { return smaller + (i < larger); }
};

// How rows, and vectors of units beside each other, are split into tiles whose sums fit registers.
template <int kGates>
inline Parts tile_heights(int64_t rows) {
  return {rows, TileShape<kGates>::kTallest};
}
template <int kGates>
inline Parts tile_widths(int64_t blocks, const Parts& heights) {
  return {blocks, TileShape<kGates>::blocks(heights.size(0))};
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
