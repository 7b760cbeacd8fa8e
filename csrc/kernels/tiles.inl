// How a member of the team walks over its part of a step.
//
// Units outside, rows inside: a panel is read from memory once and from cache by all further rows.
// Heights and widths of tiles are in balance, since a last tile of one row or block is half as
// fast.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// Where a vector of units starts in a slot row. Without a sign the divisions are shifts.
template <class T>
inline ptrdiff_t slot_at(int64_t unit, int slots, int slot) {
  const uint64_t whole = static_cast<uint64_t>(unit);
  const uint64_t group = whole / kGroup, in_group = whole % kGroup;
  return static_cast<ptrdiff_t>(group) * slots * kGroup + slot * kGroup +
         static_cast<ptrdiff_t>(in_group);
}

// Some batch rows by some blocks of units.
struct TilePlace {
  int64_t row[kMaxRows];
  int rows;
  int64_t unit;
  int blocks;
  int64_t next_unit;  // of the blocks to come; after the last the first, for the next step
  int64_t tile;       // which of the tiles that share the blocks
};

// The panels of a tile's blocks; the first tiles ask for those to come.
template <class Format>
inline Product<Format> panels_at(const void* panels, int gates, int64_t length,
                                 const TilePlace& place) {
  auto product = panels_of<Format>(panels, gates, length, place.unit);
  if (place.tile < kAskers) {
    const auto next = panels_of<Format>(panels, gates, length, place.next_unit);
    product.ahead = next.panel + ahead_of<Format>(place.tile, product.segment_length);
  }
  return product;
}

// Calls work(place) for the groups of units [group_begin, group_end) and, of the member's rows,
// those counted begin to end.
template <class T, int kGates, class Work>
inline void for_each_tile(const Share& share, int64_t group_begin, int64_t group_end, int64_t begin,
                          int64_t end, const Work& work) {
  constexpr int kLane = kLanes<T>;
  if (begin >= end) return;
  TilePlace place;
  const int64_t unit_end = group_end * kGroup;
  for (place.unit = group_begin * kGroup; place.unit < unit_end;
       place.unit += place.blocks * kLane) {
    const int64_t left = (unit_end - place.unit) / kLane;
    place.blocks = next_tile_blocks<kGates>(left, next_tile_rows<kGates>(end - begin));
    place.next_unit = place.unit + place.blocks * kLane;
    if (place.next_unit >= unit_end) place.next_unit = group_begin * kGroup;
    place.tile = 0;
    for (int64_t i = begin; i < end; i += place.rows, ++place.tile) {
      place.rows = next_tile_rows<kGates>(end - i);
      for (int m = 0; m < place.rows; ++m) {
        place.row[m] = share.row_begin + (i + m) * share.row_stride;
      }
      work(place);
    }
  }
}

// How many of the rows that are alive at step s are this member's.
inline int64_t rows_of(const Share& share, int64_t s) {
  const int64_t alive = share.offsets[s + 1] - share.offsets[s];
  return alive <= share.row_begin ? 0 : (alive - share.row_begin - 1) / share.row_stride + 1;
}

// Sums of a tile of single gates from zero: rows of any address times the panels of its blocks. The
// tile is [row][block][lane].
template <class Format, class RowOf>
inline void multiply_plain(const TilePlace& place, const void* panels, int64_t length,
                           const RowOf& row_of, typename Format::Real* tile) {
  using T = typename Format::Real;
  constexpr int kLane = kLanes<T>;
  Product<Format> product = panels_of<Format>(panels, 1, length, place.unit);
  for (int m = 0; m < place.rows; ++m) product.rows[m] = row_of(place.row[m]);
  for (int v = 0; v < place.rows * place.blocks; ++v) {
    store(tile + v * kLane, typename VecOf<T>::Vec{});
  }
  choose_tile<Format, 1>(place.rows, place.blocks)(&product, 1, tile);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
