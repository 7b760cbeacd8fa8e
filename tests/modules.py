"""What tests of rnncore.nn share: differences of every entry, and weights from PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tolerances import FINITE_DIFFERENCE, FINITE_DIFFERENCE_STEP

from rnncore import nn


def differences(value: Callable[[], float], array: np.ndarray) -> np.ndarray:
    """Return the gradient of a value by the entries of an array, moved in place."""
    gradient = np.zeros_like(array)
    for at in np.ndindex(array.shape):
        kept = array[at]
        array[at] = kept + FINITE_DIFFERENCE_STEP
        above = value()
        array[at] = kept - FINITE_DIFFERENCE_STEP
        below = value()
        array[at] = kept
        gradient[at] = (above - below) / (2 * FINITE_DIFFERENCE_STEP)
    return gradient


def drawn(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_gradients_match_differences(
    module, inputs: Mapping[str, np.ndarray], forward: Callable | None = None
) -> None:
    """Compare the gradients of all inputs and parameters of a module without randomness.

    ``forward`` runs the module's ``forward`` on the inputs where more than these goes in.
    """
    run = forward or (lambda: module.forward(*inputs.values()))
    module.zero_grad()
    y = run()
    dy = drawn(*y.shape, seed=99)
    gradients = module.backward(dy)
    given = gradients if isinstance(gradients, tuple) else (gradients,)

    def value() -> float:
        return float((run() * dy).sum())

    for (name, array), got in zip(inputs.items(), given, strict=True):
        expected = differences(value, array)
        assert np.abs(expected).max() > 1e-3, f"{name}: nothing depends on it"
        np.testing.assert_allclose(got, expected, **FINITE_DIFFERENCE, err_msg=name)
    kept = {name: grad.copy() for name, grad in module.grads.items()}
    for name, param in module.params.items():
        np.testing.assert_allclose(
            kept[name], differences(value, param), **FINITE_DIFFERENCE, err_msg=name
        )


def stir(module, seed: int = 5) -> None:
    """Move all parameters away from zeros and ones."""
    draw = np.random.default_rng(seed)
    for value in module.params.values():
        value += 0.3 * draw.standard_normal(value.shape)


class Reader(nn.Module):
    """A module of parts: ``embedding``, ``gru`` and ``output``, which a subclass makes."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, _ = self.gru.forward(self.embedding.forward(x))
        return self.output.forward(y)

    def backward(self, dy: np.ndarray) -> None:
        dx, _ = self.gru.backward(self.output.backward(dy))
        self.embedding.backward(dx)


def assert_own_gradients_match_differences(model: Reader, x: np.ndarray, dy: np.ndarray) -> None:
    """Compare the gradients of the parameters after one pass from zero."""
    model.forward(x)
    model.backward(dy)
    for name, param in model.params.items():
        expected = differences(lambda: float((model.forward(x) * dy).sum()), param)
        np.testing.assert_allclose(model.grads[name], expected, **FINITE_DIFFERENCE, err_msg=name)


def assert_close(got: np.ndarray, expected, name: str = "") -> None:
    """Compare float64 results that sum in different orders."""
    wanted = expected.detach().numpy() if hasattr(expected, "detach") else expected
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12, err_msg=name)
