"""Draw random masks that depend on nothing but a seed and a place.

Bits come from :mod:`rnncore.philox`: a mask is the same for any number of threads and on any
device, and no mask depends on how many others were drawn before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import HOST, Device
from rnncore.philox import Place, draw_bits

__all__ = ["Masks", "Place", "draw_bits", "draw_keep_mask", "draw_masks"]


class Masks(NamedTuple):
    """What one training call drops and keeps; None for what is left alone.

    Entries go by layer, or by layer and direction, forward first. All are indexed by the caller's
    time, in the reverse direction too.
    """

    inputs: Sequence[Array | None]
    """L entries ``(T, N, F)`` that multiply the input of a layer."""
    recurrent: Sequence[Array | None]
    """L*K entries ``(N, P)`` that multiply ``h[t-1]`` where it enters ``weight_hh``."""
    zoneout_h: Sequence[Array | None]
    """L*K entries of bool ``(T, N, P)``, true where the old h is kept."""
    zoneout_c: Sequence[Array | None]
    """L*K entries of bool ``(T, N, H)``, true where the old c is kept."""


def draw_keep_mask(
    shape: tuple[int, ...], rate: float, dtype: str, seed: int, place: tuple[int, ...]
) -> Array:
    """Draw one inverted dropout mask.

    Parameters
    ----------
    shape : tuple of int
        Shape of the mask.
    rate : float
        Probability of a zero, ``0 <= rate < 1``.
    dtype : str
        Type of the mask.
    seed : int
        Any non-negative integer.
    place : Place, or (call, layer, direction)
        What tells this mask from the others of its seed.

    Returns
    -------
    ndarray of `dtype`
        0 with probability `rate`, else ``1 / (1 - rate)``. Entry ``j`` is kept when the ``j``-th
        32-bit word of the stream (low halves first) is at least ``rate * 2**32``.
    """
    return HOST.keep_mask(draw_bits(shape, rate, seed, place), rate, np.dtype(dtype))


def draw_masks(
    spec: CellSpec,
    steps: int,
    batch: int,
    *,
    dropout: float = 0.0,
    variational: bool = False,
    recurrent_dropout: float = 0.0,
    seed: int = 0,
    call: int = 0,
    device: Device = HOST,
) -> Masks | None:
    """Draw the masks of one training call.

    Parameters
    ----------
    spec : CellSpec
        The layer's specification, which says how often zoneout keeps a unit.
    steps, batch : int
        ``T`` and ``N`` of the call.
    dropout : float, optional
        Probability that an output of a layer is dropped before it enters the next one.
    variational : bool, optional
        One mask a sequence instead of one a step, and one for the first layer's input too.
    recurrent_dropout : float, optional
        Probability that a unit of ``h[t-1]`` is dropped, all sequence long, where it enters
        ``weight_hh``.
    seed, call : int, optional
        The two numbers of ``layer.rng_state``.
    device : Device, optional
        Where the masks lie; their values are the same anywhere.

    Returns
    -------
    Masks, or None
        Dropout masks are of ``spec.dtype``; a variational one is a read-only view with stride 0
        over time. None stands for a call that drops and keeps nothing.

    References
    ----------
    .. [1] Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
       networks", 2016.
    .. [2] Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations",
       2016.

    Examples
    --------
    >>> spec = CellSpec("lstm", 3, 4, num_layers=2)
    >>> masks = draw_masks(spec, 5, 2, dropout=0.5, recurrent_dropout=0.2, seed=1)
    >>> masks.inputs[0] is None, masks.inputs[1].shape, masks.recurrent[1].shape
    (True, (5, 2, 4), (2, 4))
    """
    if spec.num_layers == 1 and not variational:
        dropout = 0.0
    if not (dropout or recurrent_dropout or any(spec.zoneout)):
        return None
    draw = _Draw(spec, steps, batch, seed, call, device)
    p_h, p_c = spec.zoneout
    return Masks(
        draw.inputs(dropout, variational),
        draw.recurrent(recurrent_dropout),
        draw.zoneout(p_h, spec.output_size, Masks._fields.index("zoneout_h")),
        draw.zoneout(p_c, spec.hidden_size, Masks._fields.index("zoneout_c")),
    )


class _Draw(NamedTuple):
    """The masks of one call, kind by kind."""

    spec: CellSpec
    steps: int
    batch: int
    seed: int
    call: int
    device: Device

    def inputs(self, rate: float, variational: bool) -> list[Array | None]:
        first = 0 if variational else 1
        masks: list[Array | None] = [None] * self.spec.num_layers
        for layer in range(first if rate else self.spec.num_layers, self.spec.num_layers):
            xp, parts = self.device.xp, self._input_parts(layer, rate, variational)
            mask = xp.concatenate(parts, axis=2)
            masks[layer] = xp.broadcast_to(mask, (self.steps, *mask.shape[1:]))
        return masks

    def _input_parts(self, layer: int, rate: float, variational: bool) -> list[Array]:
        spec, rows = self.spec, 1 if variational else self.steps
        widths = [spec.input_size] if layer == 0 else [spec.output_size] * spec.num_directions
        return [
            self._keep((rows, self.batch, width), rate, Place(self.call, layer, direction))
            for direction, width in enumerate(widths)
        ]

    def recurrent(self, rate: float) -> list[Array | None]:
        if not rate:
            return [None] * self.spec.state_rows
        shape, kind = (self.batch, self.spec.output_size), Masks._fields.index("recurrent")
        return [self._keep(shape, rate, place) for place in self._places(kind)]

    def zoneout(self, rate: float, width: int, kind: int) -> list[Array | None]:
        if not rate:
            return [None] * self.spec.state_rows
        shape = (self.steps, self.batch, width)
        draw = self.device.draw_bits
        return [draw(shape, rate, self.seed, place) for place in self._places(kind)]

    def _keep(self, shape: tuple[int, ...], rate: float, place: Place) -> Array:
        dropped = self.device.draw_bits(shape, rate, self.seed, place)
        return self.device.keep_mask(dropped, rate, self.spec.numpy_dtype)

    def _places(self, kind: int) -> list[Place]:
        spec = self.spec
        return [
            Place(self.call, layer, direction, kind)
            for layer in range(spec.num_layers)
            for direction in range(spec.num_directions)
        ]
