"""What modules that look across the steps of sequences share: layouts, lengths and masks."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from rnncore.checks import Array, flag
from rnncore.devices import Device, namespace
from rnncore.layout import Extent, Layout
from rnncore.nn.arrays import Mask
from rnncore.nn.module import Module


class SequenceModule(Module):
    """A module that looks across the steps of sequences, and so has a layout of them.

    Parameters
    ----------
    batch_first : bool
        Whether sequences are ``(N, T, F)``.
    dtype : {"float32", "float64"}
        Type of parameters and arrays.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    """

    def __init__(self, batch_first: bool, dtype: str, device: str) -> None:
        super().__init__(dtype, device)
        self.batch_first = flag("batch_first", batch_first)
        self._layout = Layout.of_one_type(self._device, self.dtype, self.batch_first)

    def _settle_own(self, device: Device, own: tuple[dict[str, Array], ...]) -> None:
        super()._settle_own(device, own)
        self._layout = replace(self._layout, device=device)


class Taken(NamedTuple):
    """A caller's sequences by row: ``values (N, T, F)`` and how they came."""

    values: Array
    extent: Extent

    @property
    def rows(self) -> int:
        """``N``."""
        return self.extent.batch


def take(layout: Layout, name: str, value: object, features: int) -> Taken:
    """Return sequences of ``features`` in a layout as ``(N, T, features)``."""
    taken, extent = layout.take_sequence(name, value, features)
    return Taken(taken.swapaxes(0, 1), extent)


def take_gradient(layout: Layout, name: str, value: object, extent: Extent, features: int) -> Array:
    """Return the gradient of sequences of known extent as ``(N, T, features)``."""
    return layout.take_gradient(name, value, extent, features).swapaxes(0, 1)


def give(layout: Layout, value: Array, extent: Extent) -> Array:
    """Return ``(N, T, F)`` as the caller sees it, contiguous."""
    given: Array = layout.device.xp.ascontiguousarray(layout.give(value.swapaxes(0, 1), extent))
    return given


def beside(name: str, taken: Taken, other: Taken) -> None:
    """Refuse sequences that do not have as many rows as others."""
    if (taken.rows, taken.extent.batched) != (other.rows, other.extent.batched):
        expected = f"N={other.rows}" if other.extent.batched else "one unbatched sequence"
        got = f"N={taken.rows}" if taken.extent.batched else "one unbatched sequence"
        raise ValueError(f"{name}: expected {expected}, as the first argument has, got {got}")


def past_lengths(
    layout: Layout, lengths: object, extent: Extent, name: str = "lengths"
) -> Mask | None:
    """Return which steps lie past their sequence's end, ``(N, T)``; None without lengths.

    Lengths may come from the host or from the layout's device.
    """
    device = layout.device
    if lengths is None:
        return None
    try:
        ends = device.brought(name, device.lengths(lengths, *extent))
    except (TypeError, ValueError) as error:
        if name == "lengths":
            raise
        raise type(error)(str(error).replace("lengths", name, 1)) from None
    past: Mask = device.xp.arange(extent.steps) >= ends[:, None]
    return past


def without(values: Array, past: Mask | None) -> Array:
    """Return ``(N, T, F)`` with zeros past the ends: what lies there must not come through."""
    if past is None:
        return values
    kept: Array = namespace(values).where(past[..., None], values.dtype.type(0), values)
    return kept


def hidden_keys(
    layout: Layout, past: Mask | None, queries: int, keys: int, causal: bool
) -> Mask | None:
    """Return which keys a query may not see, as ``(N or 1, queries or 1, keys)``.

    Those past their sequence's end and, if ``causal``, those after the query's own step.
    """
    hidden = None if past is None else past[:, None]
    if causal:
        xp = layout.device.xp
        later = xp.arange(keys) > xp.arange(queries)[:, None]
        hidden = later[None] if hidden is None else hidden | later
    return hidden
