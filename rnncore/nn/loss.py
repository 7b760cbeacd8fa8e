"""What every loss does: a value forward, the prediction's gradient backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from rnncore.checks import Array, any_array, choice, wrong_shape


class Loss:
    """Measure a prediction against a target.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over what counts.
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("reduction", reduction, ("mean", "sum"))
        self._dprediction: Array | None = None

    def backward(self) -> Array:
        """Return the gradient of the last ``forward``'s value by its prediction."""
        if self._dprediction is None:
            raise RuntimeError(f"{type(self).__name__}.backward: expected a forward() before it")
        dprediction, self._dprediction = self._dprediction, None
        return dprediction

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the gradient of the last call."""
        return {**vars(self), "_dprediction": None}

    def _options(self) -> list[str]:
        return [f"reduction={self.reduction!r}"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._options())})"


class ElementwiseLoss(Loss, ABC):
    """A loss that is a sum over the prediction's entries, each with a target of its own.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over the entries that the mask leaves.
    """

    def __call__(self, prediction: Any, target: Any, mask: Any = None) -> float:
        """Return the loss.

        Parameters
        ----------
        prediction : ndarray
            Of any shape, float32 or float64.
        target : ndarray of the same shape
            Of a dtype that the prediction's holds.
        mask : ndarray of bool, optional
            Which entries count: of the prediction's shape, or less its last axis.
        """
        return self._measure(prediction, target, mask, keep=False)[0]

    def forward(self, prediction: Any, target: Any, mask: Any = None) -> float:
        """Return the loss as a call does, and keep its gradient for ``backward``."""
        value, self._dprediction = self._measure(prediction, target, mask, keep=True)
        return value

    def _measure(
        self, prediction: Any, target: Any, mask: Any, keep: bool
    ) -> tuple[float, Array | None]:
        given = np.asarray(float_prediction(prediction), order="C")
        wanted = any_array("target", target)
        if wanted.dtype != given.dtype and not np.can_cast(wanted.dtype, given.dtype, "safe"):
            raise TypeError(f"target: expected dtype {given.dtype}, got {wanted.dtype}")
        if wanted.shape != given.shape:
            wrong_shape("target", str(given.shape), wanted.shape)
        wanted = wanted.astype(given.dtype, copy=False)
        counted = _take_mask(mask, given.shape)
        values, gradient = self._entries(given, wanted, keep)
        count = given.size
        if counted is not None:
            count = int(np.count_nonzero(np.broadcast_to(counted, given.shape)))
            values = np.where(counted, values, 0)
        scale = 1 / max(1, count) if self.reduction == "mean" else 1.0
        value = float(values.astype(np.float64).sum()) * scale
        if gradient is not None:
            gradient *= given.dtype.type(scale)
            if counted is not None:
                gradient = np.where(counted, gradient, given.dtype.type(0))
            gradient = gradient.reshape(given.shape)
        return value, gradient

    @abstractmethod
    def _entries(self, prediction: Array, target: Array, keep: bool) -> tuple[Array, Array | None]:
        """Return each entry's loss and, if it is to be kept, its slope."""


def float_prediction(prediction: Any) -> Array:
    """Return a prediction as an array of float32 or float64."""
    taken = any_array("prediction", prediction)
    if taken.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction: expected float32 or float64, got {taken.dtype}")
    return taken


def class_weights(name: str, value: Any, classes: int | None = None) -> Array:
    """Return finite weights of at least 0, one a class, as float64 ``(classes,)``."""
    weights = np.array(value, dtype=np.float64)
    if weights.ndim != 1 or (classes is not None and len(weights) != classes):
        wrong_shape(name, "(classes,)" if classes is None else f"({classes},)", weights.shape)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {weights}")
    return weights


def _take_mask(mask: Any, shape: tuple[int, ...]) -> Array | None:
    """Return a mask that broadcasts to a shape, None for one that leaves all."""
    if mask is None:
        return None
    taken = any_array("mask", mask)
    if taken.dtype != np.bool_:
        raise TypeError(f"mask: expected dtype bool, got {taken.dtype}")
    if taken.shape == shape:
        return taken
    if taken.shape != shape[:-1] or not shape:
        wrong_shape("mask", f"{shape} or {shape[:-1]}", taken.shape)
    return taken[..., None]
