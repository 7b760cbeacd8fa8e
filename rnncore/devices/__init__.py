"""Hold the devices: where a layer's arrays lie, and which backend computes on them.

``host`` is NumPy and the CPU, ``cuda`` is CuPy and a GPU. This is the one place that knows the two
apart; layers hold a device and ask it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from rnncore.devices.host import HOST
from rnncore.devices.interface import DTYPES, Device, require_dtype

__all__ = [
    "DTYPES",
    "HOST",
    "Device",
    "address",
    "get",
    "namespace",
    "of",
    "of_foreign",
    "require_dtype",
]


_OF_NUMPY = (np.ndarray, np.generic)


def get(name: str) -> Device:
    """Return a device by a checked name: ``"cpu"``, ``"cuda"`` (CuPy's current GPU), ``"cuda:1"``.

    Raises
    ------
    DeviceError
        If it is not there; it says what to install, or what failed.
    """
    if name == "cpu":
        return HOST
    from rnncore.devices.cuda import cuda

    _, _, ordinal = name.partition(":")
    return cuda(int(ordinal) if ordinal else None)


def of(value: Any) -> Device:
    """Return the device of an array that went through a device before."""
    if isinstance(value, np.ndarray):
        return HOST
    return get(f"cuda:{value.device.id}")


def namespace(value: Any) -> Any:
    """Return the array module of an array that went through a device: NumPy, or CuPy."""
    if type(value) is np.ndarray or isinstance(value, _OF_NUMPY):
        return np
    return sys.modules["cupy"]  # who has such an array has imported it


def address(value: Any) -> int:
    """Return where the memory of an array of any device begins."""
    if isinstance(value, np.ndarray):
        begin: int = value.__array_interface__["data"][0]
        return begin
    return int(value.data.ptr)


def of_foreign(value: object) -> Device | None:
    """Return the GPU on which a caller's value lies, None for all that lies on none."""
    from rnncore.devices.cuda import cuda, foreign_ordinal

    ordinal = foreign_ordinal(value)
    return None if ordinal is None else cuda(ordinal)
