"""The host: NumPy arrays in its memory, and kernels for its CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import checks
from rnncore.checks import Array
from rnncore.devices.interface import Device


class Host(Device):
    """Make and take NumPy arrays. Methods are the functions themselves where they can be."""

    name = "cpu"
    backend = "cpu"
    weights = ("full", "bfloat16", "int8")
    xp = np

    zeros: Any = staticmethod(np.zeros)
    any_array = staticmethod(checks.any_array)
    lengths = staticmethod(checks.lengths)
    resets = staticmethod(checks.resets)
    out_array = staticmethod(checks.out_array)
    multiply: Any = staticmethod(np.multiply)
    add: Any = staticmethod(np.add)

    def __init__(self) -> None:
        self.empty, self.array = np.empty, checks.array

    def from_host(self, value: object) -> bool:
        """Return True: whatever comes is checked here."""
        return True

    def require_current(self, name: str) -> None:
        """Do nothing: there is one host."""

    def brought(self, name: str, value: object) -> Array:
        """Return an array of any device in host memory."""
        from rnncore.devices import of_foreign

        if type(value) is np.ndarray:
            return value
        device = of_foreign(value)
        if device is None:
            return checks.any_array(name, value)
        return device.download(device.brought(name, value))

    def download(self, value: Array) -> np.ndarray:
        """Return the array itself."""
        return value

    def upload(self, value: Array) -> Array:
        """Return the array itself."""
        return value

    def protect(self, value: Array) -> None:
        """Make an array read-only."""
        value.flags.writeable = False

    def scale(self, value: Array, factor: float) -> Array:
        """Return an array times a number, in the array's type."""
        scaled: Array = value * np.array(factor, value.dtype)
        return scaled

    def keep_mask(self, dropped: Array, rate: float, dtype: np.dtype[Any]) -> Array:
        """Return 0 where `dropped` is true and ``1 / (1 - rate)`` elsewhere, as `dtype`."""
        scale = np.array(1.0 / (1.0 - rate), dtype)
        mask: Array = np.multiply(~dropped, scale, dtype=dtype)
        return mask


HOST = Host()
