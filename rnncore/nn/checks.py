"""What the modules check beyond :mod:`rnncore.checks`: a last axis, a whole shape, indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnncore.checks import Array, any_array, wrong_shape
from rnncore.devices import Device


def float_array(
    device: Device, name: str, value: object, dtype: np.dtype[Any], features: int | None = None
) -> Array:
    """Return a value as an array of one float type, its last axis as long as expected.

    Parameters
    ----------
    device : Device
        Where it must lie.
    name : str
        The argument's name in messages.
    value : array or anything with DLPack
        What the caller gave.
    dtype : numpy.dtype
        The module's type.
    features : int, optional
        Expected size of the last axis.

    Raises
    ------
    TypeError
        If it is no array, of another type or on another device.
    ValueError
        If the last axis has another size.
    """
    taken = device.array(name, value, dtype)
    if features is not None and (taken.ndim == 0 or taken.shape[-1] != features):
        wrong_shape(name, f"(..., {features})", taken.shape)
    return taken


def shaped(
    device: Device, name: str, value: object, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    """Return a value as an array of one float type and exactly one shape."""
    taken = device.array(name, value, dtype)
    if taken.shape != shape:
        wrong_shape(name, str(shape), taken.shape)
    return taken


def listed(name: str, value: Any) -> Array:
    """Return an array of whatever dtype, made of a list or a number where it is one."""
    makes = isinstance(value, list | tuple | range | int | np.generic)
    return np.asarray(value) if makes else any_array(name, value)


def indices(
    device: Device, name: str, value: Any, count: int, lowest: int = 0
) -> npt.NDArray[np.int64]:
    """Return integers of any type as int64 in C order, from ``lowest`` to ``count - 1``.

    They may come from the host, where they are checked, or from the device. Those are not looked
    at, which would wait for the device: out of range, they are taken as the nearest end.
    """
    if not device.from_host(value):
        return _indices_on(device, name, value, count, lowest)
    taken = listed(name, value)
    if taken.dtype.kind not in "iu" and taken.size:
        raise TypeError(f"{name}: expected integers, got {taken.dtype}")
    if taken.size and (taken.max() >= count or taken.min() < lowest):
        outside = int(taken.max() if taken.max() >= count else taken.min())
        raise ValueError(f"{name}: expected {lowest} .. {count - 1}, got {outside}")
    device.require_current(name)
    return device.upload(np.asarray(taken, dtype=np.int64, order="C"))


def _indices_on(
    device: Device, name: str, value: Any, count: int, lowest: int
) -> npt.NDArray[np.int64]:
    taken = device.any_array(name, value)
    if taken.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {taken.dtype}")
    held: npt.NDArray[np.int64] = taken.astype(np.int64, order="C").clip(lowest, count - 1)
    return held
