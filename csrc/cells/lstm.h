// The LSTM cell (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000).
//
//   i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
//   c' = f c + i g     h' = o tanh(c')
//
// where a = W x + U h + b_ih + b_hh; with peepholes (Gers and Schmidhuber 2000) + p_i c, + p_f c
// and + p_o c'. Coupled gates (Greff et al. 2015) have f = 1 - i. The slots hold i f g o, or i g o,
// then their gradients da.
#pragma once

#include "cells/activations.h"

namespace rnncore {
namespace RNNCORE_ISA {

template <bool kCoupled>
struct LstmGates;
template <>
struct LstmGates<false> {
  static constexpr int kSlots = 4, kI = 0, kF = 1, kG = 2, kO = 3;
  static constexpr int kOrder[kSlots] = {0, 1, 2, 3};
};
template <>
struct LstmGates<true> {
  static constexpr int kSlots = 3, kI = 0, kF = 0, kG = 1, kO = 2;
  static constexpr int kOrder[kSlots] = {0, 2, 3};
};

template <bool kCoupled>
struct LstmCell {
  using Gates = LstmGates<kCoupled>;
  static constexpr int kI = Gates::kI, kF = Gates::kF, kG = Gates::kG, kO = Gates::kO;
  static constexpr int kParameterGates = 4, kSlots = Gates::kSlots;
  static constexpr int kInputGates = kSlots, kInputSlot = 0;
  static constexpr const int* kInputOrder = Gates::kOrder;
  static constexpr int kRecurrentGates = kSlots, kRecurrentSlot = 0, kFirstGates = kSlots;
  static constexpr const int* kRecurrentOrder = Gates::kOrder;
  static constexpr bool kCarriesC = true, kReadsH = false;

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void forward(const Options& options, const UnitWeights<Real>& own,
                                     Real slots[kSlots], StepState<Real>& state) {
    if (options.peephole) {
      slots[kI] = fma(own.peephole[0], state.c_before, slots[kI]);
      if (!kCoupled) slots[kF] = fma(own.peephole[1], state.c_before, slots[kF]);
    }
    const Real i = options.gate.forward(slots[kI]);
    const Real f = kCoupled ? constant<Real>(1.0) - i : options.gate.forward(slots[kF]);
    const Real g = options.candidate.forward(slots[kG]);
    if (!options.peephole) state.output_gate = options.gate.forward(slots[kO]);
    state.c = fma(f, state.c_before, i * g);
    if (options.peephole) {
      slots[kO] = fma(own.peephole[2], state.c, slots[kO]);
      state.output_gate = options.gate.forward(slots[kO]);
    }
  }

  template <class Options, class Real>
  RNNCORE_CELL_FUNCTION Real output(const Options& options, Real output_gate, Real c) {
    return output_gate * options.output.of(c);
  }
  template <class Options, class Real>
  RNNCORE_CELL_FUNCTION Real output_gate(const Options& options, const Real slots[kSlots]) {
    return options.gate.value(slots[kO]);
  }
  template <class Options, class Real>
  RNNCORE_CELL_FUNCTION Real new_c(const Options& options, const Real slots[kSlots],
                                   Real c_before) {
    const Real i = options.gate.value(slots[kI]);
    const Real f = kCoupled ? constant<Real>(1.0) - i : options.gate.value(slots[kF]);
    return fma(f, c_before, i * options.candidate.value(slots[kG]));
  }

  // The output gate's da, and dc + dh o (1 - tanh(c)^2) for the c that went into tanh.
  template <class Options, class Real>
  RNNCORE_CELL_FUNCTION Real output_backward(const Options& options, Real slots[kSlots], Real c,
                                             Real dh, Real dc) {
    const Evaluated<Real> o = options.gate.both(slots[kO]), t = options.output.both_of(c);
    slots[kO] = dh * t.value * o.slope;
    return fma(dh * o.value, t.slope, dc);
  }

  //   dc += p_o da_o;  the part for t-1 is dc f + p_i da_i + p_f da_f
  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void backward(const Options& options, const UnitWeights<Real>& own,
                                      Real slots[kSlots], const StepState<Real>& state,
                                      StepGradient<Real>& gradient) {
    const Evaluated<Real> i = options.gate.both(slots[kI]);
    const Evaluated<Real> g = options.candidate.both(slots[kG]);
    Real dc = gradient.dc;
    if (options.peephole) dc = fma(own.peephole[2], slots[kO], dc);
    if (kCoupled) {
      slots[kI] = dc * (g.value - state.c_before) * i.slope;
      gradient.dc = dc * (constant<Real>(1.0) - i.value);
    } else {
      const Evaluated<Real> f = options.gate.both(slots[kF]);
      slots[kI] = dc * g.value * i.slope;
      slots[kF] = dc * state.c_before * f.slope;
      gradient.dc = dc * f.value;
      if (options.peephole) gradient.dc = fma(own.peephole[1], slots[kF], gradient.dc);
    }
    slots[kG] = dc * i.value * g.slope;
    if (options.peephole) gradient.dc = fma(own.peephole[0], slots[kI], gradient.dc);
  }

  // Once the slots hold gradients.
  template <class Real>
  RNNCORE_CELL_FUNCTION void add_peephole_gradients(const Real slots[kSlots],
                                                    const StepState<Real>& state, Real sums[3]) {
    sums[0] = fma(slots[kI], state.c_before, sums[0]);
    if (!kCoupled) sums[1] = fma(slots[kF], state.c_before, sums[1]);
    sums[2] = fma(slots[kO], state.c, sums[2]);
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
