"""What every loss does: a value forward, the prediction's gradient backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from rnncore import devices
from rnncore.checks import Array, choice, wrong_shape
from rnncore.devices import HOST, Device


class Loss:
    """Measure a prediction against a target.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over what counts.

    Notes
    -----
    The prediction's device is the loss's: a target and a mask may come from there or from the host.
    The value is a ``float``. Of a prediction on a GPU it is a CuPy array of no axes, in float64,
    for which nobody has waited: ``float(value)`` reads it.
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

    def __call__(self, prediction: Any, target: Any, mask: Any = None) -> Any:
        """Return the loss.

        Parameters
        ----------
        prediction : ndarray
            Of any shape, float32 or float64.
        target : ndarray of the same shape
            Of a dtype that the prediction's holds.
        mask : ndarray of bool, optional
            Which entries count: of the prediction's shape, or less its last axis.

        Returns
        -------
        float, or a CuPy array of no axes for a prediction on a GPU
        """
        return self._measure(prediction, target, mask, keep=False)[0]

    def forward(self, prediction: Any, target: Any, mask: Any = None) -> Any:
        """Return the loss as a call does, and keep its gradient for ``backward``."""
        value, self._dprediction = self._measure(prediction, target, mask, keep=True)
        return value

    def _measure(
        self, prediction: Any, target: Any, mask: Any, keep: bool
    ) -> tuple[Any, Array | None]:
        device, taken = float_prediction(prediction)
        xp = device.xp
        given = xp.asarray(taken, order="C")
        wanted = taken_from_either(device, "target", target)
        if wanted.dtype != given.dtype and not np.can_cast(wanted.dtype, given.dtype, "safe"):
            raise TypeError(f"target: expected dtype {given.dtype}, got {wanted.dtype}")
        if wanted.shape != given.shape:
            wrong_shape("target", str(given.shape), wanted.shape)
        wanted = wanted.astype(given.dtype, copy=False)
        counted = _take_mask(device, mask, given.shape)
        values, gradient = self._entries(given, wanted, keep)
        scale: Any = 1 / max(1, given.size)
        if counted is not None:
            values = xp.where(counted, values, 0)
            count = xp.broadcast_to(counted, given.shape).sum()
            scale = 1 / (max(1, int(count)) if device is HOST else xp.maximum(1, count))
        if self.reduction == "sum":
            scale = 1.0
        value = values.astype(np.float64).sum() * scale
        if gradient is not None:
            gradient = (gradient * scale).astype(given.dtype)
            if counted is not None:
                gradient = xp.where(counted, gradient, given.dtype.type(0))
            gradient = gradient.reshape(given.shape)
        return float(value) if device is HOST else value, gradient

    @abstractmethod
    def _entries(self, prediction: Array, target: Array, keep: bool) -> tuple[Array, Array | None]:
        """Return each entry's loss and, if it is to be kept, its slope."""


def float_prediction(prediction: Any) -> tuple[Device, Array]:
    """Return where a prediction lies, and the prediction as an array of float32 or float64."""
    lies_here = isinstance(prediction, np.ndarray)
    device = HOST if lies_here else devices.of_foreign(prediction) or HOST
    taken = device.any_array("prediction", prediction)
    if taken.dtype not in (np.float32, np.float64):
        raise TypeError(f"prediction: expected float32 or float64, got {taken.dtype}")
    return device, taken


def taken_from_either(device: Device, name: str, value: object) -> Array:
    """Return an array of the host or of a device as one of the device."""
    if device.from_host(value):
        return device.upload(HOST.any_array(name, value))
    return device.any_array(name, value)


def class_weights(name: str, value: Any, classes: int | None = None) -> Array:
    """Return finite weights of at least 0, one a class, as float64 ``(classes,)`` on the host."""
    held = HOST.brought(name, value) if devices.of_foreign(value) else value
    weights = np.array(held, dtype=np.float64)
    if weights.ndim != 1 or (classes is not None and len(weights) != classes):
        wrong_shape(name, "(classes,)" if classes is None else f"({classes},)", weights.shape)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {weights}")
    return weights


def _take_mask(device: Device, mask: Any, shape: tuple[int, ...]) -> Array | None:
    """Return a mask that broadcasts to a shape, None for one that leaves all."""
    if mask is None:
        return None
    taken = taken_from_either(device, "mask", mask)
    if taken.dtype != np.bool_:
        raise TypeError(f"mask: expected dtype bool, got {taken.dtype}")
    if taken.shape == shape:
        return taken
    if taken.shape != shape[:-1] or not shape:
        wrong_shape("mask", f"{shape} or {shape[:-1]}", taken.shape)
    return taken[..., None]
