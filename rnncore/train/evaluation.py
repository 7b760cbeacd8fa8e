"""The loss of a model on batches that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from rnncore import devices
from rnncore.nn.loss import ElementwiseLoss
from rnncore.train.batches import arguments


def evaluate(model: Any, loss: Any, batches: Iterable[Any]) -> float:
    """Return a model's mean loss in inference, every target that counts weighing the same.

    Parameters
    ----------
    model : module
        Called with a batch's inputs, and its lengths if it has them; nothing of it changes.
    loss : loss
        With ``reduction="mean"``, called with prediction and targets.
    batches : iterable
        As a :class:`Trainer` takes them, and finite, such as ``batches.epoch()``.

    Returns
    -------
    float
        Batches weigh as many as they have targets; negative integer targets do not count, nor
        those that a batch's ``mask`` leaves out of an elementwise loss.

    Examples
    --------
    >>> from rnncore import nn
    >>> model, x = nn.Linear(2, 4, seed=0), np.zeros((3, 2), np.float32)
    >>> model.params["bias"][...] = 0
    >>> round(evaluate(model, nn.SoftmaxCrossEntropy(), [(x, np.array([0, 1, -1]))]), 4)
    1.3863
    """
    total, count = 0.0, 0
    for batch in batches:
        inputs, named = arguments(model, batch)
        place = devices.of_foreign(batch[1])
        targets = np.asarray(batch[1]) if place is None else batch[1]
        options = loss_options(loss, batch)
        weight = int((targets >= 0).sum()) if targets.dtype.kind in "iu" else targets.size
        if options:
            weight = int(options["mask"].sum()) * math.prod(targets.shape[2:])
        total += weight * float(loss(model(*inputs, **named), targets, **options))
        count += weight
    return total / max(1, count)


def loss_options(loss: Any, batch: Any) -> dict[str, Any]:
    """Return what a loss is given beside prediction and targets: a batch's ``mask``, if both know.

    Losses of class indices know padding by its sign; those of numbers need to be told.
    """
    mask = getattr(batch, "mask", None)
    return {} if mask is None or not isinstance(loss, ElementwiseLoss) else {"mask": mask}
