"""Batches of windows that slide over a series, for forecasting."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from rnncore.checks import Array, size
from rnncore.train.batches import Indices, ShuffledBatches


class WindowBatch(NamedTuple):
    """One batch: what was seen, and what came after it."""

    inputs: Array
    """``(T, N, D)``."""
    targets: Array
    """``(horizon, N, columns)``."""


class WindowBatches(ShuffledBatches[WindowBatch]):
    """Cut a series into windows and what follows each.

    Parameters
    ----------
    series : array_like (length,) or (length, D)
        Values by time; a single column may be left out as an axis.
    batch : int
        ``N``.
    steps : int
        ``T``, the window that is seen.
    horizon : int
        Steps that follow and are to be forecast.
    seed : int
        Of the order.
    columns : sequence of int, optional
        Which columns are forecast; all of them if None.
    stride : int
        Steps from one window's start to the next one's.
    shuffle : bool
        Without, windows come in the order of time.
    drop_last : bool
        Whether windows left over at an epoch's end are left out of it.

    Attributes
    ----------
    position : int
        Number of batches drawn so far; may be set.
    per_epoch : int
        Batches in an epoch.

    Examples
    --------
    >>> batches = WindowBatches(np.arange(6.0), batch=2, steps=3, horizon=2, shuffle=False)
    >>> inputs, targets = next(batches)
    >>> inputs[:, :, 0].T.tolist(), targets[:, :, 0].T.tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[3.0, 4.0], [4.0, 5.0]])
    """

    def __init__(
        self,
        series: Any,
        batch: int,
        steps: int,
        horizon: int = 1,
        seed: int = 0,
        *,
        columns: Any = None,
        stride: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        values = np.asarray(series)
        if values.dtype.kind != "f" or values.ndim not in (1, 2):
            raise TypeError(
                f"series: expected floats (length,) or (length, D), got {values.dtype} "
                f"{values.shape}"
            )
        values = values.reshape(len(values), -1)
        self.steps, self.horizon = size("steps", steps), size("horizon", horizon)
        span = self.steps + self.horizon
        if len(values) < span:
            raise ValueError(f"series: expected at least {span} steps, got {len(values)}")
        # (windows, D, span), a view: no window is copied before it is asked for.
        self._windows = sliding_window_view(values, span, axis=0)[:: size("stride", stride)]
        self._columns = _taken_columns(columns, values.shape[1])
        super().__init__(len(self._windows), batch, seed, shuffle, drop_last)

    def _make(self, chosen: Indices) -> WindowBatch:
        windows = self._windows[chosen].transpose(2, 0, 1)
        return WindowBatch(
            np.ascontiguousarray(windows[: self.steps]),
            np.ascontiguousarray(windows[self.steps :, :, self._columns]),
        )


def _taken_columns(columns: Any, width: int) -> Indices:
    """Return which columns are forecast; negative ones count from the end."""
    if columns is None:
        return np.arange(width)
    taken = np.asarray(columns)
    if taken.ndim != 1 or taken.dtype.kind not in "iu":
        raise TypeError(f"columns: expected a sequence of integers, got {columns!r}")
    outside = taken[(taken < -width) | (taken >= width)]
    if outside.size:
        raise ValueError(f"columns: expected {-width} .. {width - 1}, got {outside[0]}")
    return taken.astype(np.int64)
