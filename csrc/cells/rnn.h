// The plain recurrent cell (Elman 1990): h' = tanh(a) or relu(a), a = W x + U h + b_ih + b_hh.
//
// The slot holds h', then da: both derivatives follow from h' alone.
#pragma once

#include "cells/cell.h"

namespace rnncore {
namespace RNNCORE_ISA {

struct Tanh {
  template <class Real>
  RNNCORE_CELL_FUNCTION Real value(Real a) {
    return tanh(a);
  }
  template <class Real>
  RNNCORE_CELL_FUNCTION Real gradient(Real h, Real dh) {
    return dh * fma(-h, h, constant<Real>(1.0));
  }
};

struct Relu {
  template <class Real>
  RNNCORE_CELL_FUNCTION Real value(Real a) {
    return select(a < constant<Real>(0.0), constant<Real>(0.0), a);
  }
  template <class Real>
  RNNCORE_CELL_FUNCTION Real gradient(Real h, Real dh) {
    return select(h <= constant<Real>(0.0), constant<Real>(0.0), dh);
  }
};

template <class Activation>
struct RnnCell {
  static constexpr int kSlots = 1, kGates = 1, kInputSlot = 0, kRecurrentSlot = 0;
  static constexpr int kInputOrder[kGates] = {0};
  static constexpr int kRecurrentOrder[kGates] = {0};
  static constexpr bool kCarriesC = false, kReadsH = false;

  template <class Real>
  RNNCORE_CELL_FUNCTION void forward(Real slots[kSlots], StepState<Real>& state) {
    slots[0] = Activation::value(slots[0]);
    state.h = slots[0];
  }

  template <class Real>
  RNNCORE_CELL_FUNCTION void backward(Real slots[kSlots], const StepState<Real>&,
                                      StepGradient<Real>& gradient) {
    slots[0] = Activation::gradient(slots[0], gradient.dh);
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
