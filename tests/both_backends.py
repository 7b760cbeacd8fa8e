"""Run a module's tests on every backend behind the same layers, that of GPUs among them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import on_device
import pytest

import rnncore as rc
from rnncore import backends
from rnncore.backends.interface import Backend

CLASSES = {
    "rnn": lambda *sizes, **options: rc.RNN(*sizes, **options),
    "lstm": lambda *sizes, **options: rc.LSTM(*sizes, **options),
    "gru": lambda *sizes, **options: rc.GRU(*sizes, **options),
}


@pytest.fixture(params=["cpu", "reference", "cuda"])
def both_backends(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on each backend; ``cuda`` is the C++ core behind a stand-in for CuPy.

    With ``--device cuda`` it is a GPU, and alone.
    """
    real = request.config.getoption("--device") != "cpu"
    if request.param != "cuda":
        if real:
            pytest.skip("all layers are on the GPU")
        with backends.use(request.param):
            yield request.param
    elif real:
        yield "cuda"  # conftest has moved all layers there
    else:
        with on_device.stand_in(), on_device.lifted_layers():
            yield "cuda"


def backend_of(both_backends: str) -> Backend:
    """Return what computes for the test's layers, where a test puts something else in its way."""
    return backends.current("cuda" if both_backends == "cuda" else "cpu")


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
