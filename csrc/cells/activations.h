// The activations of gates, candidates and outputs, and what a slot keeps of them for backward.
//
// Default ones keep the value: their derivative follows from it. Others, and clipped ones, keep the
// input: value and derivative are made of it anew. Names, parameters and equations are ONNX'
// (operators RNN, GRU and LSTM); clipping clamps the input to [-clip, clip].
//
// An activation a has
// - forward(slot): the value of the input in the slot, which then holds what is kept
// - value(slot), both(slot): the value, and the value with the slope, of what is kept
// - gradient(slot, d): d times the slope
// - of(x), both_of(x): of an input that no slot holds
#pragma once

#include "cells/cell.h"

namespace rnncore {
namespace RNNCORE_ISA {

template <class Real>
struct Evaluated {
  Real value, slope;
};

enum class ActivationKind {
  affine,
  elu,
  hard_sigmoid,
  leaky_relu,
  relu,
  scaled_tanh,
  sigmoid,
  softplus,
  softsign,
  tanh,
  thresholded_relu
};

struct Sigmoid {
  static constexpr ActivationKind kKind = ActivationKind::sigmoid;

  template <class Real>
  RNNCORE_CELL_METHOD Real forward(Real& slot) const {
    return slot = sigmoid(slot);
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real value(Real slot) const {
    return slot;
  }
  template <class Real>
  RNNCORE_CELL_METHOD Evaluated<Real> both(Real slot) const {
    return {slot, slot * (constant<Real>(1.0) - slot)};
  }
};

struct Tanh {
  static constexpr ActivationKind kKind = ActivationKind::tanh;

  template <class Real>
  RNNCORE_CELL_METHOD Real forward(Real& slot) const {
    return slot = tanh(slot);
  }
  template <class Real>
  RNNCORE_CELL_METHOD Evaluated<Real> both(Real slot) const {
    return {slot, fma(-slot, slot, constant<Real>(1.0))};
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real gradient(Real slot, Real d) const {
    return d * both(slot).slope;
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real of(Real x) const {
    return tanh(x);
  }
  template <class Real>
  RNNCORE_CELL_METHOD Evaluated<Real> both_of(Real x) const {
    return both(tanh(x));
  }
};

struct Relu {
  static constexpr ActivationKind kKind = ActivationKind::relu;

  template <class Real>
  RNNCORE_CELL_METHOD Real forward(Real& slot) const {
    return slot = select(slot < constant<Real>(0.0), constant<Real>(0.0), slot);
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real gradient(Real slot, Real d) const {
    return select(slot <= constant<Real>(0.0), constant<Real>(0.0), d);
  }
};

// One of ONNX' with its parameters.
struct AnyActivation {
  ActivationKind kind = ActivationKind::tanh;
  bool keeps_input = false;
  bool clips = false;
  double alpha = 0, beta = 0, clip = 0;

  template <class Real>
  RNNCORE_CELL_METHOD Real forward(Real& slot) const {
    const Real result = of(slot);
    if (!keeps_input) slot = result;
    return result;
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real value(Real slot) const {
    return keeps_input ? of(slot) : slot;
  }
  template <class Real>
  RNNCORE_CELL_METHOD Evaluated<Real> both(Real slot) const {
    return keeps_input ? both_of(slot) : from_value(slot);
  }
  template <class Real>
  RNNCORE_CELL_METHOD Real gradient(Real slot, Real d) const {
    if (!keeps_input && kind == ActivationKind::relu) return Relu().gradient(slot, d);
    return d * both(slot).slope;
  }
  template <class Real>
  RNNCORE_CELL_CALL Real of(Real x) const {
    if (clips) x = clamp(x);
    if (kind == ActivationKind::sigmoid) return sigmoid(x);
    if (kind == ActivationKind::tanh) return tanh(x);
    return rare(x).value;
  }
  template <class Real>
  RNNCORE_CELL_CALL Evaluated<Real> both_of(Real x) const {
    const Real inside = clips ? clamp(x) : x;
    Evaluated<Real> result;
    if (kind == ActivationKind::sigmoid) {
      result = from_value(sigmoid(inside));
    } else if (kind == ActivationKind::tanh) {
      result = from_value(tanh(inside));
    } else {
      result = rare(inside);
    }
    if (!clips) return result;
    const Real none = constant<Real>(0.0), bound = constant<Real>(clip);
    result.slope = select(x > bound, none, select(x < -bound, none, result.slope));
    return result;
  }

 private:
  template <class Real>
  RNNCORE_CELL_METHOD Real clamp(Real x) const {
    const Real bound = constant<Real>(clip);
    return select(x > bound, bound, select(x < -bound, -bound, x));
  }

  template <class Real>
  RNNCORE_CELL_METHOD Evaluated<Real> from_value(Real value) const {
    if (kind == ActivationKind::sigmoid) return Sigmoid().both(value);
    if (kind == ActivationKind::tanh) return Tanh().both(value);
    const Real none = constant<Real>(0.0);
    return {value, select(value <= none, none, constant<Real>(1.0))};
  }

  template <class Real>
  RNNCORE_CELL_CALL Evaluated<Real> rare(Real x) const {
    const Real zero = constant<Real>(0.0), one = constant<Real>(1.0);
    const Real a = constant<Real>(alpha), b = constant<Real>(beta);
    switch (kind) {
      case ActivationKind::affine:
        return {fma(a, x, b), a};
      case ActivationKind::elu: {
        const Real less = a * exp_minus_one(select(x < zero, x, zero));
        return {select(x < zero, less, x), select(x <= zero, less + a, one)};
      }
      case ActivationKind::hard_sigmoid: {
        const Real line = fma(a, x, b);
        const Real low = select(line < zero, zero, line);
        return {select(low > one, one, low),
                select(line > zero, select(line < one, a, zero), zero)};
      }
      case ActivationKind::leaky_relu:
        return {select(x < zero, a * x, x), select(x <= zero, a, one)};
      case ActivationKind::relu:
        return {select(x < zero, zero, x), select(x <= zero, zero, one)};
      case ActivationKind::scaled_tanh: {
        const Real t = tanh(b * x);
        return {a * t, a * b * fma(-t, t, one)};
      }
      case ActivationKind::softplus: {
        // max(x, 0) + log(1 + exp(-|x|))
        const Real below = select(x > zero, -x, x);
        return {select(x < zero, zero, x) + log_one_plus(exp_negative(below)), sigmoid(x)};
      }
      case ActivationKind::softsign: {
        const Real whole = one + select(x < zero, -x, x);
        return {x / whole, one / (whole * whole)};
      }
      case ActivationKind::thresholded_relu:
        return {select(x < a, zero, x), select(x <= a, zero, one)};
      case ActivationKind::sigmoid:
      case ActivationKind::tanh:
        break;
    }
    return {x, one};
  }
};

// What cells are told apart from their slots and states. Plain ones cost nothing: every question is
// answered when the cell is compiled.
template <class Candidate>
struct PlainOptions {
  static constexpr bool kPlain = true;
  static constexpr bool peephole = false;
  Sigmoid gate;
  Candidate candidate;
  Tanh output;
};

struct AnyOptions {
  static constexpr bool kPlain = false;
  bool peephole = false;
  AnyActivation gate, candidate, output;
};

}  // namespace RNNCORE_ISA
}  // namespace rnncore
