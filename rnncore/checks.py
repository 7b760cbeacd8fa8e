"""Catch users' mistakes, once, before any work is done.

Every function here takes the name of an argument and what came, and returns it in the form that
the rest of the house works with, or raises an error that names the argument, what was expected and
what came. ``TypeError`` is for a kind of object or a dtype, ``ValueError`` for a shape or a value.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

OVERLAP_WORK = 10_000
"""Bound on the exact search for a shared element; past it two arrays count as overlapping."""

_CPU_DLPACK_DEVICES = (1, 3, 11)  # host memory, plain and as CUDA and ROCm pin it
_OTHER_DEVICES = {
    2: "CUDA",
    7: "Vulkan",
    8: "Metal",
    10: "ROCm",
    13: "CUDA (managed)",
    14: "oneAPI",
}
_NO_ARRAYS = (bool, int, float, complex, str, bytes, list, tuple, dict, np.generic, type(None))


def size(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum` that 64 bits hold."""
    number = integer(name, value, minimum)
    if number >= 2**63:
        raise ValueError(f"{name}: expected an integer below 2**63, got {number}")
    return number


def integer(name: str, value: object, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`, however large; bool is not a number here."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {told(value)}") from None
    if number < minimum:
        raise ValueError(f"{name}: expected an integer of at least {minimum}, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"{name}: expected True or False, got {told(value)}")


def bound(name: str, value: object) -> float:
    """Return `value` as a float above 0, infinity included."""
    number = _number(name, value)
    if not number > 0:
        raise ValueError(f"{name}: expected more than 0, got {number}")
    return number


def real(name: str, value: object) -> float:
    """Return `value` as a finite float; bool is not a number here."""
    number = _number(name, value)
    if not np.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {number}")
    return number


def _number(name: str, value: object) -> float:
    if isinstance(value, bool | np.bool_ | complex | str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {told(value)}")
    if isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a number, got an array")
    return float(value)


def probability(name: str, value: object) -> float:
    """Return `value` as a float in [0, 1)."""
    number = real(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name}: expected a probability of at least 0 and below 1, got {number}")
    return number


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`."""
    expected = ", ".join(repr(item) for item in choices)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {expected}, got {told(value)}")
    if value not in choices:
        raise ValueError(f"{name}: expected one of {expected}, got {value!r}")
    return str(value)


def array(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an aligned ndarray of exactly `dtype`, without a copy where possible.

    Ordinary arrays pass after four looks. Whatever has DLPack, ``__array_interface__`` or a buffer
    on the host is taken as a view.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.aligned:
        return value
    taken = _taken(name, value, f"a NumPy array of {dtype}")
    if taken.dtype != dtype:
        given = taken.dtype if taken.dtype.isnative else f"{taken.dtype.str} (foreign byte order)"
        raise TypeError(f"{name}: expected dtype {dtype}, got {given}")
    return taken if taken.flags.aligned else taken.copy(order="C")


def any_array(name: str, value: object) -> Array:
    """Return `value` as an ndarray of whatever dtype, without a copy."""
    return _taken(name, value, "a NumPy array")


def step_rows(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """Return `value` as an array of `dtype` whose rows are whole: one step of a stream."""
    given = array(name, value, dtype)
    if given.ndim and (given.strides[-1] != given.itemsize or given.strides[0] % given.itemsize):
        return given.copy(order="C")
    return given


def unit_stride(value: Array) -> Array:
    """Return `value`, or a copy of it when its last axis is not contiguous."""
    return value if value.strides[-1] == value.itemsize else value.copy(order="C")


def contiguous(value: Array) -> Array:
    """Return `value`, or a copy of it when it is not C-contiguous."""
    return value if value.flags.c_contiguous else value.copy(order="C")


def lengths(value: object, steps: int, batch: int, batched: bool) -> Array:
    """Return a new int64 array ``(N,)`` of lengths from 0 to `steps`."""
    if not batched:
        if isinstance(value, list | tuple) or getattr(value, "ndim", 0) != 0:
            raise ValueError(f"lengths: expected one integer for an unbatched x, got {told(value)}")
        return np.array([_length("lengths", value, steps)], np.int64)
    if isinstance(value, list | tuple):
        if len(value) != batch:
            raise ValueError(f"lengths: expected shape ({batch},), got ({len(value)},)")
        items = [_length(f"lengths[{n}]", item, steps) for n, item in enumerate(value)]
        return np.array(items, np.int64)
    taken = _taken("lengths", value, "an array or a list of integers")
    if taken.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got dtype {taken.dtype}")
    if taken.shape != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {taken.shape}")
    wrong = np.flatnonzero((taken < 0) | (taken > steps))
    if wrong.size:
        n = int(wrong[0])
        raise ValueError(f"lengths[{n}]: expected 0 to {steps}, got {taken[n]}")
    return taken.astype(np.int64, order="C", copy=True)


def rows(name: str, value: object, batch: int) -> Array:
    """Return which of `batch` rows are meant, as an index: integers from 0, or a bool array."""
    taken = np.asarray(value) if isinstance(value, list | tuple | int) else any_array(name, value)
    if taken.size == 0 and isinstance(value, list | tuple):
        return np.zeros(0, np.int64)
    if taken.dtype == np.bool_:
        if taken.shape != (batch,):
            raise ValueError(f"{name}: expected shape ({batch},), got {taken.shape}")
        return np.flatnonzero(taken)
    if taken.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers or bools, got dtype {taken.dtype}")
    if taken.ndim > 1:
        raise ValueError(f"{name}: expected one axis, got {taken.shape}")
    if np.any((taken < 0) | (taken >= batch)):
        raise ValueError(f"{name}: expected rows from 0 to {batch - 1}, got {taken.tolist()}")
    return taken.astype(np.int64)


def resets(value: object, shape: tuple[int, ...]) -> Array:
    """Return the bool array `value` of `shape`; integers are refused, 0 and 1 included."""
    taken = _taken("resets", value, "an array of bool")
    if taken.dtype != np.bool_:
        raise TypeError(f"resets: expected dtype bool, got {taken.dtype}")
    if taken.shape != shape:
        raise ValueError(f"resets: expected {shape}, got {taken.shape}")
    return taken


def out_array(
    value: object, shape: tuple[int, ...], dtype: np.dtype[Any], inputs: dict[str, Array | None]
) -> Array:
    """Return `value` if results may be written into it while `inputs` are read."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"out: expected a NumPy array, got {told(value)}")
    taken = _taken("out", value, "a NumPy array")
    if taken.dtype != dtype:
        raise TypeError(f"out: expected dtype {dtype}, got {taken.dtype.str}")
    if taken.shape != shape:
        raise ValueError(f"out: expected {shape}, got {taken.shape}")
    if not taken.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    if not taken.flags.aligned:
        raise ValueError("out: expected an aligned array, got a misaligned one")
    if overlaps_itself(taken):
        raise ValueError(
            "out: expected elements apart in memory, got an array that overlaps itself"
        )
    for name, other in inputs.items():
        if other is not None and overlap(taken, other):
            raise ValueError(f"out: expected memory of its own, got one that overlaps {name}")
    return taken


def overlap(one: Array, other: Array) -> bool:
    """Say whether two arrays share an element, or may share one for all that is cheap to know."""
    if not np.may_share_memory(one, other):
        return False
    try:
        return np.shares_memory(one, other, max_work=OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def wrong_shape(name: str, expected: str, got: tuple[int, ...]) -> NoReturn:
    """Raise the error for a shape."""
    raise ValueError(f"{name}: expected {expected}, got {got}")


def _taken(name: str, value: object, expected: str) -> Array:
    """Return a plain ndarray that views `value`."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray | np.matrix):
            raise TypeError(f"{name}: expected {expected}, got a {type(value).__name__}")
        return value.view(np.ndarray)
    if hasattr(type(value), "__dlpack__"):
        return _from_dlpack(name, value, expected)
    if hasattr(value, "__cuda_array_interface__"):
        raise _elsewhere(name, value, expected, "a CUDA device")
    if isinstance(value, _NO_ARRAYS) or not _has_memory(value):
        raise TypeError(f"{name}: expected {expected}, got {told(value)}")
    try:
        return np.asarray(value)
    except (BufferError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {expected}, got {told(value)}: {error}") from error


def _from_dlpack(name: str, value: Any, expected: str) -> Array:
    """Return a view of an array of another library."""
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name}: expected {expected}, got {told(value)} that requires grad, of which "
            "PyTorch's graph would not see the use; give its .detach()"
        )
    try:
        kind, number = value.__dlpack_device__()
        if kind in _CPU_DLPACK_DEVICES:
            return np.from_dlpack(_negated(value))
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {expected}, got {told(value)}: {error}") from error
    device = _OTHER_DEVICES.get(int(kind), f"DLPack {int(kind)}")
    raise _elsewhere(name, value, expected, f"{device} device {number}")


def _negated(value: Any) -> Any:
    """Return a PyTorch tensor whose sign is in its memory: DLPack knows no lazy minus."""
    negative = getattr(value, "is_neg", None)
    return value.resolve_neg() if callable(negative) and negative() else value


def _elsewhere(name: str, value: object, expected: str, device: str) -> TypeError:
    return TypeError(
        f"{name}: expected {expected} in host memory, got {told(value)} on another device, "
        f"{device}; copy it to the host first"
    )


def _has_memory(value: Any) -> bool:
    """Say whether a value lends its memory: by ``__array_interface__`` or as a buffer."""
    if hasattr(value, "__array_interface__"):
        return True
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _length(name: str, value: object, steps: int) -> int:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_ | np.ndarray):
        raise TypeError(f"{name}: expected an integer, got {told(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {told(value)}") from None
    if not 0 <= number <= steps:
        raise ValueError(f"{name}: expected 0 to {steps}, got {number}")
    return number


def overlaps_itself(value: Array) -> bool:
    """Say whether two indices may name the same memory: axes that do not nest count as such."""
    if value.size == 0:
        return False
    axes = sorted((abs(stride), n) for stride, n in zip(value.strides, value.shape, strict=True))
    extent = value.itemsize
    for stride, n in axes:
        if n == 1:
            continue
        if stride < extent:
            return True
        extent += stride * (n - 1)
    return False


def told(value: object) -> str:
    """Describe a value that was not expected."""
    if value is None or isinstance(value, int | float | str | np.generic):
        return repr(value)
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    name = type(value).__name__
    if name == "ndarray":  # CuPy's, and those of other libraries that took the name
        name = f"{type(value).__module__.split('.')[0]} array"
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"
