"""The steps of :mod:`rnncore.train.updates` in plain array operations, NumPy's or CuPy's.

Their definition, their test, and on a GPU their implementation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array
from rnncore.devices import namespace


def sgd_step(
    param: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    penalty: float = 0.0,
) -> None:
    r"""Update one parameter in place by stochastic gradient descent.

    With :math:`g` the gradient, :math:`\mu` the momentum and :math:`d = g + penalty\, p`,
    :math:`u \leftarrow \mu u + d` and :math:`p \leftarrow p - lr\, u`, or with ``nesterov``
    :math:`p \leftarrow p - lr\, (d + \mu u)` (Sutskever et al., 2013). Without a velocity,
    :math:`p \leftarrow p - lr\, d`.
    """
    number = param.dtype.type
    down = grad + number(penalty) * param
    if velocity is not None:
        velocity *= number(momentum)
        velocity += down
        down = down + number(momentum) * velocity if nesterov else velocity
    param -= number(lr) * down


def adam_step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    penalty: float = 0.0,
    decay: float = 0.0,
) -> None:
    r"""Update one parameter in place by Adam's rule (Kingma and Ba, 2015), ``step`` from 1.

    With :math:`g` the gradient and :math:`d = g + penalty\, p`,
    :math:`m \leftarrow \beta_1 m + (1-\beta_1) d`,
    :math:`v \leftarrow \beta_2 v + (1-\beta_2) d^2`,
    :math:`p \leftarrow p - lr\, (\hat m / (\sqrt{\hat v} + \epsilon) + decay\, p)` (Loshchilov and
    Hutter, 2019), where :math:`\hat m = m / (1-\beta_1^{step})` and likewise :math:`\hat v`.
    """
    number, xp = param.dtype.type, namespace(param)
    down = grad + number(penalty) * param
    m *= number(beta1)
    m += number(1 - beta1) * down
    v *= number(beta2)
    v += number(1 - beta2) * xp.square(down)
    size = xp.sqrt(v / number(1 - beta2**step)) + number(eps)
    param -= number(lr) * (m / number(1 - beta1**step) / size + number(decay) * param)


def sum_of_squares(array: Array) -> Any:
    """Return the sum of squares in float64, of no axes."""
    return namespace(array).square(array.astype(np.float64, copy=False)).sum()
