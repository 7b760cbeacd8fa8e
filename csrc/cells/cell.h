// What a cell is: its equations for one time step, forward and backward, on any number type.
//
// A cell's text compiles for every vector width and for CUDA, so it includes nothing and names no
// memory: it works on values the driver has put into registers. `Real` offers + - * / and the
// comparisons; sigmoid(x), tanh(x), fma(a, b, c), constant<Real>(double) and select(condition, a,
// b) are declared before this header.
//
// A cell names its gates by slots, the places where a step keeps them on the tape:
//
// - kSlots: values that a unit and step keeps
// - kGates: how many of them each of the two matrix products contributes to
// - kInputSlot: first of the kGates slots that W x (and the input's bias) goes to
// - kRecurrentSlot: first of the kGates slots that U h goes to
// - kInputOrder, kRecurrentOrder: which gate of the parameters each of these slots is
// - kCarriesC: whether a second state c goes from step to step
// - kReadsH: whether the equations read h[t-1] beside the product U h[t-1]
//
// Where the two slot ranges are the same, the products and both biases share one sum.
#pragma once

#ifndef RNNCORE_CELL_FUNCTION
#define RNNCORE_CELL_FUNCTION static inline __attribute__((always_inline))
#endif

namespace rnncore {
namespace RNNCORE_ISA {

// The states around one step: `before` is t-1.
template <class Real>
struct StepState {
  Real h_before, c_before;
  Real h, c;
};

// Gradients that flow through one step, from t to t-1.
template <class Real>
struct StepGradient {
  Real dh;      // in: dL/dh[t], complete
  Real dc;      // in: the part of dL/dc[t] that came from t+1; out: the part for t-1
  Real direct;  // out: what of dL/dh[t-1] does not go through the product U h
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
