"""Make one vector of a sequence: its last state, or mean or maximum over the steps alive."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import devices
from rnncore.checks import Array
from rnncore.models.parts import as_array

REDUCTIONS = ("last", "mean", "max")


def pool(y: Array, lengths: Any, reduce: str, reverse: int = 0) -> tuple[Array, Array]:
    """Reduce ``y (T, N, F)`` over time to ``(N, F)``; a row of length 0 gives zeros.

    Parameters
    ----------
    y : ndarray (T, N, F)
        Outputs of a recurrent layer.
    lengths : N integers, or None
        Length of each row.
    reduce : {"last", "mean", "max"}
        ``"last"`` takes each direction where it ends: the forward one at a row's last step, the
        reverse one at step 0.
    reverse : int
        How many of the last features are of the reverse direction.

    Returns
    -------
    pooled : ndarray (N, F)
        ``(weights * y).sum(axis=0)``.
    weights : ndarray (T, N, 1) or (T, N, F)
        What each output weighs, so that ``weights * dpooled`` is the gradient of ``y``.

    Examples
    --------
    >>> y = np.array([[[1.0, 5.0]], [[3.0, 2.0]], [[0.0, 0.0]]])
    >>> [pool(y, [2], name)[0].tolist() for name in REDUCTIONS]
    [[[3.0, 2.0]], [[2.0, 3.5]], [[3.0, 5.0]]]
    """
    steps, batch, features = y.shape
    device = devices.of(y)
    xp = device.xp
    times = xp.arange(steps)[:, None, None]
    known = np.full(batch, steps) if lengths is None else as_array(lengths)
    ends = device.brought("lengths", known).clip(0, steps)
    alive = times < ends[:, None]
    if reduce == "mean":
        weights = alive / xp.maximum(1, ends)[:, None]
    elif reduce == "max":
        weights = alive & (times == _largest(y, alive))
    else:
        weights = times == ends[:, None] - 1
        if reverse:
            backward = xp.arange(features) >= features - reverse
            weights = xp.where(backward, times == 0, weights)
    weights = weights.astype(y.dtype)
    pooled: Array = (weights * y).sum(axis=0)
    return pooled, weights


def _largest(y: Array, alive: Array) -> Array:
    """Return at which step each feature is largest, the first of equals."""
    xp = devices.namespace(y)
    if not len(y):
        return xp.zeros(y.shape[1:], dtype=np.int64)  # type: ignore[no-any-return]
    places: Array = xp.where(alive, y, -np.inf).argmax(axis=0)
    return places
