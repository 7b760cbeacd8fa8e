"""Run recurrences in the float64 reference. Slow, and the oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncore import reference
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.masks import Masks

name = "reference"


@dataclass
class Packed:
    """Weights by name: the reference works on the arrays themselves."""

    spec: CellSpec
    params: Mapping[str, Array]
    weights: str = "full"
    nbytes: int = 0


@dataclass
class Tape:
    """The reference's tape, as taken from it."""

    contents: Any
    nbytes: int = 0
    spent: bool = False


class Stream:
    """A recurrence that goes one step a call and keeps its state."""

    def __init__(self, packed: Packed, batch: int) -> None:
        self._packed = packed
        self._shapes = packed.spec.state_shapes(batch)
        self._state = [np.zeros(shape) for shape in self._shapes]

    @property
    def state(self) -> Any:
        """A copy of ``h``, or of ``(h, c)``."""
        parts = tuple(part.astype(self._packed.spec.dtype) for part in self._state)
        return parts if len(parts) == 2 else parts[0]

    @state.setter
    def state(self, value: Any) -> None:
        parts = value if isinstance(value, tuple | list) else (value,)
        self._state = [np.array(part, np.float64) for part in parts]

    def reset(self, rows: object = None) -> None:
        """Set the state of all or some rows to zero."""
        for part in self._state:
            part[:, slice(None) if rows is None else rows] = 0.0  # type: ignore[index]

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Return the output of one step."""
        x = x_t[None, None] if x_t.ndim == 1 else x_t[None]
        h0, c0 = (*self._state, None)[:2]
        packed = self._packed
        y, *state, _ = reference.forward(
            packed.spec, packed.params, x, h0, c0, weights=packed.weights
        )
        self._state = [part for part in state if part is not None]
        shape = (*x_t.shape[:-1], y.shape[-1])
        result = np.empty(shape, x_t.dtype) if out is None else out
        result[...] = y.reshape(shape)
        return result


def pack(
    spec: CellSpec, params: Sequence[Array], num_threads: int, weights: str = "full"
) -> Packed:
    """Name the weights."""
    return Packed(spec, dict(zip(spec.param_shapes(), params, strict=True)), weights)


def stream(packed: Packed, spec: CellSpec, batch: int) -> Stream:
    """Return a stream over the weights."""
    return Stream(packed, batch)


def forward(
    packed: Packed,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    lengths: Array | None,
    resets: Array | None,
    y: Array,
    hn: Array,
    cn: Array | None,
    masks: Masks | None,
    keep: bool,
    recompute: bool,
    num_threads: int,
    memory: Array | None = None,
) -> Tape | None:
    """Run a sequence step by step; the tape holds everything whether to `recompute` or not."""
    results = reference.forward(
        packed.spec, packed.params, x, h0, c0, lengths, masks, packed.weights, resets
    )
    y[...], hn[...] = results[0], results[1]
    if cn is not None:
        cn[...] = results[2]
    return Tape(results[3]) if keep else None


def backward(
    packed: Packed,
    tape: Tape,
    x: Array,
    y: Array,
    h0: Array | None,
    c0: Array | None,
    masks: Masks | None,
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    dx: Array | None,
    dh0: Array,
    dc0: Array | None,
    grads: Sequence[Array],
    retain: bool,
    num_threads: int,
    overwrite: bool = False,
) -> None:
    """Run a sequence's gradient step by step."""
    results = reference.backward(packed.spec, packed.params, tape.contents, dy, dhn, dcn)
    if not retain:
        tape.contents, tape.spent = None, True
    if dx is not None:
        dx[...] = results[0]
    dh0[...] = results[1]
    if dc0 is not None:
        dc0[...] = results[2]
    for grad, (_, value) in zip(grads, _in_order(packed.spec, results[3]), strict=True):
        grad[...] = value if overwrite else grad + value


def _in_order(spec: CellSpec, grads: Mapping[str, Array]) -> list[tuple[str, Array]]:
    return [(name, grads[name]) for name in spec.param_shapes()]
