// Where a step of the forward loop reads and writes: states, slots and products by batch row.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

// The rows of one step.
template <class T>
struct ForwardStep {
  int64_t s;
  T* slots;
  const T *h_read, *entering;
  T *h_write, *entering_write;
  const T* c_read;
  T* c_write;
  ptrdiff_t c_read_stride, c_write_stride;
  T* hidden;
  const unsigned char* fresh;
  NormalisedRows<T> normalised;
};

template <class T>
inline ForwardStep<T> forward_step(const ForwardLoop<T>& loop, int64_t s) {
  const int64_t* offsets = loop.share.offsets;
  const ptrdiff_t wide = padded(loop.units), state = loop.state_stride;
  ForwardStep<T> step = {};
  step.s = s;
  const int64_t row = loop.dense ? (s - loop.share.step_begin) * loop.dense : offsets[s];
  step.slots = loop.slots + row * loop.slots_stride;
  step.h_read = loop.h[s % 2];
  step.h_write = loop.h[(s + 1) % 2];
  step.entering = loop.entering[0] ? loop.entering[s % 2] : step.h_read;
  step.entering_write = loop.entering[(s + 1) % 2];
  const bool from_initial = !loop.keep_c || s == 0;
  step.c_read = from_initial ? loop.c : loop.c_kept + offsets[s - 1] * wide;
  step.c_read_stride = from_initial ? state : wide;
  step.c_write = loop.keep_c ? loop.c_kept + offsets[s] * wide : loop.c;
  step.c_write_stride = loop.keep_c ? wide : state;
  if (loop.hidden) step.hidden = loop.hidden + (loop.keep ? offsets[s] * wide : 0);
  if (loop.options && loop.options->fresh) step.fresh = loop.options->fresh + offsets[s];
  step.normalised = loop.normalised.from(row);
  return step;
}

// Whether a place's states are known, and only its slots and hidden are made again.
template <class T>
inline bool is_known(const ForwardLoop<T>& loop, const CellPlace&) {
  return loop.known_h != nullptr;
}
template <class T>
inline bool is_known(const ForwardLoop<T>&, const UsualPlace<T>&) {
  return false;
}

// A row's states before the step. Where a segment starts they are zero, whatever came before.
template <class T>
inline bool is_fresh(const ForwardStep<T>& step, int64_t row) {
  return step.fresh && step.fresh[row];
}
template <class T>
inline const T* entering_row(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t row) {
  if (loop.known_h) return loop.known_h[loop.share.offsets[step.s] + row];
  return is_fresh(step, row) ? loop.options->zeros : step.entering + row * loop.state_stride;
}
template <bool kOptions, class Vec, class T, class Place>
inline Vec h_before(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& at) {
  if (is_known(loop, at) || (kOptions && is_fresh(step, at.row))) return Vec{};
  return load(step.h_read + at.row * loop.state_stride + at.unit);
}
template <bool kOptions, class Vec, class T, class Place>
inline Vec c_before(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& at) {
  if (is_known(loop, at)) {
    return load(loop.known_c[loop.share.offsets[step.s] + at.row] + at.unit);
  }
  if (kOptions && is_fresh(step, at.row)) return Vec{};
  return load(step.c_read + at.row * step.c_read_stride + at.unit);
}
template <class T>
inline T* hidden_row(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t row) {
  return step.hidden + row * padded(loop.units);
}

// Where products find these rows: where they are, or in the records that this member made.
template <class Format, class T>
inline const typename Format::Row* operand(const T* row_of_values, const char* records, int64_t row,
                                           int64_t length) {
  if constexpr (Format::kScaled) {
    return row_of_record(records + row * record_bytes(length));
  } else {
    return row_of_values;
  }
}

// Makes the records of the first `count` of this member's rows. Members that share rows make the
// same ones each: that costs less than waiting for one another.
template <class Format, class T>
inline void quantize_step(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  if constexpr (Format::kScaled) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = loop.share.row_begin + i * loop.share.row_stride;
      quantize_row(entering_row(loop, step, row), loop.outputs,
                   loop.h_records + row * record_bytes(loop.outputs));
      if (!loop.input_panels) continue;
      quantize_row(loop.x.at(step.s, row), loop.inputs,
                   loop.x_records + row * record_bytes(loop.inputs));
    }
  }
}
template <class Format, class T>
inline void quantize_hidden(const ForwardLoop<T>& loop, const ForwardStep<T>& step, int64_t count) {
  if constexpr (Format::kScaled) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = loop.share.row_begin + i * loop.share.row_stride;
      quantize_row(hidden_row(loop, step, row), loop.units,
                   loop.h_records + row * record_bytes(loop.units));
    }
  }
}

template <class T, class Place, class Vec>
inline void store_hidden(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& place,
                         Vec hidden) {
  if (place.exist < kLanes<T>) hidden = keep_first<T>(hidden, place.exist);
  store(hidden_row(loop, step, place.row) + place.unit, hidden);
}

// The output of a step, for one vector of outputs: mixed with the old one, then to the state, to y
// and, less what is dropped, to what the next step multiplies.
template <bool kOptions, class T, class Place, class Vec>
inline void store_h(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& place,
                    Vec h) {
  const int64_t row = place.row, unit = place.unit;
  if (is_known(loop, place)) return;
  if constexpr (kOptions) {
    const Vec before = h_before<true, Vec>(loop, step, place);
    h = mix(loop.options->zoneout_h, step.s, place, before, h);
  }
  if (place.exist < kLanes<T>) h = keep_first<T>(h, place.exist);
  const ptrdiff_t at = row * loop.state_stride + unit;
  store(step.h_write + at, h);
  T* y = loop.y.at(step.s, row) + unit;
  store_upto(y, h, place.exist);
  __builtin_prefetch(y + kLanes<T>, 1);  // for the units to come: a store that misses is slow
  if constexpr (kOptions) {
    if (!step.entering_write) return;
    const Vec mask = load_upto(loop.options->entering_mask[row] + unit, place.exist);
    store(step.entering_write + at, h * mask);
  }
}

// c of a step, which zoneout mixes with the old one.
template <bool kOptions, class T, class Place, class Vec>
inline void store_c(const ForwardLoop<T>& loop, const ForwardStep<T>& step, const Place& place,
                    Vec before, Vec c) {
  if (is_known(loop, place)) return;
  if constexpr (kOptions) {
    c = mix(loop.options->zoneout_c, step.s, place, before, c);
  }
  if (place.exist < kLanes<T>) c = keep_first<T>(c, place.exist);
  store(step.c_write + place.row * step.c_write_stride + place.unit, c);
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
