"""A CUDA device: CuPy arrays in its memory, work on the stream that is current in CuPy.

CuPy is imported when a layer is first asked onto a GPU. Within a call nothing is read back: arrays
are judged by type, shape and address alone.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np

from rnncore import checks
from rnncore.checks import Array
from rnncore.cuda import errors
from rnncore.devices.interface import Device
from rnncore.errors import DeviceError

_DLPACK_CUDA = (2, 13)  # device memory, plain and managed
INSTALL = (
    "pip install 'rnncore[cuda13]' where the driver is of CUDA 13, 'rnncore[cuda12]' for CUDA 12"
)


class Cuda(Device):
    """Make and take CuPy arrays of one GPU.

    Parameters
    ----------
    cupy : module
        CuPy.
    ordinal : int
        Which GPU, as CUDA counts them.
    """

    backend = "cuda"

    def __init__(self, cupy: Any, ordinal: int) -> None:
        self.name = f"cuda:{ordinal}"
        self.ordinal = ordinal
        self.xp = cupy
        self._gpu = cupy.cuda.Device(ordinal)
        self._current = cupy.cuda.runtime.getDevice
        self._kind = cupy.ndarray
        self.empty, self.array = self._empty, self._array

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new C-contiguous array whose values are not set."""
        with self._gpu:
            made: Array = self.xp.empty(shape, dtype)
        return made

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new C-contiguous array of zeros."""
        with self._gpu:
            made: Array = self.xp.zeros(shape, dtype)
        return made

    def _array(self, name: str, value: object, dtype: np.dtype[Any]) -> Array:
        """Return a caller's array of exactly `dtype`, without a copy where possible."""
        taken = self._taken(name, value, f"a CuPy array of {dtype}")
        if taken.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, got {taken.dtype}")
        return taken if _address(taken) % taken.itemsize == 0 else taken.copy(order="C")

    def any_array(self, name: str, value: object) -> Array:
        """Return a caller's array of whatever dtype, without a copy."""
        return self._taken(name, value, "a CuPy array")

    def from_host(self, value: object) -> bool:
        """Say whether a caller's value lies on no GPU."""
        return _cuda_ordinal(self.xp, value) is None

    def lengths(self, value: object, steps: int, batch: int, batched: bool) -> Array:
        """Return a copy of a caller's lengths; kernels clamp those that only the device knows."""
        if _cuda_ordinal(self.xp, value) is None:
            return checks.lengths(value, steps, batch, batched)
        taken = self._taken("lengths", value, "an array or a list of integers")
        if taken.dtype.kind not in "iu":
            raise TypeError(f"lengths: expected integers, got dtype {taken.dtype}")
        shape = (batch,) if batched else ()
        if taken.shape != shape:
            raise ValueError(f"lengths: expected shape {shape}, got {taken.shape}")
        return taken.astype(np.int64, order="C", copy=True).reshape(batch)

    def resets(self, value: object, shape: tuple[int, ...]) -> Array:
        """Return a caller's array of bool; one on the host is checked there and copied over."""
        if _cuda_ordinal(self.xp, value) is None:
            return self.upload(checks.resets(value, shape))
        taken = self._taken("resets", value, "an array of bool")
        if taken.dtype != np.bool_:
            raise TypeError(f"resets: expected dtype bool, got {taken.dtype}")
        if taken.shape != shape:
            checks.wrong_shape("resets", str(shape), taken.shape)
        return taken

    def out_array(
        self,
        value: object,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        inputs: dict[str, Array | None],
    ) -> Array:
        """Return `value` if results may be written into it while `inputs` are read."""
        taken = self._taken("out", value, f"a CuPy array of {dtype}")
        if taken.dtype != dtype:
            raise TypeError(f"out: expected dtype {dtype}, got {taken.dtype}")
        if taken.shape != shape:
            checks.wrong_shape("out", str(shape), taken.shape)
        if _address(taken) % taken.itemsize:
            raise ValueError("out: expected an aligned array, got a misaligned one")
        if checks.overlaps_itself(taken):
            raise ValueError(
                "out: expected elements apart in memory, got an array that overlaps itself"
            )
        begin, end = _span(taken)
        for name, other in inputs.items():
            if other is None or taken.size == 0 or other.size == 0:
                continue
            first, last = _span(other)
            if begin < last and first < end:
                raise ValueError(f"out: expected memory of its own, got one that overlaps {name}")
        return taken

    def brought(self, name: str, value: object) -> Array:
        """Return an array of any device as one of this GPU."""
        ordinal = _cuda_ordinal(self.xp, value)
        if ordinal is None:
            return self.upload(checks.any_array(name, value))
        if ordinal == self.ordinal:
            return self._viewed(name, value, "a CuPy array")
        theirs = cuda(ordinal)._viewed(name, value, "a CuPy array")
        with self._gpu:  # CuPy copies an array to the GPU that is current
            return theirs.copy()

    def download(self, value: Array) -> np.ndarray:
        """Return an array of this GPU as one in host memory: waits for all work before it."""
        with self._gpu:
            copied: np.ndarray = value.get()  # type: ignore[attr-defined]
        return copied

    def upload(self, value: Array) -> Array:
        """Return an array in host memory as one of this GPU."""
        with self._gpu:
            copied: Array = self.xp.asarray(value)
        return copied

    def entered(self) -> AbstractContextManager[object]:
        """Make this GPU CuPy's current one inside a ``with`` block."""
        gpu: AbstractContextManager[object] = self._gpu
        return gpu

    def protect(self, value: Array) -> None:
        """Do nothing: CuPy has no read-only arrays."""

    def multiply(self, one: Array, other: Array, out: Array | None = None) -> Array:
        """Return the product of two arrays of one type; 16-bit ones are multiplied in float32."""
        return self._in_wide(self.xp.multiply, one, other, out)

    def add(self, one: Array, other: Array, out: Array | None = None) -> Array:
        """Return the sum of two arrays of one type; 16-bit ones are added in float32."""
        return self._in_wide(self.xp.add, one, other, out)

    def scale(self, value: Array, factor: float) -> Array:
        """Return an array times a number, in the array's type."""
        if value.itemsize > 2:
            scaled: Array = value * factor
            return scaled
        return (value.astype(np.float32) * factor).astype(value.dtype)

    def keep_mask(self, dropped: Array, rate: float, dtype: np.dtype[Any]) -> Array:
        """Return 0 where `dropped` is true and ``1 / (1 - rate)`` elsewhere, as `dtype`."""
        scale = float(np.array(1.0 / (1.0 - rate), dtype))
        wide = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
        return ((~dropped).astype(wide) * scale).astype(dtype, copy=False)

    def _in_wide(self, function: Any, one: Array, other: Array, out: Array | None) -> Array:
        if one.itemsize > 2:
            result: Array = function(one, other, out=out)
            return result
        wide = function(one.astype(np.float32), other.astype(np.float32))
        if out is None:
            narrow: Array = wide.astype(one.dtype)
            return narrow
        out[...] = wide
        return out

    def _taken(self, name: str, value: object, expected: str) -> Array:
        """Return a caller's array within a call."""
        self.require_current(name)
        return self._viewed(name, value, expected)

    def require_current(self, name: str) -> None:
        """Refuse a call while another GPU is the current one; here earlier failures are raised."""
        errors.raise_pending()
        if self._current() != self.ordinal:
            raise RuntimeError(
                f"{name}: expected {self.name}, where the layer is, to be CuPy's current GPU, got "
                f"cuda:{self._current()}; call it inside `with cupy.cuda.Device({self.ordinal})`"
            )

    def _viewed(self, name: str, value: object, expected: str) -> Array:
        """Return a CuPy array that views `value`, which must lie on this GPU."""
        ordinal = _cuda_ordinal(self.xp, value)
        if ordinal is None:
            raise TypeError(
                f"{name}: expected {expected} on {self.name}, got {checks.told(value)}"
                + (" in host memory" if hasattr(type(value), "__array__") else "")
            )
        if ordinal != self.ordinal:
            raise TypeError(
                f"{name}: expected {expected} on {self.name}, got one on cuda:{ordinal}"
            )
        if type(value) is self._kind:
            same: Array = value  # type: ignore[assignment]
            return same
        try:
            # DLPack hands over the stream: the producer makes ours wait for its work.
            taken: Array = (
                self.xp.from_dlpack(value)
                if hasattr(type(value), "__dlpack__")
                else self.xp.asarray(value)
            )
        except (BufferError, RuntimeError, TypeError) as error:
            raise TypeError(
                f"{name}: expected {expected}, got {checks.told(value)}: {error}"
            ) from error
        return taken


