// What a cell is: its equations for one time step, forward and backward, on any number type.
//
// A cell's text compiles for every vector width and for CUDA, so it includes nothing but headers of
// this folder and names no memory: it works on values the driver has put into registers. `Real`
// offers + - * / and the comparisons; sigmoid(x), tanh(x), fma(a, b, c), constant<Real>(double) and
// select(condition, a, b) are declared before this header, and for x <= 0 exp_negative(x) and
// exp_minus_one(x), for x from 0 to 1 log_one_plus(x). Gates, candidate and output are activated by
// `options`, so that users may choose the activations: activations.h.
//
// A cell names its gates by slots, the places where a step keeps them on the tape:
//
// - kParameterGates: blocks of H rows that its weights and biases have
// - kSlots: values that a unit and step keeps
// - kInputGates, kInputSlot, kInputOrder: how many slots W x contributes to, which is the first of
//   them, and which gate of the parameters each one is
// - kRecurrentGates, kRecurrentSlot, kRecurrentOrder: the same of U h
// - kFirstGates: how many of these are made of h[t-1] before the cell's first phase; those that are
//   left are made, before its second phase, of what the first one calls `hidden`. All of them: the
//   cell has one phase, and its functions may ignore kPhase
// - kCarriesC: whether a second state c goes from step to step
// - kReadsH: whether the equations read h[t-1] beside the product U h[t-1]; two phases need it
//
// Before the cell runs, a slot of both ranges holds W x + b_ih + U h + b_hh, one of W's alone
// W x + b_ih, one of U's alone U h + b_hh. The ranges of a cell of two phases are the same; those
// of other cells may differ, W's beginning first, and have as many slots each.
//
// Its functions, each for the phases that it has:
//
// - forward<kPhase>(options, own, slots, state): the slots hold the gates' inputs, then what
//   backward needs of them; sets state.h, or state.hidden in the first of two phases, or, in cells
//   that carry c, state.c and state.output_gate
// - backward<kPhase>(options, own, slots, state, gradient), last phase first: the slots hold what
//   forward left there, then the gradients of the sums that they held before it
//
// Cells that carry c, which may have peepholes, have in addition
//
// - output(options, output_gate, c): h', apart so that c' may be normalised first;
//   output_gate(options, slots) gives the gate back, new_c(options, slots, c_before) the c' of a
//   step gone by
// - output_backward(options, slots, c, dh, dc), which runs before backward: the output gate's slot
//   becomes its gradient; returns dc plus what comes from dh through c
// - add_peephole_gradients(slots, state, sums), once the slots hold gradients
#pragma once

#ifndef RNNCORE_CELL_FUNCTION
#define RNNCORE_CELL_FUNCTION static inline __attribute__((always_inline))
#define RNNCORE_CELL_METHOD inline __attribute__((always_inline))
#define RNNCORE_CELL_CALL __attribute__((noinline))
#endif

namespace rnncore {
namespace RNNCORE_ISA {

// The states around one step: `before` is t-1.
template <class Real>
struct StepState {
  Real h_before, c_before;  // with kReadsH, with kCarriesC
  Real h_entering;          // in a first phase of two: h[t-1] less what recurrent dropout drops
  Real h, c;                // c: as the step makes it
  Real output_gate;         // of cells that carry c
  Real hidden;              // what a second product multiplies
};

// A unit's own weights, where the options have them.
template <class Real>
struct UnitWeights {
  Real peephole[3];  // of i, f, o
};

// Gradients that flow through one step, from t to t-1.
template <class Real>
struct StepGradient {
  Real dh;        // in: dL/dh[t], complete
  Real dhidden;   // in, of a first phase that has a second: dL/dhidden
  Real dc;        // in: dL/dc[t] as the step made it, complete; out: the part for t-1
  Real direct;    // out, with kReadsH: what of dL/dh[t-1] goes past the product U h
  Real entering;  // out, of a first phase of two: what of the gradient of h_entering does
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
