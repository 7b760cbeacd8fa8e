"""What the modules check beyond :mod:`rnncore.checks`: a last axis, a whole shape, indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnncore.checks import Array, any_array, array, wrong_shape


def float_array(name: str, value: object, dtype: str, features: int | None = None) -> Array:
    """Return a value as an array of one float type, its last axis as long as expected.

    Parameters
    ----------
    name : str
        The argument's name in messages.
    value : ndarray or anything with DLPack
        What the caller gave.
    dtype : {"float32", "float64"}
        The module's type.
    features : int, optional
        Expected size of the last axis.

    Raises
    ------
    TypeError
        If it is no array or of another type.
    ValueError
        If the last axis has another size.
    """
    taken = array(name, value, np.dtype(dtype))
    if features is not None and (taken.ndim == 0 or taken.shape[-1] != features):
        wrong_shape(name, f"(..., {features})", taken.shape)
    return taken


def shaped(name: str, value: object, dtype: str, shape: tuple[int, ...]) -> Array:
    """Return a value as an array of one float type and exactly one shape."""
    taken = array(name, value, np.dtype(dtype))
    if taken.shape != shape:
        wrong_shape(name, str(shape), taken.shape)
    return taken


def listed(name: str, value: Any) -> Array:
    """Return an array of whatever dtype, made of a list or a number where it is one."""
    makes = isinstance(value, list | tuple | range | int | np.generic)
    return np.asarray(value) if makes else any_array(name, value)


def indices(name: str, value: Any, count: int, lowest: int = 0) -> npt.NDArray[np.int64]:
    """Return integers of any type as int64 in C order, from ``lowest`` to ``count - 1``."""
    taken = listed(name, value)
    if taken.dtype.kind not in "iu" and taken.size:
        raise TypeError(f"{name}: expected integers, got {taken.dtype}")
    if taken.size and (taken.max() >= count or taken.min() < lowest):
        outside = int(taken.max() if taken.max() >= count else taken.min())
        raise ValueError(f"{name}: expected {lowest} .. {count - 1}, got {outside}")
    return np.asarray(taken, dtype=np.int64, order="C")
