"""Keep gradients from exploding."""

from __future__ import annotations

import math

import numpy as np

from rnncore.checks import Array
from rnncore.train.groups import Modules, named_gradients

BLOCK = 16384


def clip_grad_norm(modules: Modules, max_norm: float) -> float:
    """Scale all gradients down together where their common Euclidean norm exceeds a bound.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        Whose ``grads`` are scaled in place.
    max_norm : float
        The bound; ``inf`` only measures.

    Returns
    -------
    float
        The norm before, summed in float64 in an order that depends on no thread. Where it is not
        finite, nothing is scaled.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(1, 1, seed=0)
    >>> layer.grads["weight"][...] = 3; layer.grads["bias"][...] = 4
    >>> clip_grad_norm(layer, 1.0)
    5.0
    >>> round(float(layer.grads["bias"][0]), 4)
    0.8
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected more than 0, got {max_norm}")
    grads = [grad for _, _, grad in named_gradients(modules)]
    norm = math.sqrt(sum(map(_sum_of_squares, grads)))
    if math.isfinite(norm) and norm > max_norm:
        for grad in grads:
            grad *= grad.dtype.type(max_norm / norm)
    return norm


def clip_grad_value(modules: Modules, max_value: float) -> None:
    """Clamp every entry of every gradient into ``[-max_value, max_value]``, in place."""
    if not max_value > 0:
        raise ValueError(f"max_value: expected more than 0, got {max_value}")
    for _, _, grad in named_gradients(modules):
        np.clip(grad, -max_value, max_value, out=grad)


def _sum_of_squares(array: Array) -> float:
    """Sum in float64, block by block: no BLAS, whose order depends on threads, no large array."""
    flat, total = array.reshape(-1), 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK].astype(np.float64)
        total += float(np.square(block, out=block).sum())
    return total
