"""Let modules that map each step by itself be members of a stack of layers.

The layers know no module: whatever has what :class:`PointwiseModule` names will do, and
:mod:`rnncore.nn` has such modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rnncore.checks import Array
from rnncore.devices import HOST, Device, namespace
from rnncore.layers.base import Layer, Outcome
from rnncore.layers.pointwise_stream import PointwiseStream
from rnncore.layout import Extent, Layout
from rnncore.sequences import Inputs, Tape


@runtime_checkable
class PointwiseModule(Protocol):
    """What a stack asks of a module: forward and backward over one array, and its sizes."""

    dtype: str

    @property
    def device(self) -> str:
        """Where its parameters are."""

    @property
    def features(self) -> tuple[int | None, int | None] | None:
        """Sizes of the last axis in and out, None for any; None if steps depend on each other."""

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name."""

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients by name."""

    def __call__(self, x: Any) -> Array:
        """Return the result in inference."""

    def forward(self, x: Any) -> Array:
        """Return the result in training."""

    def backward(self, dy: Any) -> Any:
        """Return the gradient of ``x``."""

    def zero_grad(self) -> None:
        """Set every gradient to zero."""

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield the modules inside."""

    def _release(self) -> Any: ...

    def _restore(self, kept: Any) -> None: ...

    def _touched(self) -> list[Array]: ...

    def _location(self) -> Device: ...

    def _brought(self, device: Device) -> Any: ...

    def _settle(self, device: Device, brought: Any) -> None: ...

    def _config(self) -> dict[str, Any]: ...

    def _frozen_config(self, dtype: str) -> dict[str, Any]: ...

    def _frozen_values(self) -> Mapping[str, Array]: ...


_KINDS: dict[str, Any] = {}


def register(kind: Any) -> None:
    """Let :func:`rnncore.layers.from_config` build modules of a class by its name."""
    _KINDS[kind.__name__] = kind


def registered() -> Mapping[str, Any]:
    """Return the classes of modules that files may name."""
    return _KINDS


class PointwiseTape(Tape):
    """What one call of a module left for its gradient."""

    def __init__(self, extent: Extent, kept: Any, past: Array | None) -> None:
        super().__init__(extent)
        self.kept, self.past = kept, past

    @property
    def spent(self) -> bool:
        """Whether a gradient has used the tape up."""
        return self.kept is None

    @property
    def nbytes(self) -> int:
        """Memory of the mask; what the module kept are mostly others' arrays."""
        return 0 if self.past is None else self.past.nbytes


