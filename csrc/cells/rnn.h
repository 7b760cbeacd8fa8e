// The plain recurrent cell (Elman 1990): h' = tanh(a) or relu(a), a = W x + U h + b_ih + b_hh.
//
// The slot holds h', from which both derivatives follow, then da.
#pragma once

#include "cells/activations.h"

namespace rnncore {
namespace RNNCORE_ISA {

struct RnnCell {
  static constexpr int kParameterGates = 1, kSlots = 1;
  static constexpr int kInputGates = 1, kInputSlot = 0, kInputOrder[kInputGates] = {0};
  static constexpr int kRecurrentGates = 1, kRecurrentSlot = 0, kFirstGates = 1;
  static constexpr int kRecurrentOrder[kRecurrentGates] = {0};
  static constexpr bool kCarriesC = false, kReadsH = false;

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void forward(const Options& options, const UnitWeights<Real>&,
                                     Real slots[kSlots], StepState<Real>& state) {
    state.h = options.candidate.forward(slots[0]);
  }

  template <int kPhase, class Options, class Real>
  RNNCORE_CELL_FUNCTION void backward(const Options& options, const UnitWeights<Real>&,
                                      Real slots[kSlots], const StepState<Real>&,
                                      StepGradient<Real>& gradient) {
    slots[0] = options.candidate.gradient(slots[0], gradient.dh);
  }
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
