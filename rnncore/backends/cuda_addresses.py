"""Run recurrences on a CUDA device by addresses: memory and stream are the caller's own.

What ``backends.cuda`` does for CuPy's arrays, for whoever has arrays of another kind. The caller
allocates what it is told to, makes the device current that its memory is on, and keeps all of that
memory until it is asked for what comes after on the same stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rnncore import _rnncore
from rnncore.backends.cpu import core_spec
from rnncore.cells import CellSpec
from rnncore.cuda import driver

ALIGNMENT = 16
"""What addresses of tapes and workspaces are multiples of: see csrc/core/cuda_rows.h."""

Strided = tuple[int, int, int]
"""A sequence's address, and its time and row strides in values; zeros where there is none."""


def tape_width(spec: CellSpec, masked: Sequence[bool], ragged: bool) -> int:
    """Return how many numbers of x's type a tape takes, at most, for each step and row.

    Parameters
    ----------
    spec : CellSpec
        The recurrence.
    masked : sequence of bool
        Which layers' inputs have a mask; none if empty.
    ragged : bool
        Whether the call has lengths.

    Returns
    -------
    int
        For every ``T`` and ``N`` from 1, and an x whose rows lie side by side, time by time or
        sequence by sequence.

    Examples
    --------
    >>> from rnncore.cells import CellSpec
    >>> tape_width(CellSpec("lstm", 16, 32), [], False)
    160
    """
    return _rnncore.cuda_tape_width(_native(spec), spec.dtype, masked, ragged)


@dataclass
class Weights:
    """A stack's weights by the addresses of its parameters, and the kernels that read them.

    Attributes
    ----------
    stack, program
        The core's own. The parameters' memory and that of the packed form live as long as these are
        in use.
    """

    stack: Any
    program: Any

    @property
    def nbytes(self) -> int:
        """Memory of the packed form."""
        return int(self.stack.nbytes)

    def pack(self, stream: int, block: int) -> None:
        """Bring the weights into the order of slots, in `nbytes` of memory at `block`."""
        self.stack.pack(self.program, stream, block)


def weights_of(spec: CellSpec, params: Sequence[int]) -> Weights:
    """Return weights that are yet to be packed.

    Parameters
    ----------
    spec : CellSpec
        The recurrence.
    params : sequence of int
        Addresses in the order of ``spec.param_shapes()``: float64, or float32 for all other dtypes.

    Raises
    ------
    rnncore.DeviceError
        If kernels do not compile, or there is nothing that could compile them.
    """
    native = _native(spec)
    stack = _rnncore.CudaStack(native, spec.dtype, list(params))
    width = _rnncore.cuda_width(native, spec.dtype)
    program = driver.current().program(native.cell_name, spec.dtype, native.has_options, width)
    return Weights(stack, program)


def sequence_of(
    weights: Weights,
    extent: tuple[int, int],
    known_lengths: list[int] | None,
    lengths: int,
    resets: int,
    x: Strided,
    states: tuple[int, int],
    masks: tuple[list[Any], ...] | None,
) -> Any:
    """Return one call over a sequence.

    Parameters
    ----------
    weights : Weights
        Packed by the time it runs.
    extent : pair of int
        ``T`` and ``N``.
    known_lengths : list of int or None
        Lengths from 0 to ``T`` that the host knows: they sort the rows.
    lengths, resets : int
        Addresses of int32 (N,) and bool (T, N); 0 where absent. `lengths` only if not known.
    x : Strided
        Input.
    states : pair of int
        Addresses of h0 and c0, 0 for zeros.
    masks : tuple or None
        ``Strided`` of layers' inputs, then addresses of the other fields of ``Masks``.

    Returns
    -------
    rnncore._rnncore.CudaSequence
        With ``forward`` and ``backward``; before the latter alone, ``resume`` says where y is.
    """
    return _rnncore.CudaSequence(
        weights.stack, *extent, known_lengths, lengths, resets, x, *states, masks
    )


@lru_cache(maxsize=256)
def _native(spec: CellSpec) -> Any:
    """Return the core's specification, whose dtype is that of parameters and states."""
    return core_spec(replace(spec, dtype="float64" if spec.dtype == "float64" else "float32"))
