"""Run recurrences in the C++ core. Thin: what happens is in ``csrc``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rnncore import _rnncore
from rnncore.backends.interface import CoreStream
from rnncore.cells import CellSpec
from rnncore.checks import Array

name = "cpu"

forward = _rnncore.forward
backward = _rnncore.backward
tape_in = _rnncore.tape_in


def pack(spec: CellSpec, params: Sequence[Array], num_threads: int, weights: str = "full") -> Any:
    """Pack weights into the panels of the chosen instruction set."""
    return _rnncore.Packed(core_spec(spec, weights), params, num_threads)


def stream(packed: Any, spec: CellSpec, batch: int) -> CoreStream:
    """Return a stream over packed weights."""
    from rnncore._stream import Stream

    core_stream: CoreStream = Stream(packed, batch)
    return core_stream


def tape_width(spec: CellSpec, masked: Sequence[bool], recompute: bool) -> int:
    """Return how many numbers a tape takes, at most, for each step and row."""
    return _rnncore.tape_width(core_spec(spec), masked, recompute)


def tape_memory(spec: CellSpec, steps: int, batch: int, width: int) -> Array:
    """Return memory for a tape, whose blocks are kept for the next one when it goes."""
    return _rnncore.tape_memory(core_spec(spec), steps, batch, width)


@lru_cache(maxsize=256)
def core_spec(spec: CellSpec, weights: str = "full") -> Any:
    """Return the core's specification of a recurrence."""
    return _rnncore.Spec(
        cell=spec.cell,
        input_size=spec.input_size,
        hidden_size=spec.hidden_size,
        num_layers=spec.num_layers,
        num_directions=spec.num_directions,
        proj_size=spec.proj_size,
        bias=spec.bias,
        nonlinearity=spec.nonlinearity,
        dtype=spec.dtype,
        peephole=spec.peephole,
        coupled=spec.coupled,
        reset_after=spec.reset_after,
        layer_norm=spec.layer_norm,
        zoneout=spec.zoneout,
        activations=spec.activations,
        clip=spec.clip,
        weights=weights,
    )
