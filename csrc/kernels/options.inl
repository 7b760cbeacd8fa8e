// A cell's options as its equations take them, and which of its slots belong to which phase.
#pragma once

namespace rnncore {
namespace RNNCORE_ISA {

template <class T, class Options>
inline Options options_of(const CellOptions<T>* given) {
  Options options;
  if constexpr (!Options::kPlain) {
    const auto choose = [&](const ActivationChoice& choice) {
      AnyActivation activation;
      activation.kind = static_cast<ActivationKind>(choice.kind);
      activation.keeps_input = given->keeps_inputs;
      activation.clips = given->clip > 0;
      activation.alpha = choice.alpha;
      activation.beta = choice.beta;
      activation.clip = given->clip;
      return activation;
    };
    options.peephole = given->peephole != nullptr;
    options.gate = choose(given->gate);
    options.candidate = choose(given->candidate);
    options.output = choose(given->output);
  }
  return options;
}

template <class Cell>
constexpr bool kTwoPhases = Cell::kFirstGates < Cell::kRecurrentGates;

// Of U h: the gates that a phase's product makes, and the slot of the first of them.
template <class Cell, int kPhase>
constexpr int kPhaseGates = kPhase ? Cell::kRecurrentGates - Cell::kFirstGates : Cell::kFirstGates;
template <class Cell, int kPhase>
constexpr int kPhaseSlot = Cell::kRecurrentSlot + (kPhase ? Cell::kFirstGates : 0);

// Whether a phase computes a slot: all of them where there is one phase.
template <class Cell, int kPhase>
constexpr bool in_phase(int slot) {
  const int place = slot - kPhaseSlot<Cell, kPhase>;
  return !kTwoPhases<Cell> || (place >= 0 && place < kPhaseGates<Cell, kPhase>);
}

// A unit's own weights from `unit` on.
template <class Vec, class T>
inline void load_unit_weights(const CellOptions<T>& options, int64_t units, int64_t unit,
                              UnitWeights<Vec>& own) {
  if (!options.peephole) return;
  for (int p = 0; p < 3; ++p) own.peephole[p] = load(options.peephole + p * padded(units) + unit);
}

// The old state where zoneout keeps it: where the mask says so, or as much of it as is expected.
template <class T>
inline typename VecOf<T>::Vec zoneout(const SequenceRows<const unsigned char>& kept, T rate,
                                      int64_t s, int64_t row, int64_t unit, int exist,
                                      typename VecOf<T>::Vec before, typename VecOf<T>::Vec now) {
  if (kept.first) {
    return select(load_flags<T>(kept.at(s, row) + unit, exist), before, now);
  }
  if (rate == T(0)) return now;
  return fma(broadcast(rate), before, broadcast(T(1) - rate) * now);
}

// How a gradient parts at such a mix: `now` gets what is returned, `before` the rest.
template <class T>
inline typename VecOf<T>::Vec zoneout_backward(const SequenceRows<const unsigned char>& kept,
                                               T rate, int64_t s, int64_t row, int64_t unit,
                                               int exist, typename VecOf<T>::Vec d,
                                               typename VecOf<T>::Vec& d_before) {
  using Vec = typename VecOf<T>::Vec;
  d_before = Vec{};
  if (kept.first) {
    const auto flags = load_flags<T>(kept.at(s, row) + unit, exist);
    d_before = select(flags, d, Vec{});
    return select(flags, Vec{}, d);
  }
  if (rate == T(0)) return d;
  d_before = broadcast(rate) * d;
  return broadcast(T(1) - rate) * d;
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
