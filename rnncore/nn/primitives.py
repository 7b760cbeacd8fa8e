"""The few loops that dominate around the engine: its C++ core runs them on NumPy arrays.

Arrays are C-contiguous, of one float type. Results do not depend on the number of threads. Each
has its naive twin of the same name in :mod:`rnncore.nn.naive`, which also serves CuPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import _rnncore
from rnncore.checks import Array
from rnncore.nn import naive
from rnncore.nn.naive import Indices
from rnncore.threads import get_num_threads


def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write ``x @ weight.T + bias`` into ``out``; ``x (rows, in)``, ``weight (out, in)``."""
    if type(out) is not np.ndarray:
        naive.linear_forward(x, weight, bias, out)
        return
    _rnncore.linear_forward(x, weight, bias, out, get_num_threads())


def linear_backward(
    x: Array,
    weight: Array,
    dout: Array,
    dx: Array | None,
    dweight: Array,
    dbias: Array | None,
) -> None:
    """Write ``dx``, and add into ``dweight`` and ``dbias``."""
    if type(dweight) is not np.ndarray:
        naive.linear_backward(x, weight, dout, dx, dweight, dbias)
        return
    _rnncore.linear_backward(x, weight, dout, dx, dweight, dbias, get_num_threads())


def batched_product(a: Array, b: Array, out: Array, transposed: bool = False) -> None:
    """Write ``a[i] @ b[i]``, or ``a[i] @ b[i].T`` if ``transposed``, into every ``out[i]``."""
    if type(out) is not np.ndarray:
        naive.batched_product(a, b, out, transposed)
        return
    _rnncore.batched_product(a, b, out, transposed, get_num_threads())


def function(name: str, x: Array, out: Array) -> None:
    """Write "exp", "tanh", "sigmoid", "erf" or "log1p" of every entry into ``out``."""
    if type(out) is not np.ndarray:
        naive.function(name, x, out)
        return
    _rnncore.activation(name, x, out, num_threads=get_num_threads())


def softmax_cross_entropy(
    logits: Array,
    targets: Indices,
    dlogits: Array | None,
    weights: Array | None = None,
    scale: Any = 1.0,
) -> Any:
    """Return the weighted sum of ``-log softmax(logits)[target]``; write its scaled gradient.

    A float; of CuPy arrays, one of no axes, for which nobody has waited yet.
    """
    if type(logits) is not np.ndarray:
        return naive.softmax_cross_entropy(logits, targets, dlogits, weights, scale)
    return float(
        _rnncore.softmax_cross_entropy(logits, targets, dlogits, weights, scale, get_num_threads())
    )


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    if type(dweight) is not np.ndarray:
        naive.sorted_embedding_backward(indices, dout, dweight)
        return
    _rnncore.embedding_backward(indices, dout, dweight, get_num_threads())
