"""Hold the devices: where a layer's arrays lie, and which backend computes on them.

``host`` is NumPy and the CPU, ``cuda`` is CuPy and a GPU. This is the one place that knows the two
apart; layers hold a device and ask it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.devices.host import HOST
from rnncore.devices.interface import DTYPES, Device, require_dtype

__all__ = ["DTYPES", "HOST", "Device", "get", "of", "of_foreign", "require_dtype"]


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


def of_foreign(value: object) -> Device | None:
    """Return the GPU on which a caller's value lies, None for all that lies on none."""
    from rnncore.devices.cuda import cuda, foreign_ordinal

    ordinal = foreign_ordinal(value)
    return None if ordinal is None else cuda(ordinal)
