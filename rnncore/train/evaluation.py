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

    Raises
    ------
    TypeError
        If the model's call returns more than a prediction, as that of a language model or a layer
        does; a language model has :meth:`~rnncore.models.LanguageModel.mean_loss`.

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
        prediction = model(*inputs, **named)
        if isinstance(prediction, tuple):
            raise TypeError(_not_a_prediction(model, prediction))
        total += weight * float(loss(prediction, targets, **options))
        count += weight
    return total / max(1, count)


def _not_a_prediction(model: Any, prediction: tuple[Any, ...]) -> str:
    """Return what is wrong with a call that gives a state or the like beside its prediction."""
    name = type(model).__name__
    other = f"; {name}.mean_loss(indices) does it" if hasattr(model, "mean_loss") else ""
    return (
        f"model: expected a call that returns a prediction alone, got a tuple of "
        f"{len(prediction)} from {name}{other}"
    )


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
