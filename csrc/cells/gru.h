// The GRU cell (Cho et al. 2014), its reset gate after the product, as cuDNN and PyTorch have it,
// or before it, as it was published.
//
//   r = sigmoid(a_r)   z = sigmoid(a_z)   h' = (1 - z) n + z h
//   after:  n = tanh(a_n + r u_n)         before: n = tanh(a_n + U_n (r h))
//
// where a = W x + b_ih (r and z: + U h + b_hh; before: n: + b_hn), and u_n = U_n h + b_hn is a sum
// of its own.
#pragma once

#include "cells/activations.h"

namespace rnncore {
namespace RNNCORE_ISA {

// The slots hold n r z u_n, then da_n da_r da_z and da_n r: W's gradients use the first three, U's
// the last.
struct GruCell {
  static constexpr int kParameterGates = 3, kSlots = 4;
  static constexpr int kInputGates = 3, kInputSlot = 0, kInputOrder[kInputGates] = {2, 0, 1};
  static constexpr int kRecurrentGates = 3, kRecurrentSlot = 1, kFirstGates = 3;
  static constexpr int kRecurrentOrder[kRecurrentGates] = {0, 1, 2};
  static constexpr bool kCarriesC = false, kReadsH = true;

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void forward(const Options& options, const UnitWeights<Real>&,
                                     Real slots[kSlots], StepState<Real>& state) {
    const Real r = options.gate.forward(slots[1]);
    const Real z = options.gate.forward(slots[2]);
    slots[0] = fma(r, slots[3], slots[0]);
    const Real n = options.candidate.forward(slots[0]);
    state.h = fma(z, state.h_before - n, n);
  }

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void backward(const Options& options, const UnitWeights<Real>&,
                                      Real slots[kSlots], const StepState<Real>& state,
                                      StepGradient<Real>& gradient) {
    const Evaluated<Real> n = options.candidate.both(slots[0]);
    const Evaluated<Real> r = options.gate.both(slots[1]), z = options.gate.both(slots[2]);
    const Real u_n = slots[3];
    const Real da_n = gradient.dh * (constant<Real>(1.0) - z.value) * n.slope;
    slots[0] = da_n;
    slots[1] = da_n * u_n * r.slope;
    slots[2] = gradient.dh * (state.h_before - n.value) * z.slope;
    slots[3] = da_n * r.value;
    gradient.direct = gradient.dh * z.value;
  }
};

// The slots hold r z n, then their gradients. `hidden` is r h, which U_n multiplies.
struct ResetBeforeGruCell {
  static constexpr int kParameterGates = 3, kSlots = 3;
  static constexpr int kInputGates = 3, kInputSlot = 0, kInputOrder[kInputGates] = {0, 1, 2};
  static constexpr int kRecurrentGates = 3, kRecurrentSlot = 0, kFirstGates = 2;
  static constexpr int kRecurrentOrder[kRecurrentGates] = {0, 1, 2};
  static constexpr bool kCarriesC = false, kReadsH = true;

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void forward(const Options& options, const UnitWeights<Real>&,
                                     Real slots[kSlots], StepState<Real>& state) {
    if (kPhase == 0) {
      const Real r = options.gate.forward(slots[0]);
      options.gate.forward(slots[1]);
      state.hidden = r * state.h_entering;
    } else {
      const Real z = options.gate.value(slots[1]);
      const Real n = options.candidate.forward(slots[2]);
      state.h = fma(z, state.h_before - n, n);
    }
  }

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void backward(const Options& options, const UnitWeights<Real>&,
                                      Real slots[kSlots], const StepState<Real>& state,
                                      StepGradient<Real>& gradient) {
    if (kPhase == 0) {
      const Evaluated<Real> r = options.gate.both(slots[0]);
      slots[0] = gradient.dhidden * state.h_entering * r.slope;
      gradient.entering = gradient.dhidden * r.value;
    } else {
      const Evaluated<Real> z = options.gate.both(slots[1]);
      const Evaluated<Real> n = options.candidate.both(slots[2]);
      slots[1] = gradient.dh * (state.h_before - n.value) * z.slope;
      slots[2] = gradient.dh * (constant<Real>(1.0) - z.value) * n.slope;
      gradient.direct = gradient.dh * z.value;
    }
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
