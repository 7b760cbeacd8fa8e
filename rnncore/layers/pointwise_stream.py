"""Step through a sequence with a module that maps each step by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rnncore import checks
from rnncore.checks import Array

if TYPE_CHECKING:
    from rnncore.layers.pointwise import Pointwise


class PointwiseStream:
    """Map one step a call. There is no state.

    Parameters
    ----------
    layer : Layer
        What maps: a :class:`~rnncore.layers.pointwise.Pointwise`.
    batch : int
        Number of rows.
    """

    state = None

    def __init__(self, layer: Pointwise, batch: int) -> None:
        self._layer, self._batch = layer, batch

    def reset(self, rows: object = None) -> None:
        """Do nothing."""

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Return the result ``(P,)`` or ``(batch, P)`` of one step ``(D,)`` or ``(batch, D)``."""
        layer, dtype = self._layer, np.dtype(self._layer.dtype)
        taken = checks.array("x_t", x_t, dtype)
        shapes: list[tuple[int, ...]] = [(self._batch, layer.input_size)]
        if self._batch == 1:
            shapes.append((layer.input_size,))
        if taken.shape not in shapes:
            checks.wrong_shape("x_t", " or ".join(map(str, shapes)), taken.shape)
        y = layer.module(taken)
        if out is None:
            return y.copy() if np.may_share_memory(y, taken) else y
        place = checks.out_array(out, y.shape, dtype, {"x_t": taken})
        place[...] = y
        return out
