"""The products with x and with h: ``norm(v W^T) * gain + b``, forward and backward.

``side`` is "ih" for the product with x and "hh" for the one with h; `rows` picks some of the
weights' rows. Gains are there with ``layer_norm`` alone, biases with ``bias``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Any]
Saved = dict[str, Any]

EPSILON = 1e-5
ALL = slice(None)


def layer_norm(a: Array) -> tuple[Array, Array]:
    """Return each row less its mean, over its spread, and one over that spread, (R, 1).

    Notes
    -----
    ``(a - mean(a)) / sqrt(var(a) + eps)`` with the biased variance (Ba et al. 2016).
    """
    centred: Array = a - a.mean(axis=1, keepdims=True)
    inverse: Array = 1.0 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    return centred * inverse, inverse


def layer_norm_backward(normed: Array, inverse: Array, d_normed: Array) -> Array:
    """Return the gradient of `layer_norm`'s input from that of its result."""
    common = d_normed.mean(axis=1, keepdims=True)
    along = (d_normed * normed).mean(axis=1, keepdims=True)
    d_a: Array = inverse * (d_normed - common - normed * along)
    return d_a


def product(weights: Weights, side: str, v: Array, rows: slice = ALL) -> tuple[Array, Saved]:
    """Return ``norm(v W^T) * gain + b`` and what its gradient needs."""
    a = v @ weights[f"weight_{side}"][rows].T
    saved: Saved = {"side": side, "rows": rows, "v": v}
    if f"norm_{side}" in weights:
        normed, inverse = layer_norm(a)
        a = normed * weights[f"norm_{side}"][rows]
        saved |= {"normed": normed, "inverse": inverse}
    return a + weights[f"bias_{side}"][rows] if f"bias_{side}" in weights else a, saved


def product_backward(weights: Weights, saved: Saved, d: Array) -> tuple[Array, Weights]:
    """Return the gradients of v and of the weights, of the rows that `product` took."""
    side, rows = saved["side"], saved["rows"]
    grads = {}
    if f"bias_{side}" in weights:
        grads[f"bias_{side}"] = d.sum(axis=0)
    if f"norm_{side}" in weights:
        grads[f"norm_{side}"] = (d * saved["normed"]).sum(axis=0)
        d_normed = d * weights[f"norm_{side}"][rows]
        d = layer_norm_backward(saved["normed"], saved["inverse"], d_normed)
    grads[f"weight_{side}"] = d.T @ saved["v"]
    return d @ weights[f"weight_{side}"][rows], grads
