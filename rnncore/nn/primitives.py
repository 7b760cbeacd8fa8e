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


def softmax_cross_entropy(logits: Array, targets: Indices, dlogits: Array | None) -> float:
    """Return the sum of ``-log softmax(logits)[target]``; write ``softmax - onehot``."""
    return float(_rnncore.softmax_cross_entropy(logits, targets, dlogits, get_num_threads()))


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    _rnncore.embedding_backward(indices, dout, dweight)


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Update one parameter in place by Adam's rule, ``step`` counted from 1."""
    _rnncore.adam_step(
        param, grad, m, v, lr, beta1, beta2, eps, weight_decay, step, get_num_threads()
    )
