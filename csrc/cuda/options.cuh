// What acts on a cell from outside, beyond its equations: masks, zoneout, chosen activations.
#pragma once

#include "cuda/values.cuh"

namespace rnncore {
namespace cuda {

// The cells by name, for entry points.
#define RNNCORE_NAMED_CELL(name, Equations, PlainCandidate, has_plain) \
  struct cell_##name {                                                 \
    using Type = Equations;                                            \
    using Candidate = PlainCandidate;                                  \
  };
RNNCORE_CELLS(RNNCORE_NAMED_CELL)
#undef RNNCORE_NAMED_CELL

template <class Cell>
struct Phases {
  static constexpr bool kTwo = Cell::kFirstGates < Cell::kRecurrentGates;
  RNNCORE_DEVICE static constexpr int gates(int phase) {
    return phase ? Cell::kRecurrentGates - Cell::kFirstGates : Cell::kFirstGates;
  }
  // The first slot that a phase's product reaches.
  RNNCORE_DEVICE static constexpr int slot(int phase) {
    return Cell::kRecurrentSlot + (phase ? Cell::kFirstGates : 0);
  }
  // Whether a phase makes what the slot keeps. The only phase of a cell makes everything.
  RNNCORE_DEVICE static constexpr bool has(int phase, int slot_of_cell) {
    return !kTwo || (slot_of_cell >= slot(phase) && slot_of_cell < slot(phase) + gates(phase));
  }
};

RNNCORE_DEVICE AnyActivation any_activation(const Options& options, const Choice& choice) {
  AnyActivation activation;
  activation.kind = static_cast<ActivationKind>(choice.kind);
  activation.alpha = choice.alpha;
  activation.beta = choice.beta;
  activation.keeps_input = options.keeps_inputs;
  activation.clips = options.clip > 0;
  activation.clip = options.clip;
  return activation;
}

// The options that a cell is compiled with, from those that the host gave.
template <class Candidate>
RNNCORE_DEVICE void take_options(const Options&, PlainOptions<Candidate>&) {}
RNNCORE_DEVICE void take_options(const Options& given, AnyOptions& options) {
  options.peephole = given.peephole;
  options.gate = any_activation(given, given.gate);
  options.candidate = any_activation(given, given.candidate);
  options.output = any_activation(given, given.output);
}

template <class Value>
RNNCORE_DEVICE UnitWeights<Value> unit_weights(const Steps& common, Index u) {
  UnitWeights<Value> own = {};
  if (common.peephole) {
    for (int p = 0; p < 3; ++p) {
      own.peephole[p] = read(at<Value>(common.peephole, p * common.units + u));
    }
  }
  return own;
}

// What h is multiplied by where it enters U.
template <class T>
RNNCORE_DEVICE Real<T> entering_factor(const Steps& common, Index r, Index u) {
  if (!common.entering_mask.data) return Real<T>(1);
  return load(row_at<T>(common.entering_mask, 0, r) + u);
}

RNNCORE_DEVICE bool acts(const Zoneout& zoneout) { return zoneout.kept.data || zoneout.rate > 0; }

template <class Value>
RNNCORE_DEVICE Value mixed(const Zoneout& zoneout, const Place& place, Index u, Value old,
                           Value made) {
  if (zoneout.kept.data) {
    return read(row_at<unsigned char>(zoneout.kept, place.t, place.r) + u) ? old : made;
  }
  if (!(zoneout.rate > 0)) return made;
  const Value rate = constant<Value>(zoneout.rate);
  return fma(rate, old, (constant<Value>(1.0) - rate) * made);
}

// A gradient's parts for the new value and for the old one.
template <class Value>
struct Parted {
  Value made, old;
};

template <class Value>
RNNCORE_DEVICE Parted<Value> parted(const Zoneout& zoneout, const Place& place, Index u, Value d) {
  const Value none = constant<Value>(0.0);
  if (zoneout.kept.data) {
    if (read(row_at<unsigned char>(zoneout.kept, place.t, place.r) + u)) return {none, d};
    return {d, none};
  }
  if (!(zoneout.rate > 0)) return {d, none};
  const Value rate = constant<Value>(zoneout.rate);
  return {(constant<Value>(1.0) - rate) * d, rate * d};
}

}  // namespace cuda
}  // namespace rnncore
