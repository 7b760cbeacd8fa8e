"""Turn a caller's arrays into the time-major views that backends take, and results back.

``batch_first`` is a transposed view, an unbatched sequence a view with ``N = 1``. Nothing is copied
unless the last axis is not contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rnncore import checks
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import Device

State: TypeAlias = tuple[Array, ...]
"""``(h,)`` or ``(h, c)``, each ``(L*K, N, .)``: a state inside the house."""

Shapes: TypeAlias = tuple[tuple[int, ...], ...]


class Extent(NamedTuple):
    """What a call's arrays have in common."""

    steps: int
    batch: int
    batched: bool


@dataclass(slots=True)
class Layout:
    """How a layer's arrays lie: on which device, of which types, in which order."""

    device: Device
    dtype: np.dtype[Any]
    state_dtype: np.dtype[Any]
    batch_first: bool

    @classmethod
    def of(cls, spec: CellSpec, device: Device, batch_first: bool = False) -> Layout:
        """Return the layout of a recurrence's arrays."""
        return cls(device, spec.numpy_dtype, spec.state_dtype, batch_first)

    @classmethod
    def of_one_type(cls, device: Device, dtype: str, batch_first: bool) -> Layout:
        """Return the layout of arrays that are all of one type."""
        return cls(device, np.dtype(dtype), np.dtype(dtype), batch_first)

    def take_sequence(self, name: str, value: object, features: int) -> tuple[Array, Extent]:
        """Return a caller's sequence as ``(T, N, features)``."""
        given = self.device.array(name, value, self.dtype)
        shape = given.shape
        if not (2 <= len(shape) <= 3 and shape[-1] == features):
            checks.wrong_shape(name, self._expected(len(shape), features), shape)
        given = checks.unit_stride(given)
        if len(shape) == 2:
            return given[:, None], Extent(shape[0], 1, False)
        if self.batch_first:
            return given.transpose(1, 0, 2), Extent(shape[1], shape[0], True)
        return given, Extent(shape[0], shape[1], True)

    def take_gradient(self, name: str, value: object, extent: Extent, features: int) -> Array:
        """Return the gradient of a sequence of known size as ``(T, N, features)``."""
        given = self.device.array(name, value, self.dtype)
        shape = self.shape(extent, features)
        if given.shape != shape:
            checks.wrong_shape(name, str(shape), given.shape)
        return self._inward(checks.unit_stride(given), extent)

    def take_out(
        self, value: object, extent: Extent, features: int, inputs: dict[str, Array | None]
    ) -> Array:
        """Return a caller's result array as ``(T, N, features)``."""
        given = self.device.out_array(value, self.shape(extent, features), self.dtype, inputs)
        return self._inward(given, extent)

    def take_resets(self, value: object, extent: Extent) -> Array:
        """Return a copy of a caller's first steps of segments as C-contiguous ``(T, N)``."""
        given = self.device.resets(value, self.shape(extent, 1)[:-1])
        return self._inward(given[..., None], extent)[:, :, 0].copy(order="C")

    def empty(self, extent: Extent, features: int) -> Array:
        """Return a new ``(T, N, features)`` whose memory lies as the caller sees it."""
        if self.batch_first:
            shape = (extent.batch, extent.steps, features)
            return self.device.empty(shape, self.dtype).transpose(1, 0, 2)
        return self.device.empty((extent.steps, extent.batch, features), self.dtype)

    def give(self, value: Array, extent: Extent) -> Array:
        """Return a ``(T, N, F)`` as the caller sees it."""
        if not extent.batched:
            return value[:, 0]
        return value.transpose(1, 0, 2) if self.batch_first else value

    def shape(self, extent: Extent, features: int) -> tuple[int, ...]:
        """Return the shape of a sequence as the caller sees it."""
        steps, batch, batched = extent
        if not batched:
            return (steps, features)
        return (batch, steps, features) if self.batch_first else (steps, batch, features)

    def _inward(self, value: Array, extent: Extent) -> Array:
        if not extent.batched:
            return value[:, None]
        return value.transpose(1, 0, 2) if self.batch_first else value

    def _expected(self, ndim: int, features: int) -> str:
        batched = f"(N, T, {features})" if self.batch_first else f"(T, N, {features})"
        if ndim == 3:
            return batched
        return f"(T, {features})" if ndim == 2 else f"{batched} or (T, {features})"


def take_state(
    layout: Layout,
    name: str,
    value: object,
    seen: Shapes,
    shapes: Shapes,
    optional: bool = False,
) -> tuple[Array | None, ...]:
    """Return a caller's state, whose parts have the shapes `seen`, in parts of `shapes`.

    The parts are C-contiguous. With `optional`, as for gradients, each of a pair may be None.
    """
    if len(shapes) == 1:
        if isinstance(value, tuple | list):
            raise TypeError(f"{name}: expected one array, got a {type(value).__name__}")
        part = _take_part(layout, name, value, seen[0])
        return (part if shapes is seen else part.reshape(shapes[0]),)
    if not isinstance(value, tuple | list) or len(value) != 2:
        got = f"{len(value)} parts" if isinstance(value, tuple | list) else type(value).__name__
        raise ValueError(f"{name}: expected a pair (h, c), got {got}")
    parts: list[Array | None] = []
    for i, given in enumerate(value):
        if given is None and optional:
            parts.append(None)
            continue
        part = _take_part(layout, f"{name}[{i}]", given, seen[i])
        parts.append(part if shapes is seen else part.reshape(shapes[i]))
    return tuple(parts)


def take_sequence_state(
    layout: Layout,
    spec: CellSpec,
    name: str,
    value: object,
    extent: Extent,
    optional: bool = False,
) -> tuple[Array | None, ...]:
    """Return the state of a sequence, ``(L*K, N, .)`` or unbatched ``(L*K, .)``."""
    shapes = spec.state_shapes(extent.batch)
    seen = shapes if extent.batched else without_axis(shapes, 1)
    return take_state(layout, name, value, seen, shapes, optional)


def give_sequence_state(state: State, batched: bool) -> Any:
    """Return the state of a sequence as the caller sees it."""
    return give_state(state if batched else tuple(part[:, 0] for part in state))


def without_axis(shapes: Shapes, axis: int) -> Shapes:
    """Return shapes less one of their axes."""
    return tuple(shape[:axis] + shape[axis + 1 :] for shape in shapes)


def give_state(state: State) -> Any:
    """Return a state as the caller sees it: ``h``, or ``(h, c)``."""
    return state if len(state) == 2 else state[0]


def _take_part(layout: Layout, name: str, value: object, shape: tuple[int, ...]) -> Array:
    part = layout.device.array(name, value, layout.state_dtype)
    if part.shape != shape:
        checks.wrong_shape(name, str(shape), part.shape)
    return checks.contiguous(part)
