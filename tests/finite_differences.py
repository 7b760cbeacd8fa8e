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


def assert_gradients_match_along_directions(
    problem: Problem, forward: Forward, actual: Results, seed: int = 0
) -> None:
    """Move inputs along a random direction, all that share a plain name at once, and compare.

    Far cheaper than every entry by itself; a wrong entry shows unless the direction misses it. Two
    steps, extrapolated (Richardson 1911), leave out the error of eps^2, which layer norm makes
    large where the product that it normalises is small.
    """
    rng, inputs = np.random.default_rng(seed), inputs_of(problem)
    for plain in dict.fromkeys(name.split("_l")[0] for name in inputs):
        arrays = {name: inputs[name] for name in inputs if name.split("_l")[0] == plain}
        ways = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
        once, twice = (
            slope_along(problem, forward, arrays, ways, scale * FINITE_DIFFERENCE_STEP)
            for scale in (1, 2)
        )
        slope = sum(float((actual[name] * way).sum()) for name, way in ways.items())
        expected = (4 * once - twice) / 3
        np.testing.assert_allclose(slope, expected, **FINITE_DIFFERENCE, err_msg=plain)


def slope_along(
    problem: Problem, forward: Forward, arrays: Results, ways: Results, step: float
) -> float:
    """Return the loss' central difference as the problem's own arrays move along their ways."""
    kept = {name: array.copy() for name, array in arrays.items()}
    values = []
    for signed in (step, -step):
        for name, array in arrays.items():
            array[...] = kept[name] + signed * ways[name]
        values.append(loss(problem, forward))
    for name, array in arrays.items():
        array[...] = kept[name]
    return (values[0] - values[1]) / (2 * step)
