"""Carry one call over a sequence through a backend, and hold its tape until the call back.

Arrays here are checked already: on one device, time-major, with unit stride along the last axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rnncore import backends
from rnncore.backends.interface import Backend
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.layout import Extent, State
from rnncore.masks import Masks
from rnncore.threads import get_num_threads


class Packed(NamedTuple):
    """Weights packed by the backend of a device."""

    device: Device
    backend: Backend
    spec: CellSpec
    params: list[Array]
    weights: Any

    @classmethod
    def of(
        cls, device: Device, spec: CellSpec, params: list[Array], weights: str = "full"
    ) -> Packed:
        """Pack with the backend in use on a device; `weights` as it takes them."""
        backend = backends.current(device.backend)
        packed = backend.pack(spec, params, get_num_threads(), weights)
        return cls(device, backend, spec, params, packed)


class Inputs(NamedTuple):
    """The checked arguments of a call: time-major, the state in the layer's own form."""

    x: Array
    state: Any
    lengths: Array | None
    resets: Array | None
    extent: Extent


class Record(NamedTuple):
    """What a call's gradient needs."""

    packed: Packed
    core: Any
    inputs: Inputs
    masks: Masks | None
    y: Array


class Tape:
    """What one training call leaves for its gradient.

    A tape belongs to the layer that recorded it and is spent by ``backward`` unless that is told
    to retain it.
    """

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self.owner: object = None

    @property
    def spent(self) -> bool:
        """Whether a gradient has used the tape up."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Memory held beyond the arrays that the caller has."""
        raise NotImplementedError

    def __repr__(self) -> str:
        steps, batch, _ = self.extent
        held = "spent" if self.spent else f"{self.nbytes} bytes"
        return f"<{type(self).__name__} of T={steps} N={batch}, {held}>"


class SequenceTape(Tape):
    """The tape of one recurrence: its core's tape and the arrays of the call."""

    def __init__(self, record: Record) -> None:
        super().__init__(record.inputs.extent)
        self._record: Record | None = record

    @property
    def spent(self) -> bool:
        """Whether a gradient has used the tape up."""
        return self._record is None

    @property
    def nbytes(self) -> int:
        """Memory that the backend holds for this tape."""
        return 0 if self._record is None else int(self._record.core.nbytes)

    @property
    def packed(self) -> Packed:
        """The weights of the call; a tape that is not spent has them."""
        assert self._record is not None, "callers check that a tape is not spent"
        return self._record.packed

    @packed.setter
    def packed(self, packed: Packed) -> None:
        assert self._record is not None, "callers check that a tape is not spent"
        self._record = self._record._replace(packed=packed)

    @contextmanager
    def record(self) -> Iterator[Record]:
        """Lend what is held, and let go of it once the backend has used it up."""
        record = self._record
        if record is None:  # another thread came between the caller's check and here
            raise RuntimeError("tape: it was consumed by an earlier backward")
        try:
            yield record
        finally:
            if record.core.spent:
                self._record = None


class PackedOnce:
    """Pack a layer's weights at every call, or once for as long as they are held."""

    def __init__(self, device: Device, spec: CellSpec, params: Iterable[Array]) -> None:
        self.spec = spec
        self.weights = "full"
        self._device = device
        self._params = list(params)
        self._holds = 0
        self._held: Packed | None = None

    def get(self) -> Packed:
        """Return the weights packed."""
        held = self._held
        if held is not None and held.backend is backends.running.get(self._device.backend):
            return held
        packed = Packed.of(self._device, self.spec, self._params, self.weights)
        if self._holds:
            self._held = packed
        return packed

    def move(self, device: Device, params: Iterable[Array]) -> None:
        """Pack other arrays, those of another device, from now on."""
        self._device, self._params, self._held = device, list(params), None

    def drop(self) -> None:
        """Forget held weights: the parameters have changed."""
        self._held = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the first packing made inside."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._holds == 0:
                self._held = None


def forward(
    packed: Packed,
    inputs: Inputs,
    masks: Masks | None,
    y: Array,
    keep: bool,
    recompute: bool = False,
) -> tuple[State, SequenceTape | None]:
    """Run a sequence: write `y`, and return the final state and, with `keep`, a tape."""
    device, backend, spec, _, weights = packed
    x, state, lengths, resets, extent = inputs
    empty, dtype = device.empty, spec.state_dtype
    final = tuple([empty(shape, dtype) for shape in spec.state_shapes(extent.batch)])
    hn, cn = _pair(final)
    h0, c0 = _pair(state)
    core = backend.forward(
        weights, x, h0, c0, lengths, resets, y, hn, cn, masks, keep, recompute, get_num_threads()
    )
    return final, SequenceTape(Record(packed, core, inputs, masks, y)) if keep else None


def backward(
    tape: SequenceTape,
    dy: Array | None,
    dstate: tuple[Array | None, ...] | None,
    dx: Array | None,
    grads: Sequence[Array],
    retain: bool,
    report: Any = None,
) -> State:
    """Run a sequence's gradient: write `dx`, add into `grads`, return the state's gradient.

    A `report`, which the C++ core alone takes, has it tell of each layer's gradients.
    """
    dhn, dcn = _pair(dstate)
    with tape.record() as (packed, core, inputs, masks, y):
        device, backend, spec, _, weights = packed
        shapes = spec.state_shapes(tape.extent.batch)
        dstart = tuple([device.empty(shape, spec.state_dtype) for shape in shapes])
        dh0, dc0 = _pair(dstart)
        h0, c0 = _pair(inputs.state)
        backend.backward(
            weights, core, inputs.x, y, h0, c0, masks, dy, dhn, dcn, dx, dh0, dc0, grads, retain,
            get_num_threads(), **({} if report is None else {"report": report}),
        )  # fmt: skip
    return dstart


def _pair(state: tuple[Array | None, ...] | None) -> tuple[Any, Any]:
    """Return ``h`` and ``c`` of a state, None for what it lacks."""
    if state is None:
        return None, None
    return state if len(state) == 2 else (state[0], None)
