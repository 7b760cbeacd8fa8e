// The LSTM cell (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber, Cummins 2000).
//
//   i = sigmoid(a_i)   f = sigmoid(a_f)   g = tanh(a_g)   o = sigmoid(a_o)
//   c' = f c + i g     h' = o tanh(c')
//
// where a = W x + U h + b_ih + b_hh. The slots hold i f g o, then their gradients da.
#pragma once

#include "cells/cell.h"

namespace rnncore {
namespace RNNCORE_ISA {

struct LstmCell {
  static constexpr int kSlots = 4, kGates = 4, kInputSlot = 0, kRecurrentSlot = 0;
  static constexpr int kInputOrder[kGates] = {0, 1, 2, 3};
  static constexpr int kRecurrentOrder[kGates] = {0, 1, 2, 3};
  static constexpr bool kCarriesC = true, kReadsH = false;

  template <class Real>
  RNNCORE_CELL_FUNCTION void forward(Real slots[kSlots], StepState<Real>& state) {
    slots[0] = sigmoid(slots[0]);
    slots[1] = sigmoid(slots[1]);
    slots[2] = tanh(slots[2]);
    slots[3] = sigmoid(slots[3]);
    state.c = fma(slots[1], state.c_before, slots[0] * slots[2]);
    state.h = slots[3] * tanh(state.c);
  }

  //   dc += dh o (1 - tanh(c')^2);  the part for t-1 is dc f
  template <class Real>
  RNNCORE_CELL_FUNCTION void backward(Real slots[kSlots], const StepState<Real>& state,
                                      StepGradient<Real>& gradient) {
    const Real one = constant<Real>(1.0);
    const Real i = slots[0], f = slots[1], g = slots[2], o = slots[3];
    const Real tanh_c = tanh(state.c);
    const Real dc = fma(gradient.dh * o, fma(-tanh_c, tanh_c, one), gradient.dc);
    slots[0] = dc * g * (i * (one - i));
    slots[1] = dc * state.c_before * (f * (one - f));
    slots[2] = dc * i * fma(-g, g, one);
    slots[3] = gradient.dh * tanh_c * (o * (one - o));
    gradient.dc = dc * f;
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
