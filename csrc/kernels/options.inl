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

// One row and one vector of units.
struct CellPlace {
  int64_t row, unit;
  int exist;  // lanes that are units
};
// The usual one, whose lanes are all units and whose state is the loop's own: the compiler knows.
template <class T>
struct UsualPlace {
  int64_t row, unit;
  static constexpr int exist = kLanes<T>;
};

// A new state mixed with the old one.
template <class T, class Place, class Vec>
inline Vec mix(const Zoneout<T>& zoneout, int64_t s, const Place& at, Vec old, Vec made) {
  if (zoneout.kept.first) {
    const unsigned char* kept = zoneout.kept.at(s, at.row) + at.unit;
    return select(load_flags<T>(kept, at.exist), old, made);
  }
  if (zoneout.rate == T(0)) return made;
  return fma(broadcast(zoneout.rate), old, broadcast(T(1) - zoneout.rate) * made);
}

// How the gradient of a mix parts.
template <class Vec>
struct Parted {
  Vec made, old;
};
template <class T, class Vec>
inline Parted<Vec> part(const Zoneout<T>& zoneout, int64_t s, const CellPlace& at, Vec d) {
  if (zoneout.kept.first) {
    const auto kept = load_flags<T>(zoneout.kept.at(s, at.row) + at.unit, at.exist);
    return {select(kept, Vec{}, d), select(kept, d, Vec{})};
  }
  if (zoneout.rate == T(0)) return {d, Vec{}};
  return {broadcast(T(1) - zoneout.rate) * d, broadcast(zoneout.rate) * d};
}

}  // namespace RNNCORE_ISA
}  // namespace rnncore
