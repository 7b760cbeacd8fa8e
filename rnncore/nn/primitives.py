"""The few loops that dominate around the engine, run by its C++ core.

Arrays are C-contiguous, of one float type. Results do not depend on the number of threads. Each
has its naive twin of the same name in :mod:`rnncore.nn.naive`.
"""

from __future__ import annotations

from rnncore import _rnncore
from rnncore.checks import Array
from rnncore.nn.naive import Indices
from rnncore.threads import get_num_threads


def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write ``x @ weight.T + bias`` into ``out``; ``x (rows, in)``, ``weight (out, in)``."""
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
    _rnncore.linear_backward(x, weight, dout, dx, dweight, dbias, get_num_threads())


def batched_product(a: Array, b: Array, out: Array, transposed: bool = False) -> None:
    """Write ``a[i] @ b[i]``, or ``a[i] @ b[i].T`` if ``transposed``, into every ``out[i]``."""
    _rnncore.batched_product(a, b, out, transposed, get_num_threads())


def function(name: str, x: Array, out: Array) -> None:
    """Write "exp", "tanh", "sigmoid", "erf" or "log1p" of every entry into ``out``."""
    _rnncore.activation(name, x, out, num_threads=get_num_threads())


def softmax_cross_entropy(
    logits: Array,
    targets: Indices,
    dlogits: Array | None,
    weights: Array | None = None,
    scale: float = 1.0,
) -> float:
    """Return the weighted sum of ``-log softmax(logits)[target]``; write its scaled gradient."""
    return float(
        _rnncore.softmax_cross_entropy(logits, targets, dlogits, weights, scale, get_num_threads())
    )


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    _rnncore.embedding_backward(indices, dout, dweight, get_num_threads())