class Pointwise(Layer):
    """Run a module as a layer without a state.

    Parameters
    ----------
    module : PointwiseModule
        Maps the last axis.
    sizes : (int, int)
        Of the last axis in and out.
    batch_first : bool
        Layout of sequences.
    """

    def __init__(self, module: PointwiseModule, sizes: tuple[int, int], batch_first: bool) -> None:
        layout = Layout.of_one_type(module._location(), module.dtype, batch_first)
        super().__init__(dict(module.params), sizes, layout)
        self.module = module

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        self.module.zero_grad()

    def hold(self) -> AbstractContextManager[None]:
        """Promise nothing: a module packs no weights."""
        return nullcontext()

    @property
    def rng_state(self) -> list[Any]:
        """``rng_state`` of the module and all modules inside it that draw."""
        return [generator.rng_state for generator in _generators(self.module)]

    @rng_state.setter
    def rng_state(self, value: Any) -> None:
        generators = list(_generators(self.module))
        if not isinstance(value, tuple | list) or len(value) != len(generators):
            raise ValueError(f"rng_state: expected a list of {len(generators)}, got {value!r}")
        for generator, state in zip(generators, value, strict=True):
            generator.rng_state = state

    def __repr__(self) -> str:
        return repr(self.module)

    def _own_grads(self) -> dict[str, Array]:
        return dict(self.module.grads)

    def _touched(self) -> list[Array]:
        return self.module._touched()

    def _grads_so_far(self) -> dict[str, Array]:
        return self._own_grads()

    def _take_state(self, name: str, state: object, extent: Extent) -> None:
        if state is not None:
            raise ValueError(f"{name}: expected None, since {self!r} has no state")

    def _take_dstate(self, name: str, dstate: object, extent: Extent) -> None:
        self._take_state(name, dstate, extent)

    def _give_state(self, state: Any, batched: bool) -> None:
        return None

    def _run(
        self, inputs: Inputs, keep: bool, out: Array | None = None, recompute: bool = False
    ) -> Outcome:
        extent, device = inputs.extent, self._device
        if self.module._location() is not device:
            raise RuntimeError(
                f"layers: expected {self!r} on {device.name}, as the whole is, got "
                f"{self.module.device}; move the whole"
            )
        past = None
        if inputs.lengths is not None:
            ends = device.brought("lengths", inputs.lengths)
            past = (device.xp.arange(extent.steps)[:, None] >= ends)[:, :, None]
        x = self._layout.give(_without(inputs.x, past), extent)
        kept, pending = None, None
        if keep:
            with self._undisturbed():
                y = self.module.forward(x)
                kept, pending = self.module._release(), self.rng_state
        else:
            y = self.module(x)
        y = self._layout.take_gradient("y", y, extent, self.output_size)
        y = _without(y, past)
        if out is not None:
            out[...] = y
        elif device.xp.may_share_memory(y, inputs.x):
            y = y.copy()
        tape = PointwiseTape(extent, kept, past) if keep else None
        return Outcome(y if out is None else out, None, tape, pending)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Put back afterwards what the module holds of its own last call, and its generators."""
        held, before = self.module._release(), self.rng_state
        try:
            yield
        finally:
            self.module._restore(held)
            self.rng_state = before

    def _commit(self, pending: Any) -> None:
        if pending is not None:
            self.rng_state = pending

    def _run_backward(
        self, tape: PointwiseTape, dy: Array | None, dend: Any, need_dx: bool, retain: bool
    ) -> tuple[Array | None, None]:
        extent, kept = tape.extent, tape.kept
        if dy is None:
            shape = (extent.steps, extent.batch, self.output_size)
            dy = self._device.zeros(shape, np.dtype(self.dtype))
        if not retain:
            tape.kept = None
        given = self._layout.give(_without(dy, tape.past), extent)
        with self._undisturbed():
            self.module._restore(kept)
            dx = self.module.backward(given)
        if not need_dx:
            return None, None
        dx = self._layout.take_gradient("dx", dx, extent, self.input_size)
        return _without(dx, tape.past), None

    def _brought(self, device: Device) -> Any:
        return self.module._brought(device)

    def _settle(self, device: Device, brought: Any) -> None:
        self.module._settle(device, brought)
        super()._settle(device, (dict(self.module.params), None))

    def _config(self) -> dict[str, Any]:
        return self.module._config()

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        return self.module._frozen_config(dtype)

    def _frozen_values(self) -> Mapping[str, Array]:
        return self.module._frozen_values()

    def _hold_reduced(self, weights: str) -> None:
        """Leave a module's weights as they are."""

    def _memory(self) -> Any:
        return self.rng_state

    def _remember(self, memory: Any) -> None:
        self.rng_state = memory

    def _stream(self, batch: int) -> PointwiseStream:
        if self._device is not HOST:
            raise NotImplementedError(
                f"stream: not in this version of rnncore on a CUDA device, where {self!r} is"
            )
        return PointwiseStream(self, batch)


def as_layers(given: Sequence[Any]) -> tuple[Layer, ...]:
    """Return layers as they are and modules as layers, with the sizes that their neighbours have.

    Raises
    ------
    TypeError
        If one is neither.
    ValueError
        If nothing tells a size, or a module has another layout.
    """
    for i, one in enumerate(given):
        if isinstance(one, Layer):
            continue
        if not isinstance(one, PointwiseModule):
            raise TypeError(f"layers[{i}]: expected a layer, got {type(one).__name__}")
        if one.features is None:
            raise TypeError(
                f"layers[{i}]: expected a module that maps each step by itself, with features, "
                f"got {type(one).__name__}"
            )
    batch_first = next((one.batch_first for one in given if isinstance(one, Layer)), False)
    members: list[Layer] = []
    width = _first_size(given)
    for i, one in enumerate(given):
        member = one if isinstance(one, Layer) else _wrapped(i, one, width, batch_first)
        members.append(member)
        width = member.output_size
    return tuple(members)


def _wrapped(i: int, module: Any, width: int, batch_first: bool) -> Pointwise:
    """Return a module as a layer that takes what the one before puts out."""
    if getattr(module, "variational", False) and module.batch_first != batch_first:
        raise ValueError(
            f"layers[{i}]: expected batch_first={batch_first}, got {module.batch_first}"
        )
    inward, outward = module.features
    inward = inward or width
    return Pointwise(module, (inward, outward or inward), batch_first)


def _first_size(given: Sequence[Any]) -> int:
    """Return how many features go into the first member."""
    for one in given:
        size = one.input_size if isinstance(one, Layer) else one.features[0]
        if size is not None:
            return int(size)
    raise ValueError("layers: expected a member whose sizes are known, got none")


def _without(sequence: Array, past: Array | None) -> Array:
    """Return ``(T, N, F)`` with zeros where ``past`` is true."""
    if past is None:
        return sequence
    kept: Array = namespace(sequence).where(past, sequence.dtype.type(0), sequence)
    return kept


def _generators(module: Any) -> Iterator[Any]:
    if hasattr(module, "rng_state"):
        yield module
        return
    for _, part in module.parts():
        yield from _generators(part) if hasattr(part, "parts") else [part]
