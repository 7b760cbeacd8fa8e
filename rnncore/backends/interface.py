"""Say what a backend does: the whole border between layers and whatever computes for them.

Every array is time-major, lies on the backend's device and has unit stride along its last axis;
the first two axes may have any strides, so that ``batch_first`` and unbatched calls are views.
Sequences are of ``spec.numpy_dtype``, states of ``spec.state_dtype``, parameters and gradients of
``spec.param_dtype``. Backends allocate nothing that a caller sees: results are written into
arrays that the caller made.

On a GPU work is ordered by the stream that is current in CuPy, and nothing is read back within a
call; what goes wrong later is left with ``rnncore.cuda.errors``. TF32 is asked of
``rnncore.cuda.tf32_allowed`` at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.masks import Masks


class PackedWeights(Protocol):
    """Weights in the backend's own order, with references to the arrays they came from."""

    @property
    def nbytes(self) -> int:
        """Memory of the packed form."""


class CoreTape(Protocol):
    """What a backend keeps of a forward call for its backward call."""

    @property
    def nbytes(self) -> int:
        """Memory held."""

    @property
    def spent(self) -> bool:
        """Whether its contents are gone."""


class CoreStream(Protocol):
    """A recurrence that goes one step a call and keeps its state."""

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Return the output of one step."""

    def reset(self, rows: object = None) -> None:
        """Set the state of all or some rows to zero."""

    state: Any


class Backend(Protocol):
    """Run recurrences."""

    name: str

    def pack(
        self, spec: CellSpec, params: Sequence[Array], num_threads: int, weights: str = "full"
    ) -> Any:
        """Return `params`, which are in the order of ``spec.param_shapes()``, packed.

        `weights` "bfloat16" or "int8" holds float32 weights reduced, for inference.
        """

    def forward(
        self,
        packed: Any,
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
    ) -> Any:
        """Run a sequence.

        Parameters
        ----------
        packed : PackedWeights
            What :meth:`pack` returned.
        x : ndarray (T, N, D)
            Input.
        h0, c0 : ndarray (L*K, N, P) and (L*K, N, H), or None
            Initial state, C-contiguous; None for zeros.
        lengths : int64 ndarray (N,), or None
            Length of each row, 0 to T. A GPU's backend gets them in host memory where they came
            so; as an array on the GPU they may hold anything and are to be clamped.
        resets : bool ndarray (T, N), or None
            True at the first step of a segment; C-contiguous.
        y : ndarray (T, N, K*P)
            Output, fully written: zeros past a length.
        hn, cn : ndarray
            Final state, C-contiguous, fully written.
        masks : Masks, or None
            What is dropped and kept, dropout in ``spec.numpy_dtype``; None, or an entry that is
            None, leaves alone, but for zoneout, which then takes its expectation.
        keep : bool
            Whether to keep a tape.
        recompute : bool
            Whether the tape keeps states alone, and :meth:`backward` works gates out again. A
            backend may ignore it.
        num_threads : int
            How many threads to use at most.
        memory : ndarray (T, N, width), optional
            Where a :class:`TapeBackend` puts the tape. Other backends may ignore it.

        Returns
        -------
        CoreTape or None
            None without `keep`.
        """

    def backward(
        self,
        packed: Any,
        tape: Any,
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
        """Run a sequence's gradient.

        Takes the arrays of :meth:`forward` again, and the gradients of its results (None for
        zeros). Writes `dx` (unless None), `dh0` and `dc0`, and adds into `grads` at the very end;
        with `overwrite` it writes these too, whatever they held.
        The tape is spent afterwards unless `retain` is set. The C++ core alone takes a `report`
        besides, :data:`rnncore.layers.listening.Report`: it tells of each layer's gradients.
        """

    def stream(self, packed: Any, spec: CellSpec, batch: int) -> CoreStream:
        """Return a stream over packed weights of one direction, starting from zeros."""


class TapeBackend(Backend, Protocol):
    """Run recurrences whose tapes lie in memory that the caller owns."""

    def tape_width(self, spec: CellSpec, masked: Sequence[bool], recompute: bool) -> int:
        """Return how many numbers a tape takes, at most, for each step and row.

        `masked` says of each layer whether its input has a mask; empty for none.
        """

    def tape_memory(self, spec: CellSpec, steps: int, batch: int, width: int) -> Array:
        """Return uninitialised memory ``(T, N, width)`` for a tape."""

    def tape_in(
        self,
        packed: Any,
        memory: Array,
        steps: int,
        batch: int,
        lengths: Array | None,
        resets: Array | None,
        masks: Masks | None,
        recompute: bool,
    ) -> CoreTape:
        """Return the tape that :meth:`forward`, with these arguments, left in `memory`.

        `memory` may be a copy; it is C-contiguous and 64 divides its address.
        """
