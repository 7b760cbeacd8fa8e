"""ONNX' eleven activations and their slopes, with the clamp that may come before them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rnncore.cells import PLAIN_ACTIVATIONS, CellSpec

Array = NDArray[np.float64]
Function = Callable[[Any, float, float], Any]


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)) without overflow, accurate in the left tail as well."""
    e = np.exp(-np.abs(a))
    numerator: Array = np.where(a < 0, e, 1.0)
    return numerator / (1.0 + e)


# Name: value and slope at a, given alpha and beta. At a kink the slope is the one from the left,
# and 0 on both ends of HardSigmoid's ramp.
FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "Affine": (
        lambda a, alpha, beta: alpha * a + beta,
        lambda a, alpha, beta: np.full_like(a, alpha),
    ),
    "Elu": (
        lambda a, alpha, beta: np.where(a < 0, alpha * np.expm1(np.minimum(a, 0)), a),
        lambda a, alpha, beta: np.where(a <= 0, alpha * np.exp(np.minimum(a, 0)), 1.0),
    ),
    "HardSigmoid": (
        lambda a, alpha, beta: np.clip(alpha * a + beta, 0.0, 1.0),
        lambda a, alpha, beta: np.where(np.abs(alpha * a + beta - 0.5) < 0.5, alpha, 0.0),
    ),
    "LeakyRelu": (
        lambda a, alpha, beta: np.where(a < 0, alpha * a, a),
        lambda a, alpha, beta: np.where(a <= 0, alpha, 1.0),
    ),
    "Relu": (
        lambda a, alpha, beta: np.maximum(a, 0.0),
        lambda a, alpha, beta: np.where(a <= 0, 0.0, 1.0),
    ),
    "ScaledTanh": (
        lambda a, alpha, beta: alpha * np.tanh(beta * a),
        lambda a, alpha, beta: alpha * beta * (1.0 - np.tanh(beta * a) ** 2),
    ),
    "Sigmoid": (
        lambda a, alpha, beta: sigmoid(a),
        lambda a, alpha, beta: sigmoid(a) * sigmoid(-a),
    ),
    "Softplus": (
        lambda a, alpha, beta: np.logaddexp(0.0, a),
        lambda a, alpha, beta: sigmoid(a),
    ),
    "Softsign": (
        lambda a, alpha, beta: a / (1.0 + np.abs(a)),
        lambda a, alpha, beta: 1.0 / (1.0 + np.abs(a)) ** 2,
    ),
    "Tanh": (
        lambda a, alpha, beta: np.tanh(a),
        lambda a, alpha, beta: 1.0 - np.tanh(a) ** 2,
    ),
    "ThresholdedRelu": (
        lambda a, alpha, beta: np.where(a < alpha, 0.0, a),
        lambda a, alpha, beta: np.where(a <= alpha, 0.0, 1.0),
    ),
}


@dataclass(frozen=True)
class Activation:
    """One activation behind its clamp: ``f(min(max(a, -clip), clip))``."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0
    clip: float | None = None

    def value(self, a: Array) -> Array:
        """Return the activation of `a`."""
        value: Array = FUNCTIONS[self.name][0](self._clamped(a), self.alpha, self.beta)
        return value

    def slope(self, a: Array) -> Array:
        """Return the derivative of `value` at `a`, which is 0 where the clamp acts."""
        slope: Array = FUNCTIONS[self.name][1](self._clamped(a), self.alpha, self.beta)
        return slope if self.clip is None else np.where(np.abs(a) > self.clip, 0.0, slope)

    def _clamped(self, a: Array) -> Array:
        return a if self.clip is None else np.clip(a, -self.clip, self.clip)


def activations_of(spec: CellSpec) -> tuple[Activation, ...]:
    """Return a cell's activations: of its gates, its candidate and its output."""
    chosen = spec.activations
    if chosen is None:
        relu = spec.cell == "rnn" and spec.nonlinearity == "relu"
        names = ("Relu",) if relu else PLAIN_ACTIVATIONS[spec.cell]
        chosen = tuple((name, 0.0, 0.0) for name in names)
    return tuple(Activation(*activation, spec.clip) for activation in chosen)
