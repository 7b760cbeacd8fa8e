// Whole-sequence products: the input projection, dx, linear layers.
//
//   c[i, columns] = start + sum over k of a[i, k] panels[k, columns], rows given by address
//
// The same inner product as the recurrence, blocked for the caches: kDepth values of k (a tile's
// rows stay in L1), kHeight rows (stay in L2), and each panel is read once for all of these. The
// sum over k stays one chain: between blocks of k it waits in c. With 8-bit weights the rows of a
// block are quantized first.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

constexpr int64_t kDepth = 1024, kHeight = kRecordsAtOnce;

template <class Format, int kGates>
struct RowsTile {
  using T = typename Format::Real;
  const RowsProduct<T>& p;
  int64_t segment_begin, segment_end;
  bool from_c;

  // Columns of gate g of the block at `unit`.
  ptrdiff_t at(int64_t unit, int g) const { return slot_at<T>(unit, p.slots, p.first_slot + g); }

  void run(int64_t first, int rows, int64_t unit, int blocks) const {
    using Vec = typename VecOf<T>::Vec;
    constexpr int kLane = kLanes<T>;
    const int64_t k_begin = segment_begin * p.segment_length;
    const int64_t k_all = p.segments * p.segment_length;
    alignas(kVectorBytes) T tile[kMaxAccumulators * kLane];
    auto product = panels_of<Format>(p.panels, kGates, k_all, unit);
    if constexpr (!Format::kScaled) {
      const bool contiguous = p.segment_stride == p.segment_length;
      const int64_t segments = segment_end - segment_begin;
      product.segments = contiguous ? 1 : segments;
      product.segment_length = contiguous ? segments * p.segment_length : p.segment_length;
      product.segment_stride = p.segment_stride;
      product.panel += k_begin / Format::kPack * kGates * kLane;
    }
    const typename Format::Row* row[kMaxRows];
    product.rows = row;
    T* to = tile;
    for (int m = 0; m < rows; ++m) {
      if constexpr (Format::kScaled) {
        row[m] = row_of_record(p.records + (first + m) % kHeight * record_bytes(k_all));
      } else {
        row[m] = p.a[first + m] + segment_begin * p.segment_stride;
      }
      const T* from = from_c ? p.c[first + m] : p.start;
      for (int b = 0; b < blocks; ++b) {
        const int exist = existing<T>(p.columns - unit - b * kLane);
        for (int g = 0; g < kGates; ++g, to += kLane) {
          store(to, from ? load_upto(from + at(unit + b * kLane, g), exist) : Vec{});
        }
      }
    }
    for (int m = 0; m < rows && !from_c; ++m) {
      prefetch_row(p.c[first + m] + at(unit, 0), blocks * kGates * kLane);
    }
    choose_tile<Format, kGates>(rows, blocks)(&product, 1, in_place(tile, blocks, kGates));
    to = tile;
    for (int m = 0; m < rows; ++m) {
      for (int b = 0; b < blocks; ++b) {
        const int exist = existing<T>(p.columns - unit - b * kLane);
        for (int g = 0; g < kGates; ++g, to += kLane) {
          store_upto(p.c[first + m] + at(unit + b * kLane, g), load(to), exist);
        }
      }
    }
  }
};

template <class Format, int kGates>
void rows_product_of(const RowsProduct<typename Format::Real>& whole) {
  using T = typename Format::Real;
  constexpr int kLane = kLanes<T>;
  RowsProduct<T> p = whole;
  if (p.segments == 1) {  // one run of any length: cut it so that k can be blocked
    p.segment_stride = 1;
    p.segments = p.segment_length;
    p.segment_length = 1;
  }
  int64_t deep = kDepth / p.segment_length > 0 ? kDepth / p.segment_length : 1;
  if (Format::kScaled) deep = p.segments > 0 ? p.segments : 1;  // whole numbers have no halves
  const int64_t unit_begin = p.group_begin * kGroup, unit_end = p.group_end * kGroup;
  int64_t segment = 0;
  do {
    const int64_t segment_end = p.segments - segment < deep ? p.segments : segment + deep;
    const RowsTile<Format, kGates> tile = {p, segment, segment_end, segment > 0};
    for (int64_t top = 0; top < p.rows; top += kHeight) {
      const int64_t bottom = p.rows - top < kHeight ? p.rows : top + kHeight;
      if constexpr (Format::kScaled) {
        for (int64_t i = top; i < bottom; ++i) {
          quantize_row(p.a[i], p.segments, p.records + (i - top) * record_bytes(p.segments));
        }
      }
      const Parts heights = tile_heights<kGates>(bottom - top);
      const Parts widths = tile_widths<kGates>((unit_end - unit_begin) / kLane, heights);
      int64_t unit = unit_begin;
      for (int64_t j = 0; j < widths.count; unit += widths.size(j++) * kLane) {
        int64_t i = top;
        for (int64_t k = 0; k < heights.count; i += heights.size(k++)) {
          tile.run(i, heights.size(k), unit, widths.size(j));
        }
      }
    }
    segment = segment_end;
  } while (segment < p.segments);
}

template <class Format>
void rows_product(const RowsProduct<typename Format::Real>& p) {
  if (p.gates == 4) {
    rows_product_of<Format, 4>(p);
  } else if (p.gates == 3) {
    rows_product_of<Format, 3>(p);
  } else if (p.gates == 2) {
    rows_product_of<Format, 2>(p);
  } else {
    rows_product_of<Format, 1>(p);
  }
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
