"""The primitives of :mod:`rnncore.nn.primitives` in plain NumPy: their definition and their test.

Same arguments, same meaning. Sums here follow NumPy's own order, which for products depends on
its BLAS and the number of threads; the engine's do not.
"""

from __future__ import annotations

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


def softmax_cross_entropy(logits: Array, targets: Indices, dlogits: Array | None) -> float:
    """Return the sum of ``-log softmax(logits)[target]``; write ``softmax - onehot``.

    Rows with a negative target are left out: no loss, a gradient of zero.
    """
    if not targets.size:
        return 0.0
    shifted = logits - logits.max(axis=1, keepdims=True)
    exps = np.exp(shifted)
    totals = exps.sum(axis=1, dtype=np.float64)
    counted = np.flatnonzero(targets >= 0)
    picked = shifted[counted, targets[counted]]
    if dlogits is not None:
        dlogits[...] = exps / totals[:, None]
        dlogits[targets < 0] = 0
        dlogits[counted, targets[counted]] -= 1
    return float((np.log(totals[counted]) - picked).sum())


def embedding_backward(indices: Indices, dout: Array, dweight: Array) -> None:
    """Add every row of ``dout (count, size)`` into row ``indices[...]`` of ``dweight``."""
    np.add.at(dweight, indices, dout)


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
    r"""Update one parameter in place (Kingma and Ba, 2015), ``step`` counted from 1.

    With :math:`g` the gradient and :math:`d` the ``weight_decay`` (Loshchilov and Hutter, 2019),
    :math:`m \leftarrow \beta_1 m + (1-\beta_1) g`,
    :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2`,
    :math:`p \leftarrow p - lr\, (\hat m / (\sqrt{\hat v} + \epsilon) + d\, p)`.
    """
    number = param.dtype.type
    m *= number(beta1)
    m += number(1 - beta1) * grad
    v *= number(beta2)
    v += number(1 - beta2) * np.square(grad)
    size = np.sqrt(v / number(1 - beta2**step)) + number(eps)
    param -= number(lr) * (m / number(1 - beta1**step) / size + number(weight_decay) * param)
