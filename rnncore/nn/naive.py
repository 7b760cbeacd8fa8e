"""The primitives of :mod:`rnncore.nn.primitives` in plain NumPy: their definition and their test.

Same arguments, same meaning. Sums here follow NumPy's own order, which for products depends on
its BLAS and the number of threads; the engine's do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rnncore.checks import Array

Indices = npt.NDArray[np.int64]


def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write ``x @ weight.T + bias`` into ``out``; ``x (rows, in)``, ``weight (out, in)``."""
    np.matmul(x, weight.T, out=out)
    if bias is not None:
        out += bias


def linear_backward(
    x: Array,
    weight: Array,
    dout: Array,
    dx: Array | None,
    dweight: Array,
    dbias: Array | None,
) -> None:
    """Write ``dx``, and add into ``dweight`` and ``dbias``."""
    if dx is not None:
        np.matmul(dout, weight, out=dx)
    dweight += dout.T @ x
    if dbias is not None:
        dbias += dout.sum(axis=0)


def batched_product(a: Array, b: Array, out: Array, transposed: bool = False) -> None:
    """Write ``a[i] @ b[i]``, or ``a[i] @ b[i].T`` if ``transposed``, into every ``out[i]``."""
    np.matmul(a, b.swapaxes(1, 2) if transposed else b, out=out)


def function(name: str, x: Array, out: Array) -> None:
    """Write "exp", "tanh", "sigmoid", "erf" or "log1p" of every entry into ``out``."""
    known: dict[str, Callable[[Array], Array]] = {
        "exp": np.exp,
        "tanh": np.tanh,
        "sigmoid": lambda value: 1 / (1 + np.exp(-value)),
        "erf": np.vectorize(math.erf, otypes=[np.float64]),
        "log1p": np.log1p,
    }
    out[...] = known[name](x)


def softmax_cross_entropy(
    logits: Array,
    targets: Indices,
    dlogits: Array | None,
    weights: Array | None = None,
    scale: float = 1.0,
) -> float:
    """Return the sum of ``-weights[target] log softmax(logits)[target]``.

    ``dlogits`` becomes ``scale weights[target] (softmax - onehot)``. Rows with a negative target
    are left out: no loss, a gradient of zero.
    """
    if not targets.size:
        return 0.0
    shifted = logits - logits.max(axis=1, keepdims=True)
    exps = np.exp(shifted)
    totals = exps.sum(axis=1, dtype=np.float64)
    counted = np.flatnonzero(targets >= 0)
    picked = shifted[counted, targets[counted]]
    share = np.ones(len(targets)) if weights is None else weights.astype(np.float64)[targets]
    if dlogits is not None:
        dlogits[...] = exps / totals[:, None]
        dlogits[counted, targets[counted]] -= 1
        dlogits *= (scale * share)[:, None]
        dlogits[targets < 0] = 0
    return float((share[counted] * (np.log(totals[counted]) - picked)).sum())


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    np.add.at(dweight, indices, dout)
