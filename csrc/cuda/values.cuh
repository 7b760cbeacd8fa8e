// Numbers, rows and times: what every kernel says of its arguments.
#pragma once

#include "cuda/arguments.h"
#include "cuda/device.cuh"

namespace rnncore {
namespace cuda {

// The type of sums and states that belongs to a type of sequences.
template <class T>
struct RealOf {
  using Real = float;
};
template <>
struct RealOf<double> {
  using Real = double;
};
template <class T>
using Real = typename RealOf<T>::Real;

template <class Value>
RNNCORE_DEVICE Value constant(double value) {
  return static_cast<Value>(value);
}
template <class Value>
RNNCORE_DEVICE Value select(bool condition, Value a, Value b) {
  return condition ? a : b;
}

// --- sequences' numbers, widened ----------------------------------------------------------------

RNNCORE_DEVICE float load(const float* from) { return read(from); }
RNNCORE_DEVICE double load(const double* from) { return read(from); }
RNNCORE_DEVICE float load(const Float16* from) { return widen(read(from)); }
RNNCORE_DEVICE float load(const BFloat16* from) { return widen(read(from)); }

RNNCORE_DEVICE void store(float* to, float value) { write(to, value); }
RNNCORE_DEVICE void store(double* to, double value) { write(to, value); }
template <class T>
RNNCORE_DEVICE void store(T* to, float value) {
  T narrowed;
  narrow(value, narrowed);
  write(to, narrowed);
}

// --- rows ---------------------------------------------------------------------------------------

template <class T>
RNNCORE_DEVICE T* row_at(const Rows& rows, Index t, Index r) {
  const Index time = rows.offsets ? read(rows.offsets + t) : t;
  const Index row = rows.order ? read(rows.order + r) : r;
  return static_cast<T*>(rows.data) + time * rows.time_stride + row * rows.row_stride;
}

template <class T>
RNNCORE_DEVICE T* at(const void* data, Index index) {
  return const_cast<T*>(static_cast<const T*>(data)) + index;
}

// --- times --------------------------------------------------------------------------------------

// Lengths may have been given on the device, where nobody looked at them before.
RNNCORE_DEVICE Index length_of(const int* lengths, Index steps, Index r) {
  if (!lengths) return steps;
  const Index length = read(lengths + r);
  return length < 0 ? 0 : length > steps ? steps : length;
}

// A row at a step.
struct Place {
  Index r, s, t, length;
  bool alive, fresh;  // fresh: a segment starts, from zeros
};

RNNCORE_DEVICE bool is_fresh(const Steps& common, Index t, Index length, Index r) {
  if (!common.resets.data) return false;
  if (common.reverse) ++t;
  return t < length && read(row_at<unsigned char>(common.resets, t, r)) != 0;
}

RNNCORE_DEVICE Place place_of(const Steps& common, Index s, Index r) {
  Place place;
  place.r = r;
  place.s = s;
  place.length = length_of(common.lengths, common.steps, r);
  place.alive = s < place.length;
  place.t = common.reverse ? place.length - 1 - s : s;
  place.fresh = place.alive && is_fresh(common, place.t, place.length, r);
  return place;
}

RNNCORE_DEVICE Index time_before(const Steps& common, const Place& place) {
  return common.reverse ? place.t + 1 : place.t - 1;
}

// Which of `count` things, and which unit of `width`, the thread has; false: none.
RNNCORE_DEVICE bool thread_unit(Index count, Index width, Index& r, Index& u) {
  const unsigned index =
      static_cast<unsigned>(block_x()) * static_cast<unsigned>(thread_count()) + thread_index();
  const unsigned wide = static_cast<unsigned>(width);
  r = index / wide;
  u = index % wide;
  return r < count;
}

}  // namespace cuda
}  // namespace rnncore

// Cells are written in these words.
#include "cells/list.h"
