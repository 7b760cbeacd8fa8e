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
  int64_t first;       // of the member's rows, counted
  int64_t first_row;   // that one's batch row
  int64_t row_stride;  // between neighbours
  int rows;
  int64_t unit;
  int blocks;
  int64_t next_unit;  // of the blocks to come; after the last the first, for the next step
  int64_t tile;       // which of the tiles that share the blocks

  int64_t row(int m) const { return first_row + m * row_stride; }
};

// Calls work(place) for the groups of units [group_begin, group_end) and, of the member's rows,
// those counted begin to end.
template <class T, int kGates, class Work>
inline void for_each_tile(const Share& share, int64_t group_begin, int64_t group_end, int64_t begin,
                          int64_t end, const Work& work) {
  constexpr int kLane = kLanes<T>;
  if (begin >= end) return;
  const Parts heights = tile_heights<kGates>(end - begin);
  const Parts widths = tile_widths<kGates>((group_end - group_begin) * (kGroup / kLane), heights);
  TilePlace place;
  place.row_stride = share.row_stride;
  place.unit = group_begin * kGroup;
  for (int64_t column = 0; column < widths.count; ++column, place.unit = place.next_unit) {
    place.blocks = widths.size(column);
    const bool last = column + 1 == widths.count;
    place.next_unit = last ? group_begin * kGroup : place.unit + place.blocks * kLane;
    place.first = begin;
    for (place.tile = 0; place.tile < heights.count; ++place.tile, place.first += place.rows) {
      place.rows = heights.size(place.tile);
      place.first_row = share.row_begin + place.first * share.row_stride;
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
  Product<Format> product = panels_of<Format>(panels, 1, length, place.unit);
  const typename Format::Row* rows[kMaxRows];
  for (int m = 0; m < place.rows; ++m) rows[m] = row_of(place.row(m));
  product.rows = rows;
  choose_tile<Format, 1>(place.rows, place.blocks)(&product, 1, from_zero(tile, place.blocks));
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
