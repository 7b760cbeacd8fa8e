"""Draw what a training call drops and keeps, from torch's own generator.

So ``torch.manual_seed`` decides, and activation checkpointing draws the same again. What is drawn
follows :func:`rnncore.functional.draw_masks`; the numbers are others.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rates(NamedTuple):
    """Probabilities: of the input of layers, of h in ``weight_hh``, of keeping old h and c."""

    inputs: float
    variational: bool
    recurrent: float
    zoneout_h: float
    zoneout_c: float

    def draws(self, layers: int) -> bool:
        """Return whether anything is drawn at all."""
        drops = self.inputs > 0 and (layers > 1 or self.variational)
        return drops or self.recurrent > 0 or self.zoneout_h > 0 or self.zoneout_c > 0


class Sizes(NamedTuple):
    """``T``, ``N``, ``D``, ``K*P``, ``P``, ``H``, ``L`` and ``K`` of a call."""

    steps: int
    batch: int
    inputs: int
    features: int
    outputs: int
    units: int
    layers: int
    directions: int


def draw(rates: Rates, sizes: Sizes, like: Tensor) -> list[Tensor]:
    """Return L masks of inputs, then L*K of each of h, old h and old c; of one axis where absent.

    Parameters
    ----------
    rates : Rates
        How often.
    sizes : Sizes
        Of the call; all masks are time-major.
    like : Tensor
        Whose dtype and device dropout masks have; those of zoneout are bool.
    """
    rows = sizes.layers * sizes.directions
    steps, batch = sizes.steps, sizes.batch
    masks = []
    for layer in range(sizes.layers):
        width = sizes.features if layer else sizes.inputs
        if rates.inputs == 0 or (layer == 0 and not rates.variational):
            masks.append(_absent(like))
        elif rates.variational:
            masks.append(_kept((1, batch, width), rates.inputs, like).expand(steps, -1, -1))
        else:
            masks.append(_kept((steps, batch, width), rates.inputs, like))
    for _ in range(rows):
        drawn = _kept((batch, sizes.outputs), rates.recurrent, like) if rates.recurrent else None
        masks.append(_absent(like) if drawn is None else drawn)
    for rate, width in ((rates.zoneout_h, sizes.outputs), (rates.zoneout_c, sizes.units)):
        shape = (steps, batch, width)
        masks += [_chosen(shape, rate, like) if rate else _absent(like) for _ in range(rows)]
    return masks


def _kept(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    """Return inverted dropout's factors: 0 with probability `rate`, else 1 / (1 - rate)."""
    mask = like.new_empty(shape).bernoulli_(1.0 - rate)
    return mask.div_(1.0 - rate) if rate < 1.0 else mask


def _chosen(shape: tuple[int, ...], rate: float, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=torch.bool, device=like.device).bernoulli_(rate)


def _absent(like: Tensor) -> Tensor:
    return like.new_empty(0)