def cuda(ordinal: int | None = None) -> Cuda:
    """Return a GPU, the one that is current in CuPy for None.

    Raises
    ------
    DeviceError
        If CuPy, a driver or the GPU is not there; it says what to install, or what failed.
    """
    cupy = _cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        if ordinal is None:
            ordinal = cupy.cuda.runtime.getDevice() if count else 0
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"device: expected a GPU that CUDA can use, got: {error}") from error
    if ordinal >= count:
        there = ", ".join(f"'cuda:{i}'" for i in range(count)) or "none"
        raise DeviceError(f"device: expected a GPU of this machine ({there}), got 'cuda:{ordinal}'")
    return _of_module(cupy, ordinal)


def state() -> dict[str, Any]:
    """Return what there is of CUDA: CuPy's version, the GPUs, or why there are none.

    For ``show_config``: it raises nothing, and imports CuPy.
    """
    found: dict[str, Any] = {"cupy": None, "devices": []}
    try:
        cupy = _cupy()
        found["cupy"] = cupy.__version__
        cuda()
        runtime = cupy.cuda.runtime
        found["runtime"], found["driver"] = runtime.runtimeGetVersion(), runtime.driverGetVersion()
        for ordinal in range(runtime.getDeviceCount()):
            properties = runtime.getDeviceProperties(ordinal)
            capability = f"{properties['major']}.{properties['minor']}"
            name = properties["name"].decode()
            found["devices"].append(f"cuda:{ordinal} {name}, compute capability {capability}")
    except Exception as error:  # whatever is broken here is what is to be told
        found["reason"] = str(error).removeprefix("device: ")
    return found


