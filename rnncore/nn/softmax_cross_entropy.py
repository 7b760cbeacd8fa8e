"""The loss of classification: softmax and cross-entropy in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, size
from rnncore.devices import HOST, Device
from rnncore.nn import checks, primitives
from rnncore.nn.loss import Loss, class_weights, float_prediction


class SoftmaxCrossEntropy(Loss):
    r"""Measure how improbable the targets are: :math:`-\log \mathrm{softmax}(x)_{target}`, in nats.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over the targets that count. The mean is weighted:
        with ``weight`` the sum is divided by that of the targets' weights, as PyTorch does.
    ignore_index : int, optional
        A target that does not count, as a padding's.
    weight : array (classes,), optional
        How much a target of each class counts; numbers of at least 0.

    Notes
    -----
    A negative target never counts: no loss, a gradient of zero. Without any target that counts the
    value is 0. The sum runs in float64 in a fixed order.

    Examples
    --------
    >>> import numpy as np
    >>> loss = SoftmaxCrossEntropy()
    >>> round(loss.forward(np.zeros((5, 4), np.float32), np.array([0, 1, 2, 3, -1])), 4)
    1.3863
    >>> loss.backward().shape
    (5, 4)
    """

    def __init__(
        self, reduction: str = "mean", *, ignore_index: int | None = None, weight: Any = None
    ) -> None:
        super().__init__(reduction)
        self.ignore_index = ignore_index
        if ignore_index is not None:
            self.ignore_index = size("ignore_index", ignore_index, minimum=-(2**63))
        self.weight = None if weight is None else class_weights("weight", weight)

    def __call__(self, prediction: Any, target: Any) -> Any:
        """Return the loss of logits ``(..., classes)`` and integer targets ``(...)``."""
        return self._measure(prediction, target, keep=False)[0]

    def forward(self, prediction: Any, target: Any) -> Any:
        """Return the loss as a call does, and keep its gradient for ``backward``."""
        value, self._dprediction = self._measure(prediction, target, keep=True)
        return value

    def _measure(self, prediction: Any, target: Any, keep: bool) -> tuple[Any, Array | None]:
        device, logits = float_prediction(prediction)
        if logits.ndim == 0 or logits.shape[-1] == 0:
            raise ValueError(f"prediction: expected (..., classes), got {logits.shape}")
        classes = logits.shape[-1]
        targets = self._take_targets(device, target, classes)
        if targets.shape != logits.shape[:-1]:
            raise ValueError(f"target: expected {logits.shape[:-1]}, got {targets.shape}")
        targets, weight = targets.reshape(-1), None
        if self.weight is not None:
            held = class_weights("weight", self.weight, classes).astype(logits.dtype)
            weight = device.upload(held)
        xp = device.xp
        rows = xp.ascontiguousarray(logits).reshape(-1, classes)
        scale = 1.0 if self.reduction == "sum" else 1 / self._total(device, targets, weight)
        gradient = xp.empty_like(rows) if keep else None
        value = scale * primitives.softmax_cross_entropy(rows, targets, gradient, weight, scale)
        return value, None if gradient is None else gradient.reshape(logits.shape)

    def _take_targets(self, device: Device, target: Any, classes: int) -> Any:
        """Return targets as int64, -1 where they do not count."""
        place = HOST if device.from_host(target) else device
        take = checks.listed if place is HOST else place.any_array
        taken, lowest = take("target", target), -(2**63)
        if self.ignore_index is None or taken.dtype.kind not in "iu":
            return checks.indices(device, "target", taken, classes, lowest)
        ignored = taken == self.ignore_index
        others = place.xp.where(ignored, 0, taken)
        counted = checks.indices(place, "target", others, classes, lowest)
        return device.brought("target", place.xp.where(ignored, np.int64(-1), counted))

    @staticmethod
    def _total(device: Device, targets: Any, weight: Array | None) -> Any:
        """Return what the mean divides by; 1 where nothing counts."""
        counted = targets >= 0
        if device is not HOST:
            xp, share = device.xp, counted
            if weight is not None:
                share = xp.where(counted, weight.astype(np.float64)[xp.maximum(targets, 0)], 0.0)
            total = share.sum()
            return xp.where(total == 0, 1, total)
        if weight is None:
            return max(1.0, float(np.count_nonzero(counted)))
        return float(weight.astype(np.float64)[targets[counted]].sum()) or 1.0

    def _options(self) -> list[str]:
        ignored = [] if self.ignore_index is None else [f"ignore_index={self.ignore_index}"]
        weighted = [] if self.weight is None else [f"weight=({len(self.weight)} classes)"]
        return [*super()._options(), *ignored, *weighted]
