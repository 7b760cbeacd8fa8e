"""The steps of optimisers, run by the engine's C++ core; CuPy arrays take the naive twins.

Arrays are C-contiguous, of one float type and one shape. Bits depend neither on the number of
threads nor on the instruction set. Each has its naive twin of the same name and arguments in
:mod:`rnncore.train.naive`, which says what it computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import _rnncore
from rnncore.checks import Array
from rnncore.devices import namespace
from rnncore.threads import get_num_threads
from rnncore.train import naive


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
    if namespace(param) is not np:
        naive.sgd_step(param, grad, velocity, lr, momentum, nesterov, penalty)
        return
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
    if namespace(param) is not np:
        naive.adam_step(param, grad, m, v, lr, beta1, beta2, eps, step, penalty, decay)
        return
    threads = get_num_threads()
    _rnncore.adam_step(
        param, grad, m, v, lr, beta1, beta2, eps, decay, step, threads, penalty=penalty
    )


def sum_of_squares(array: Array) -> Any:
    """Return the sum of squares in float64, in an order that follows from the size alone.

    A float; of a CuPy array, one of no axes, for which nobody has waited yet.
    """
    if namespace(array) is not np:
        return naive.sum_of_squares(array)
    return _rnncore.sum_of_squares(np.ascontiguousarray(array), get_num_threads())
