"""Run a module's tests on the C++ core and on the reference behind the same layers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import rnncore as rc
from rnncore import backends

CLASSES = {"rnn": rc.RNN, "lstm": rc.LSTM, "gru": rc.GRU}


@pytest.fixture(params=["cpu", "reference"])
def both_backends(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on each backend."""
    with backends.use(request.param):
        yield request.param


def exact_dtype(backend: str) -> str:
    """Return the dtype in which a run split into calls has the bits of one call.

    The reference computes in float64 throughout, so in float32 it rounds where calls meet.
    """
    return "float64" if backend == "reference" else "float32"


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Draw an array that no other shape or seed draws."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def parts(state: object) -> list[np.ndarray]:
    """Return the arrays of a state, however it nests."""
    if state is None:
        return []
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in parts(part)]


def assert_same(actual: object, expected: object) -> None:
    """Compare two states, arrays, or lists of them bit by bit."""
    left, right = parts(actual), parts(expected)
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.array_equal(one, other, equal_nan=True)


def snapshot(layer: object) -> list[np.ndarray]:
    """Return copies of everything that a failed call must leave as it was."""
    arrays = [*layer.params.values(), *layer.grads.values()]
    return [array.copy() for array in arrays]