def foreign_ordinal(value: object) -> int | None:
    """Return the GPU of an array that may be anyone's, None where it is on no GPU."""
    if isinstance(value, np.ndarray):
        return None
    if hasattr(type(value), "__dlpack_device__"):
        kind, ordinal = value.__dlpack_device__()  # type: ignore[attr-defined]
        return int(ordinal) if kind in _DLPACK_CUDA else None
    if hasattr(type(value), "__cuda_array_interface__"):
        device = _cupy().asarray(value).device
        return int(device.id)
    return None


def _cuda_ordinal(cupy: Any, value: object) -> int | None:
    """As :func:`foreign_ordinal`, with a short way for CuPy's own."""
    if type(value) is cupy.ndarray:
        return int(value.device.id)  # type: ignore[attr-defined]
    return foreign_ordinal(value)


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name == "cupy":
            raise DeviceError(f"device: 'cuda' needs CuPy: {INSTALL}") from error
        raise DeviceError(f"device: CuPy cannot be imported: {error}; {INSTALL}") from error
    except Exception as error:  # a broken installation fails in many ways
        raise DeviceError(f"device: CuPy cannot be imported: {error}") from error


@lru_cache
def _of_module(cupy: Any, ordinal: int) -> Cuda:
    return Cuda(cupy, ordinal)


def _address(value: Any) -> int:
    return int(value.data.ptr)


def _span(value: Array) -> tuple[int, int]:
    """Return the first byte of an array and the one past its last."""
    begin = end = _address(value)
    for stride, n in zip(value.strides, value.shape, strict=True):
        if stride < 0:
            begin += stride * (n - 1)
        else:
            end += stride * (n - 1)
    return begin, end + value.itemsize
