"""Central finite differences: the gradient of a loss by its values alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cases import Problem, Results
from tolerances import FINITE_DIFFERENCE, FINITE_DIFFERENCE_STEP

Forward = Callable[[Problem], tuple[np.ndarray, np.ndarray, np.ndarray | None]]


def loss(problem: Problem, forward: Forward) -> float:
    """Return ``<y, dy> + <hn, dhn> + <cn, dcn>``, whose gradient a backward pass should give.

    Past a row's length dy counts for nothing, since y is zero there whatever the weights are.
    """
    y, hn, cn = forward(problem)
    value = float((y * problem.dy).sum() + (hn * problem.dhn).sum())
    return value if cn is None or problem.dcn is None else value + float((cn * problem.dcn).sum())


def inputs_of(problem: Problem) -> Results:
    """Return everything the loss depends on, under the names of the gradients."""
    inputs = {"dx": problem.x}
    if problem.h0 is not None:
        inputs["dh0"] = problem.h0
    if problem.c0 is not None:
        inputs["dc0"] = problem.c0
    return inputs | {f"d {name}": value for name, value in problem.params.items()}


def assert_gradients_match_differences(problem: Problem, forward: Forward, actual: Results) -> None:
    """Move every entry of every input by plus and minus eps, in place, and compare."""
    for name, array in inputs_of(problem).items():
        assert array.dtype == np.float64
        expected = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            array[at] = kept + FINITE_DIFFERENCE_STEP
            above = loss(problem, forward)
            array[at] = kept - FINITE_DIFFERENCE_STEP
            below = loss(problem, forward)
            array[at] = kept
            expected[at] = (above - below) / (2 * FINITE_DIFFERENCE_STEP)
        assert np.abs(expected).max() > 1e-3, f"{name}: nothing depends on it"
        np.testing.assert_allclose(actual[name], expected, **FINITE_DIFFERENCE, err_msg=name)
