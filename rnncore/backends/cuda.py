"""Run recurrences on a CUDA device: CuPy's arrays, kernels and streams, the core's launches.

Thin: what happens is in ``csrc/core/cuda_*`` and ``csrc/cuda``. Arrays go over by address.
Everything is asked for on the caller's current stream and nothing is read back; memory of a call
comes from CuPy's pool, which orders its use by that stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnncore import _rnncore
from rnncore.backends.cuda_addresses import weights_of
from rnncore.backends.interface import CoreStream
from rnncore.cells import CellSpec
from rnncore.cuda import driver
from rnncore.cuda.precision import tf32_allowed
from rnncore.masks import Masks

name = "cuda"
LENGTH_BYTES = 4
"""Of one length on the device."""


@dataclass
class Packed:
    """Weights in the order of slots, and the kernels that read them."""

    spec: CellSpec
    stack: Any
    block: Any
    program: Any
    params: Sequence[Any]

    @property
    def nbytes(self) -> int:
        """Memory of the packed form."""
        return int(self.stack.nbytes)


@dataclass
class Tape:
    """What a forward call left on the device, and the arrays that it refers to."""

    sequence: Any
    block: Any
    held: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return 0 if self.block is None else int(self.block.nbytes)

    @property
    def spent(self) -> bool:
        """Whether its contents are gone."""
        return self.block is None


def pack(spec: CellSpec, params: Sequence[Any], num_threads: int, weights: str = "full") -> Packed:
    """Bring weights into the order of slots and the type that products multiply.

    Raises
    ------
    NotImplementedError
        If `weights` are to be held reduced.
    """
    if weights != "full":
        raise NotImplementedError(
            f"freeze: expected dtype None or {spec.dtype!r} on a CUDA device, got {weights!r}"
        )
    device = driver.current()
    made = weights_of(spec, [device.address(param) for param in params])
    block = device.empty(made.nbytes)
    made.pack(device.stream(), device.address(block))
    return Packed(spec, made.stack, block, made.program, list(params))


def forward(
    packed: Packed,
    x: Any,
    h0: Any,
    c0: Any,
    lengths: Any,
    resets: Any,
    y: Any,
    hn: Any,
    cn: Any,
    masks: Masks | None,
    keep: bool,
    recompute: bool,
    num_threads: int,
) -> Tape | None:
    """Run a sequence; the tape holds everything whether to `recompute` or not.

    `lengths` in host memory sort the rows, so that those that have ended cost nothing. Of those on
    the device a kernel takes a clamped copy, and leaves word if that changed any.
    """
    device = driver.current()
    at = device.address
    steps, batch, _ = x.shape
    known, given = None, None
    if isinstance(lengths, np.ndarray):
        known = lengths.tolist()
    elif lengths is not None:
        given = device.empty(LENGTH_BYTES * batch)
        packed.program.take_lengths(
            device.stream(), steps, batch, at(lengths), at(given), device.beyond_lengths()
        )
    sequence = _rnncore.CudaSequence(
        packed.stack, steps, batch, known, at(given), at(resets), _strided(device, x), at(h0),
        at(c0), _mask_lists(device, masks),
    )  # fmt: skip
    if lengths is not None:
        y[...] = 0
    block = device.empty(sequence.tape_bytes(keep))
    workspace = device.empty(sequence.forward_bytes())
    sequence.forward(
        packed.program, device.stream(), tf32_allowed(), at(block), at(workspace), keep,
        _strided(device, y), at(hn), at(cn),
    )  # fmt: skip
    held = (packed, x, h0, c0, given, resets, y, masks)
    return Tape(sequence, block, held) if keep else None


def backward(
    packed: Packed,
    tape: Tape,
    x: Any,
    y: Any,
    h0: Any,
    c0: Any,
    masks: Masks | None,
    dy: Any,
    dhn: Any,
    dcn: Any,
    dx: Any,
    dh0: Any,
    dc0: Any,
    grads: Sequence[Any],
    retain: bool,
    num_threads: int,
) -> None:
    """Run a sequence's gradient, with the weights that forward packed."""
    device = driver.current()
    at = device.address
    workspace = device.empty(tape.sequence.backward_bytes(retain))
    tape.sequence.backward(
        packed.program, device.stream(), tf32_allowed(), at(tape.block), at(workspace),
        _strided(device, dy), at(dhn), at(dcn), _strided(device, dx), at(dh0), at(dc0),
        [at(grad) for grad in grads], retain,
    )  # fmt: skip
    if not retain:
        tape.block, tape.held = None, ()


def stream(packed: Packed, spec: CellSpec, batch: int) -> CoreStream:
    """Refuse: a step a call would be all launches.

    Raises
    ------
    NotImplementedError
        Always.
    """
    raise NotImplementedError(
        "stream: expected a layer on 'cpu', got one on a CUDA device; call the frozen engine with "
        "T=1 and the state instead"
    )


def _strided(device: driver.Driver, array: Any) -> tuple[int, int, int]:
    """Return where a sequence is, and its time and row strides in values."""
    if array is None:
        return 0, 0, 0
    size = array.dtype.itemsize
    return device.address(array), array.strides[0] // size, array.strides[1] // size


def _mask_lists(device: driver.Driver, masks: Masks | None) -> tuple[list[Any], ...] | None:
    if masks is None:
        return None
    parts = [[device.address(mask) for mask in part] for part in masks[1:]]
    return [_strided(device, mask) for mask in masks.inputs], *parts
