"""The steps of optimisers, run by the engine's C++ core.

Arrays are C-contiguous, of one float type and one shape. Bits depend neither on the number of
threads nor on the instruction set. Each has its naive twin of the same name and arguments in
:mod:`rnncore.train.naive`, which says what it computes.
"""

from __future__ import annotations

import numpy as np

from rnncore import _rnncore
from rnncore.checks import Array
from rnncore.threads import get_num_threads


def sgd_step(
    param: Array,
    grad: Array,
    velocity: Array | None,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    penalty: float = 0.0,
) -> None:
    """Update one parameter in place by stochastic gradient descent."""
    _rnncore.sgd_step(param, grad, velocity, lr, momentum, nesterov, penalty, get_num_threads())


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
    """Update one parameter in place by Adam's rule, ``step`` counted from 1."""
    threads = get_num_threads()
    _rnncore.adam_step(
        param, grad, m, v, lr, beta1, beta2, eps, decay, step, threads, penalty=penalty
    )


def sum_of_squares(array: Array) -> float:
    """Return the sum of squares in float64, in an order that follows from the size alone."""
    return _rnncore.sum_of_squares(np.ascontiguousarray(array), get_num_threads())
