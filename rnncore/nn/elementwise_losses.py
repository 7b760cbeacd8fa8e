"""Losses that compare a prediction with a target entry by entry."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import devices
from rnncore.checks import Array
from rnncore.nn import arrays
from rnncore.nn.loss import ElementwiseLoss, class_weights


class SigmoidCrossEntropy(ElementwiseLoss):
    r"""Measure yes-or-no answers by their logits: :math:`-t \log s(x) - (1-t) \log(1-s(x))`.

    :math:`s` is the sigmoid, :math:`t` the target from 0 to 1; worked out as
    :math:`(1-t) x + (1 + (p-1) t) (\log(1 + e^{-|x|}) + \max(-x, 0))`, which no logit makes
    overflow, with :math:`p` the ``positive_weight``.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over the entries that the mask leaves.
    weight : array (classes,), optional
        Times the loss of each entry along the last axis; the mean still divides by the number of
        entries, as PyTorch does.
    positive_weight : array (classes,), optional
        Times the part of a target of 1, along the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> loss = SigmoidCrossEntropy()
    >>> round(loss.forward(np.zeros((2, 3)), np.ones((2, 3))), 4)
    0.6931
    >>> loss.backward().round(4).tolist()[0]
    [-0.0833, -0.0833, -0.0833]
    """

    def __init__(
        self, reduction: str = "mean", *, weight: Any = None, positive_weight: Any = None
    ) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else class_weights("weight", weight)
        self.positive_weight = None
        if positive_weight is not None:
            self.positive_weight = class_weights("positive_weight", positive_weight)

    def _entries(self, prediction: Array, target: Array, keep: bool) -> tuple[Array, Array | None]:
        number, x, t = prediction.dtype.type, prediction, target
        device = devices.of(prediction)
        xp = device.xp
        classes = x.shape[-1] if x.ndim else 1
        positive: Any = number(1)
        if self.positive_weight is not None:
            positive = class_weights("positive_weight", self.positive_weight, classes)
            positive = device.upload(positive.astype(x.dtype))
        share = 1 + (positive - 1) * t
        below = arrays.log1p(arrays.exp(-xp.absolute(x))) + xp.maximum(-x, 0)
        values = (1 - t) * x + share * below
        slope = (1 - t) - share * arrays.sigmoid(-x) if keep else None
        if self.weight is not None:
            weight = device.upload(class_weights("weight", self.weight, classes).astype(x.dtype))
            values = values * weight
            slope = None if slope is None else slope * weight
        return values, slope

    def _options(self) -> list[str]:
        named = {"weight": self.weight, "positive_weight": self.positive_weight}
        weighted = [f"{k}=({len(v)} classes)" for k, v in named.items() if v is not None]
        return [*super()._options(), *weighted]


class MeanSquaredError(ElementwiseLoss):
    """Measure distances: the mean of ``(prediction - target)^2``, or the sum.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Whether the value is the mean or the sum over the entries that the mask leaves.

    Examples
    --------
    >>> import numpy as np
    >>> loss = MeanSquaredError()
    >>> loss.forward(np.array([1.0, 3.0]), np.array([0.0, 0.0]))
    5.0
    >>> loss.backward().tolist()
    [1.0, 3.0]
    """

    def _entries(self, prediction: Array, target: Array, keep: bool) -> tuple[Array, Array | None]:
        less = prediction - target
        square: Array = devices.namespace(less).square(less.astype(np.float64))
        return square, 2 * less if keep else None
