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
        Batches weigh as many as they have targets; class indices that are negative or the loss's
        ``ignore_index`` do not count, nor what a batch's ``mask`` leaves out of an elementwise
        loss.

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
        weight = _number_counted(loss, targets, options)
        total += weight * float(loss(model(*inputs, **named), targets, **options))
        count += weight
    return total / max(1, count)


def _number_counted(loss: Any, targets: Any, options: dict[str, Any]) -> int:
    """Return how many targets the loss is the mean of."""
    if options:
        entries: int = math.prod(targets.shape[2:])
        return int(options["mask"].sum()) * entries
    if isinstance(loss, ElementwiseLoss) or targets.dtype.kind not in "iu":
        return int(targets.size)
    counted, ignored = targets >= 0, getattr(loss, "ignore_index", None)
    return int((counted if ignored is None else counted & (targets != ignored)).sum())


def loss_options(loss: Any, batch: Any) -> dict[str, Any]:
    """Return what a loss is given beside prediction and targets: a batch's ``mask``, if both know.

    Losses of class indices know padding by its sign; those of numbers need to be told.
    """
    mask = getattr(batch, "mask", None)
    return {} if mask is None or not isinstance(loss, ElementwiseLoss) else {"mask": mask}
