"""One direction of one layer: the cell's own step, and around it what is alike for all cells.

That is a state which a reset replaces by zero, a dropped h that enters the product, and old states
that zoneout keeps::

    h, c     = 0 in rows that start a segment
    h', c'   = the cell's step from x, h, c, with m * h where h enters weight_hh
    h'', c'' = the old state where zoneout keeps it, else h', c'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore.cells import DIRECTION_SUFFIXES, CellSpec
from rnncore.masks import Masks
from rnncore.reference.activations import activations_of
from rnncore.reference.products import Saved, Weights
from rnncore.reference.reduced import reduced
from rnncore.reference.steps import CELLS, Array, Equations, Old, gates_in_use

Indices = NDArray[np.intp]
Booleans = NDArray[np.bool_]

BY_GATE = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "norm_ih", "norm_hh")
WHOLE = ("weight_hr", "peephole", "norm_c", "norm_c_bias")


class Step(NamedTuple):
    """One step of some rows: the times that they read, and which of them start a segment."""

    rows: Indices
    times: Indices
    starts: Booleans


@dataclass
class Run:
    """What one direction of one layer runs with, and what every step of it kept.

    `rows` are those of the gates in use, in parameters that go by gate; `end` is what ends the
    parameters' names. `keep_h` and `keep_c` are zoneout's masks, or its rates.
    """

    equations: Equations
    rows: Indices
    end: str
    dropped: Array | None
    keep_h: Booleans | float
    keep_c: Booleans | float
    taken: list[tuple[Step, Saved]] = field(default_factory=list)

    def forward(self, step: Step, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Return the new states of the step's rows, and keep what the gradient needs."""
        rows, times, starts = step
        h, c = np.where(starts[:, None], 0.0, h), np.where(starts[:, None], 0.0, c)
        h_in = h if self.dropped is None else h * self.dropped[rows]
        cell = CELLS[self.equations.spec.cell]
        h_new, c_new, saved = cell.forward(self.equations, Old(x, h, h_in, c))
        self.taken.append((step, saved))
        return (
            mixed(h, h_new, at_times(self.keep_h, times, rows)),
            mixed(c, c_new, at_times(self.keep_c, times, rows)),
        )

    def backward(
        self, step: Step, saved: Saved, dh: Array, dc: Array, grads: Weights
    ) -> tuple[Array, Array, Array]:
        """Return the gradients of x and of the old states; add the weights' into `grads`."""
        rows, times, starts = step
        kept_dh, dh = parted(dh, at_times(self.keep_h, times, rows))
        kept_dc, dc = parted(dc, at_times(self.keep_c, times, rows))
        cell = CELLS[self.equations.spec.cell]
        d_old, own = cell.backward(self.equations, saved, dh, dc)
        for name, value in own.items():
            grads[name + self.end][self.rows if name in BY_GATE else slice(None)] += value
        dh_in = d_old.h_in if self.dropped is None else d_old.h_in * self.dropped[rows]
        dh, dc = d_old.h + dh_in + kept_dh, d_old.c + kept_dc
        starts = starts[:, None]
        return d_old.x, np.where(starts, 0.0, dh), np.where(starts, 0.0, dc)


def run_of(
    spec: CellSpec,
    params: Mapping[str, Array],
    masks: Masks,
    weights: str,
    layer: int,
    direction: int,
) -> Run:
    """Return the run of one direction of one layer before its first step."""
    rows, end = rows_in_use(spec), suffix(layer, direction)
    own = {name: params[name + end][rows] for name in BY_GATE if name + end in params}
    own |= {name: params[name + end] for name in WHOLE if name + end in params}
    held = {name: reduced(weights, value) for name, value in own.items()}
    at = layer * spec.num_directions + direction
    dropped, keep_h, keep_c = masks.recurrent[at], masks.zoneout_h[at], masks.zoneout_c[at]
    p_h, p_c = spec.zoneout
    return Run(
        Equations(spec, held, activations_of(spec)),
        rows,
        end,
        None if dropped is None else np.asarray(dropped, np.float64),
        float(p_h) if keep_h is None else keep_h,
        float(p_c) if keep_c is None else keep_c,
    )


def suffix(layer: int, direction: int) -> str:
    """Return what ends the parameters' names of one direction of one layer."""
    return f"_l{layer}{DIRECTION_SUFFIXES[direction]}"


def rows_in_use(spec: CellSpec) -> Indices:
    """Return the rows, of parameters that go by gate, whose gates the equations read."""
    H = spec.hidden_size
    blocks = [spec.gates.index(gate) * H + np.arange(H) for gate in gates_in_use(spec)]
    return np.concatenate(blocks)


def mixed(old: Array, new: Array, keep: Booleans | float) -> Array:
    """Return the old state where zoneout keeps it; a number is the share of it kept everywhere."""
    if isinstance(keep, float):
        return keep * old + (1.0 - keep) * new if keep else new
    return np.where(keep, old, new)


def parted(d: Array, keep: Booleans | float) -> tuple[Array, Array]:
    """Return the gradients of the old and of the new state from that of `mixed`."""
    if isinstance(keep, float):
        return (keep * d, (1.0 - keep) * d) if keep else (np.zeros_like(d), d)
    return np.where(keep, d, 0.0), np.where(keep, 0.0, d)


def at_times(keep: Booleans | float, times: Indices, rows: Indices) -> Booleans | float:
    """Return what zoneout keeps of some rows, each at its own time."""
    return keep if isinstance(keep, float) else keep[times, rows]
