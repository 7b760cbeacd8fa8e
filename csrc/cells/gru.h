// The GRU cell with the reset gate after the product (Cho et al. 2014, as cuDNN and PyTorch have
// it).
//
//   r = sigmoid(a_r)   z = sigmoid(a_z)   n = tanh(a_n + r u_n)   h' = (1 - z) n + z h
//
// where a = W x + b_ih (r and z: + U h + b_hh) and u_n = U_n h + b_hn is a sum of its own. The
// slots hold n r z u_n, then da_n da_r da_z and da_n r: W's gradients use the first three, U's the
// last.
#pragma once

#include "cells/cell.h"

namespace rnncore {
namespace RNNCORE_ISA {

struct GruCell {
  static constexpr int kSlots = 4, kGates = 3, kInputSlot = 0, kRecurrentSlot = 1;
  static constexpr int kInputOrder[kGates] = {2, 0, 1};
  static constexpr int kRecurrentOrder[kGates] = {0, 1, 2};
  static constexpr bool kCarriesC = false, kReadsH = true;

  template <class Real>
  RNNCORE_CELL_FUNCTION void forward(Real slots[kSlots], StepState<Real>& state) {
    slots[1] = sigmoid(slots[1]);
    slots[2] = sigmoid(slots[2]);
    slots[0] = tanh(fma(slots[1], slots[3], slots[0]));
    state.h = fma(slots[2], state.h_before - slots[0], slots[0]);
  }

  template <class Real>
  RNNCORE_CELL_FUNCTION void backward(Real slots[kSlots], const StepState<Real>& state,
                                      StepGradient<Real>& gradient) {
    const Real one = constant<Real>(1.0);
    const Real n = slots[0], r = slots[1], z = slots[2], u_n = slots[3];
    const Real da_n = gradient.dh * (one - z) * fma(-n, n, one);
    slots[0] = da_n;
    slots[1] = da_n * u_n * (r * (one - r));
    slots[2] = gradient.dh * (state.h_before - n) * (z * (one - z));
    slots[3] = da_n * r;
    gradient.direct = gradient.dh * z;
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
