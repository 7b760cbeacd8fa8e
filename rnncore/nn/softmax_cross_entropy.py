"""The loss of classification: softmax and cross-entropy in one."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, choice
from rnncore.nn import checks, primitives


class SoftmaxCrossEntropy:
    r"""Measure how improbable the targets are: :math:`-\log \mathrm{softmax}(x)_{target}`, in nats.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over the targets that count.

    Notes
    -----
    A negative target does not count: no loss, a gradient of zero. Without any target that counts
    the value is 0. The sum runs in float64 in a fixed order.

    Examples
    --------
    >>> import numpy as np
    >>> loss = SoftmaxCrossEntropy()
    >>> round(loss.forward(np.zeros((5, 4), np.float32), np.array([0, 1, 2, 3, -1])), 4)
    1.3863
    >>> loss.backward().shape
    (5, 4)
    """

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice("reduction", reduction, ("mean", "sum"))
        self._dprediction: Array | None = None

    def __call__(self, prediction: Any, target: Any) -> float:
        """Return the loss of logits ``(..., classes)`` and integer targets ``(...)``."""
        return self._measure(prediction, target, keep=False)[0]

    def forward(self, prediction: Any, target: Any) -> float:
        """Return the loss as a call does, and keep its gradient for ``backward``."""
        value, self._dprediction = self._measure(prediction, target, keep=True)
        return value

    def backward(self) -> Array:
        """Return the gradient of the last ``forward``'s value by its prediction."""
        if self._dprediction is None:
            raise RuntimeError("SoftmaxCrossEntropy.backward: expected a forward() before it")
        dprediction, self._dprediction = self._dprediction, None
        return dprediction

    def _measure(self, prediction: Any, target: Any, keep: bool) -> tuple[float, Array | None]:
        logits = np.asarray(prediction)
        if logits.dtype not in (np.float32, np.float64):
            raise TypeError(f"prediction: expected float32 or float64, got {logits.dtype}")
        if logits.ndim == 0 or logits.shape[-1] == 0:
            raise ValueError(f"prediction: expected (..., classes), got {logits.shape}")
        classes = logits.shape[-1]
        targets = checks.indices("target", target, classes, lowest=-(2**63))
        if targets.shape != logits.shape[:-1]:
            raise ValueError(f"target: expected {logits.shape[:-1]}, got {targets.shape}")
        rows = np.ascontiguousarray(logits).reshape(-1, classes)
        gradient = np.empty_like(rows) if keep else None
        value = primitives.softmax_cross_entropy(rows, targets.reshape(-1), gradient)
        if self.reduction == "mean":
            count = max(1, int(np.count_nonzero(targets >= 0)))
            value /= count
            if gradient is not None:
                gradient *= gradient.dtype.type(1 / count)
        return value, None if gradient is None else gradient.reshape(logits.shape)

    def __repr__(self) -> str:
        return f"SoftmaxCrossEntropy(reduction={self.reduction!r})"
