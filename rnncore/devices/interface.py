"""Say what a device does for layers: where their arrays lie, how they come and go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from rnncore.checks import Array
from rnncore.philox import draw_bits

DTYPES = {"cpu": ("float32", "float64"), "cuda": ("float32", "float64", "float16", "bfloat16")}
"""The types of sequences that layers may have, by kind of device."""


_NOTHING = nullcontext()  # a shared one: it holds nothing


def require_dtype(name: str, place: str) -> None:
    """Refuse a dtype of layers that the device which `place` names does not run.

    Raises
    ------
    NotImplementedError
        If it is one of another device's.
    """
    if name in DTYPES["cuda"] and name not in DTYPES[place.partition(":")[0]]:
        raise NotImplementedError(
            f"dtype: {name} is not in this version of rnncore on the CPU; device='cuda' has it"
        )


class Device(ABC):
    """Hold what differs between devices, so that layers need not know on which they are.

    Functions that take a caller's value check it and raise what ``checks`` raises; what they return
    lies on this device. Results are made by :meth:`empty`, which, like every other operation, is
    ordered by the caller's stream where the device has streams.
    """

    name: str
    """As ``device=`` has it: ``"cpu"``, ``"cuda:0"`` ..."""
    backend: str
    """The backend that runs here, a name of ``rnncore.backends``."""
    weights: tuple[str, ...] = ("full",)
    """How engines here may hold their weights: "full", "bfloat16", "int8"."""
    xp: Any
    """The array module: NumPy, or CuPy."""
    empty: Callable[[tuple[int, ...], np.dtype[Any]], Array]
    """Return a new C-contiguous array of a shape and a dtype, whose values are not set."""
    array: Callable[[str, object, np.dtype[Any]], Array]
    """Return a caller's array, under its argument's name, of exactly a dtype; views it if it can.

    These two are what short calls need. Python finds what an object holds faster than a method.
    """

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new C-contiguous array of zeros."""

    @abstractmethod
    def any_array(self, name: str, value: object) -> Array:
        """Return a caller's array of whatever dtype, without a copy."""

    @abstractmethod
    def from_host(self, value: object) -> bool:
        """Say whether a caller's value is for checks of the host: it is no array of a GPU."""

    @abstractmethod
    def require_current(self, name: str) -> None:
        """Refuse a call, by the name of an argument, where another GPU is the current one."""

    @abstractmethod
    def lengths(self, value: object, steps: int, batch: int, batched: bool) -> Array:
        """Return a copy of a caller's lengths, int64 ``(N,)``; on the host where they came so."""

    @abstractmethod
    def resets(self, value: object, shape: tuple[int, ...]) -> Array:
        """Return a caller's array of bool of `shape`."""

    @abstractmethod
    def out_array(
        self,
        value: object,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        inputs: dict[str, Array | None],
    ) -> Array:
        """Return `value` if results may be written into it while `inputs` are read."""

    @abstractmethod
    def brought(self, name: str, value: object) -> Array:
        """Return an array of any device as one of this device: itself where it lies here already.

        For copies between calls (parameters, states, files): it may wait for the device.
        """

    @abstractmethod
    def download(self, value: Array) -> np.ndarray:
        """Return an array of this device as one in host memory, itself where it lies there."""

    @abstractmethod
    def protect(self, value: Array) -> None:
        """Make an array read-only, where the device's arrays can be."""

    @abstractmethod
    def multiply(self, one: Array, other: Array, out: Array | None = None) -> Array:
        """Return the product of two arrays of one type, in that type."""

    @abstractmethod
    def add(self, one: Array, other: Array, out: Array | None = None) -> Array:
        """Return the sum of two arrays of one type, in that type."""

    @abstractmethod
    def scale(self, value: Array, factor: float) -> Array:
        """Return an array times a number, in the array's type."""

    @abstractmethod
    def keep_mask(self, dropped: Array, rate: float, dtype: np.dtype[Any]) -> Array:
        """Return 0 where `dropped` is true and ``1 / (1 - rate)`` elsewhere, as `dtype`."""

    def draw_bits(
        self, shape: tuple[int, ...], rate: float, seed: int, place: tuple[int, ...]
    ) -> Array:
        """Draw the bits of :func:`rnncore.philox.draw_bits`, the same on every device."""
        return self.upload(draw_bits(shape, rate, seed, place))

    def entered(self) -> AbstractContextManager[object]:
        """Make this device the current one inside a ``with`` block, where there is such a thing."""
        return _NOTHING

    @abstractmethod
    def upload(self, value: Array) -> Array:
        """Return an array in host memory as one of this device, itself on the host."""

    def __repr__(self) -> str:
        return f"<device {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from rnncore.devices import get

        return get, (self.name,)
