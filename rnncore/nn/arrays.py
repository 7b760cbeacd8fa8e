"""Whole-array mathematics of the modules, the same to the bit for any number of threads.

Products, ``exp``, ``tanh`` and their like come from the engine; NumPy does what has one result
(a copy, a maximum, one operation an entry) or one order (a sum). CuPy does all of it on a GPU, by
the naive forms of :mod:`rnncore.nn.primitives`, and is not waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rnncore.checks import Array
from rnncore.devices import namespace
from rnncore.nn import primitives

Mask = npt.NDArray[np.bool_]


def affine(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return ``x @ weight.T + bias`` for ``x (..., in)`` and ``weight (out, in)``."""
    xp = namespace(weight)
    rows = xp.ascontiguousarray(x).reshape(-1, weight.shape[1])
    out = xp.empty((rows.shape[0], weight.shape[0]), dtype=weight.dtype)
    primitives.linear_forward(rows, weight, bias, out)
    y: Array = out.reshape(*x.shape[:-1], weight.shape[0])
    return y


def affine_backward(
    x: Array,
    weight: Array,
    dy: Array,
    dweight: Array,
    dbias: Array | None = None,
    need_dx: bool = True,
) -> Array | None:
    """Add into ``dweight`` and ``dbias`` and return the gradient of ``x``, or None."""
    xp = namespace(weight)
    outputs, inputs = weight.shape
    dx: Array | None = xp.empty(x.shape, dtype=weight.dtype) if need_dx else None
    primitives.linear_backward(
        xp.ascontiguousarray(x).reshape(-1, inputs),
        weight,
        xp.ascontiguousarray(dy).reshape(-1, outputs),
        None if dx is None else dx.reshape(-1, inputs),
        dweight,
        dbias,
    )
    return dx


def matmul(a: Array, b: Array, transposed: bool = False) -> Array:
    """Return ``a @ b``, or ``a @ b`` with the last two axes of ``b`` swapped, batch by batch.

    Parameters
    ----------
    a : ndarray (..., rows, inner)
        Of any strides.
    b : ndarray (..., inner, columns), or (..., columns, inner) if `transposed`
        With the same leading axes as ``a``.
    transposed : bool
        Whether ``b`` lies by columns.
    """
    xp, leading, rows = namespace(a), a.shape[:-2], a.shape[-2]
    columns = b.shape[-2] if transposed else b.shape[-1]
    out: Array = xp.empty((*leading, rows, columns), dtype=a.dtype)
    if a.shape[-1] == 0:
        out[...] = 0
    if a.shape[-1] == 0 or out.size == 0:
        return out
    count = math.prod(leading)
    primitives.batched_product(
        xp.ascontiguousarray(a).reshape(count, *a.shape[-2:]),
        xp.ascontiguousarray(b).reshape(count, *b.shape[-2:]),
        out.reshape(count, rows, columns),
        transposed,
    )
    return out


def exp(x: Array) -> Array:
    """Return ``e`` to the power of every entry."""
    return _function("exp", x)


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of every entry."""
    return _function("tanh", x)


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + e^-x)`` of every entry."""
    return _function("sigmoid", x)


def erf(x: Array) -> Array:
    """Return the error function of every entry."""
    return _function("erf", x)


def log1p(x: Array) -> Array:
    """Return ``log(1 + x)`` of every entry."""
    return _function("log1p", x)


def _function(name: str, x: Array) -> Array:
    xp = namespace(x)
    given = xp.ascontiguousarray(x)
    out: Array = xp.empty_like(given)
    primitives.function(name, given, out)
    return out.reshape(x.shape)


def softmax(scores: Array, hidden: Mask | None = None) -> Array:
    """Return each row's shares ``e^score / sum`` along the last axis.

    Parameters
    ----------
    scores : ndarray (..., columns)
        Any finite values: the largest of a row is subtracted first.
    hidden : ndarray of bool, optional
        What counts as minus infinity, as a shape that broadcasts to that of ``scores``. A row with
        nothing left has shares of zero.
    """
    if scores.size == 0:
        return scores
    xp = namespace(scores)
    if hidden is not None:
        scores = xp.where(hidden, scores.dtype.type(-np.inf), scores)
    largest = scores.max(axis=-1, keepdims=True)
    shares: Array = exp(scores - xp.where(largest == -np.inf, 0, largest))
    total = shares.sum(axis=-1, keepdims=True)
    shares /= xp.where(total == 0, 1, total)
    return shares


def softmax_backward(shares: Array, dshares: Array) -> Array:
    """Return the gradient of the scores from those of the shares."""
    product: Array = shares * dshares
    product -= shares * product.sum(axis=-1, keepdims=True)
    return product


def _relu_slope(x: Array) -> Array:
    slope: Array = (x > 0).astype(x.dtype)
    return slope


def _relu(x: Array) -> Array:
    y: Array = namespace(x).maximum(x, 0)
    return y


def _gelu(x: Array) -> Array:
    number = x.dtype.type
    y: Array = number(0.5) * x * (1 + erf(x * number(math.sqrt(0.5))))
    return y


def _gelu_slope(x: Array) -> Array:
    number = x.dtype.type
    below = number(0.5) * (1 + erf(x * number(math.sqrt(0.5))))
    slope: Array = below + x * exp(number(-0.5) * x * x) * number(1 / math.sqrt(2 * math.pi))
    return slope


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (_relu, _relu_slope),
    "gelu": (_gelu, _gelu_slope),
}
"""Activations of feed-forward blocks by name, each with its derivative. GELU is the one with the
error function (Hendrycks and Gimpel, Gaussian error linear units, 2016)."""
