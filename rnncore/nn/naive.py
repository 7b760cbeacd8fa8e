"""The primitives of :mod:`rnncore.nn.primitives` in plain array operations, NumPy's or CuPy's.

Same arguments, same meaning: their definition, their test, and on a GPU their implementation. Sums
here follow the library's own order, which for NumPy's products depends on its BLAS and the number
of threads; the engine's do not. Nothing here waits for a device.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rnncore.checks import Array
from rnncore.devices import namespace

Indices = npt.NDArray[np.int64]


def linear_forward(x: Array, weight: Array, bias: Array | None, out: Array) -> None:
    """Write ``x @ weight.T + bias`` into ``out``; ``x (rows, in)``, ``weight (out, in)``."""
    namespace(out).matmul(x, weight.T, out=out)
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
    xp = namespace(dweight)
    if dx is not None:
        xp.matmul(dout, weight, out=dx)
    dweight += xp.matmul(dout.T, x)
    if dbias is not None:
        dbias += dout.sum(axis=0)


def batched_product(a: Array, b: Array, out: Array, transposed: bool = False) -> None:
    """Write ``a[i] @ b[i]``, or ``a[i] @ b[i].T`` if ``transposed``, into every ``out[i]``."""
    namespace(out).matmul(a, b.swapaxes(1, 2) if transposed else b, out=out)


def function(name: str, x: Array, out: Array) -> None:
    """Write "exp", "tanh", "sigmoid", "erf" or "log1p" of every entry into ``out``."""
    xp = namespace(x)
    known: dict[str, Callable[[Array], Array]] = {
        "exp": xp.exp,
        "tanh": xp.tanh,
        "sigmoid": lambda value: 1 / (1 + xp.exp(-value)),
        "erf": _erf,
        "log1p": xp.log1p,
    }
    out[...] = known[name](x)


def _erf(x: Array) -> Array:
    if namespace(x) is np:
        values: Array = np.vectorize(math.erf, otypes=[np.float64])(x)
    else:
        values = importlib.import_module("cupyx.scipy.special").erf(x)
    return values


def softmax_cross_entropy(
    logits: Array,
    targets: Indices,
    dlogits: Array | None,
    weights: Array | None = None,
    scale: Any = 1.0,
) -> Any:
    """Return the sum of ``-weights[target] log softmax(logits)[target]``, of no axes.

    ``dlogits`` becomes ``scale weights[target] (softmax - onehot)``. Rows with a negative target
    are left out: no loss, a gradient of zero.
    """
    xp, counted = namespace(logits), targets >= 0
    rows, places = xp.arange(len(targets)), xp.maximum(targets, 0)
    shifted = logits - logits.max(axis=1, keepdims=True)
    exps = xp.exp(shifted)
    totals = exps.sum(axis=1, dtype=np.float64)
    share = counted.astype(np.float64)
    if weights is not None:
        share *= weights.astype(np.float64)[places]
    if dlogits is not None:
        dlogits[...] = exps / totals[:, None]
        dlogits[rows, places] -= 1
        dlogits *= (scale * share)[:, None]
        dlogits[...] = xp.where(counted[:, None], dlogits, 0)
    losses = share * (xp.log(totals) - shifted[rows, places])
    return xp.where(counted, losses, 0).sum()


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    np.add.at(dweight, indices, dout)


def sorted_embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Do what :func:`embedding_backward` does, in an order of sums that is always the same.

    CuPy's own ways to add at indices leave the order to the hardware. Here rows are sorted by
    index, and partial sums of twice as many rows of one index are made each time (a segmented scan:
    Hillis and Steele, Data parallel algorithms, 1986), so that the last row of each has its total.
    """
    count, vocabulary = len(indices), len(dweight)
    if count == 0:
        return
    xp = namespace(dweight)
    order = xp.argsort(indices)
    held, totals, reach = indices[order], dout[order], 1
    while reach < count:
        same = (held[reach:] == held[:-reach])[:, None]
        further = xp.where(same, totals[:-reach], 0)
        further += totals[reach:]
        totals = xp.concatenate([totals[:reach], further])
        reach *= 2
    known = xp.arange(vocabulary)
    ends = xp.searchsorted(held, known, side="right")
    last = xp.maximum(ends - 1, 0)
    dweight += xp.where((held[last] == known)[:, None], totals[last], 0)
