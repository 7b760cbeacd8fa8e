"""A stand-in for CuPy where there is none: its arrays lie in host memory and nobody may look.

What the package and its tests use of CuPy is here, and as strict: NumPy refuses these arrays, they
refuse NumPy's, one of another GPU than the current one is not touched, and every way that reads
back to the host is counted. Fresh memory holds NaN, so that what nobody wrote shows. Which backend
computes on the arrays is not said here: ``unwrap`` lends it their memory.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

GPUS = 2


class _Now(threading.local):
    def __init__(self) -> None:
        self.gpu, self.before = 0, []


_now = _Now()
read_backs = 0
"""How often device memory was read by the host: get, item, bool, float, int."""


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Device:
    """A GPU; inside a ``with`` block, the current one."""

    def __init__(self, id: int | None = None) -> None:
        self.id = _now.gpu if id is None else id

    def __enter__(self) -> Device:
        _now.before.append(_now.gpu)
        _now.gpu = self.id
        return self

    def __exit__(self, *reason: object) -> None:
        _now.gpu = _now.before.pop()

    def use(self) -> None:
        _now.gpu = self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


def _operator(name: str) -> Any:
    def run(self: ndarray, *others: Any) -> Any:
        made = getattr(self._memory, name)(*(_operand(other) for other in others))
        return self if made is self._memory else _wrapped(made)

    run.__name__ = name
    return run


class ndarray:
    """An array whose memory counts as a GPU's."""

    __array_ufunc__ = None  # NumPy's functions refuse it

    def __init__(self, memory: np.ndarray, gpu: int) -> None:
        self._memory, self._gpu = memory, gpu

    shape = property(lambda self: self._memory.shape)
    dtype = property(lambda self: self._memory.dtype)
    strides = property(lambda self: self._memory.strides)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    itemsize = property(lambda self: self._memory.itemsize)
    device = property(lambda self: Device(self._gpu))
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    T = property(lambda self: _wrapped(_lend(self).T))

    @property
    def flags(self) -> SimpleNamespace:
        flags = self._memory.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous)

    def get(self) -> np.ndarray:
        _count()
        return self._memory.copy()

    def set(self, value: np.ndarray) -> None:
        assert isinstance(value, np.ndarray)
        assert value.shape == self.shape
        _lend(self)[...] = value

    def copy(self, order: str = "C") -> ndarray:
        return _wrapped(self._memory.copy(order))  # from any GPU, to the current one

    def item(self) -> Any:
        _count()
        return self._memory.item()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    __index__ = __int__

    def __array__(self, *given: object, **named: object) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct "
            "a NumPy array explicitly."
        )

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, key: Any) -> ndarray:
        return _wrapped(_lend(self)[_key(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            if key is not Ellipsis and key != slice(None):
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            self.set(value)
        else:
            _lend(self)[_key(key)] = _operand(value)

    def fill(self, value: Any) -> None:
        _lend(self).fill(_operand(value))

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._gpu

    def __dlpack__(self, **options: object) -> Any:
        return self

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        described = dict(self._memory.__array_interface__)
        return {**described, "version": 3, "stream": 1}

    __hash__ = None  # type: ignore[assignment]


_METHODS = (
    "reshape", "transpose", "swapaxes", "astype", "clip", "sum", "mean", "max", "argmax", "squeeze",
)  # fmt: skip
_OPERATORS = (
    "add", "radd", "iadd", "sub", "rsub", "isub", "mul", "rmul", "imul", "truediv", "rtruediv",
    "itruediv",
    "and", "or", "invert", "neg", "lt", "le", "gt", "ge", "eq", "ne",
)  # fmt: skip


def _method(name: str) -> Any:
    def run(self: ndarray, *given: Any, **named: Any) -> ndarray:
        return _wrapped(getattr(_lend(self), name)(*given, **named))

    run.__name__ = name
    return run


for _name in _METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in _OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def unwrap(value: Any) -> Any:
    """Lend a backend the memory of an array; None and arrays of the host are as they are."""
    return _lend(value) if isinstance(value, ndarray) else value


def _lend(value: ndarray) -> np.ndarray:
    if value._gpu != _now.gpu:
        raise RuntimeError(f"an array of GPU {value._gpu} used while GPU {_now.gpu} is current")
    return value._memory


def _wrapped(memory: Any) -> ndarray:
    return ndarray(np.asarray(memory), _now.gpu)


def _operand(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return unwrap(value)


def _key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_key(part) for part in key)
    return _operand(key)


def _count() -> None:
    global read_backs
    read_backs += 1


# --- the module -----------------------------------------------------------------------------------


def empty(shape: Any, dtype: Any = float) -> ndarray:
    made = np.empty(shape, dtype)
    made.reshape(-1).view(np.uint8).fill(0xFF)  # NaN, in every type of floating point
    return _wrapped(made)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return _wrapped(np.zeros(shape, dtype))


def empty_like(value: ndarray) -> ndarray:
    return empty(value.shape, value.dtype)


def asarray(value: Any, dtype: Any = None, order: str = "K") -> ndarray:
    if isinstance(value, ndarray):
        same = dtype in (None, value.dtype) and (order == "K" or value.flags.c_contiguous)
        return value if same else value.astype(dtype or value.dtype, order=order)
    if hasattr(value, "__cuda_array_interface__"):
        return _at(value)
    return _wrapped(np.array(value, dtype))


def may_share_memory(one: ndarray, other: ndarray) -> bool:
    return np.may_share_memory(_lend(one), _lend(other))  # CuPy looks at addresses alone as well


def erf(value: ndarray) -> ndarray:
    memory = _lend(value)
    return _wrapped(np.vectorize(math.erf, otypes=[memory.dtype])(memory))


def _at(value: Any) -> ndarray:
    """Return an array over the memory that an object of anyone's describes."""
    described = value.__cuda_array_interface__
    dtype, shape = np.dtype(described["typestr"]), described["shape"]
    size = max(1, int(np.prod(shape)) * dtype.itemsize)
    memory = (ctypes.c_char * size).from_address(described["data"][0])
    memory.keep = value
    return _wrapped(np.ndarray(shape, dtype, memory, strides=described.get("strides")))


def from_dlpack(value: Any) -> ndarray:
    given = value.__dlpack__(stream=1)
    return ndarray(given._memory, given._gpu)


def _function(name: str) -> Any:
    def run(*given: Any, out: ndarray | None = None, **named: Any) -> ndarray:
        taken = [
            [_operand(part) for part in value] if isinstance(value, tuple | list) else value
            for value in given
        ]
        plain = [value if isinstance(value, list) else _operand(value) for value in taken]
        if name == "broadcast_to":
            plain[1] = given[1]
        if out is None:
            return _wrapped(getattr(np, name)(*plain, **named))
        getattr(np, name)(*plain, out=_lend(out), **named)
        return out

    run.__name__ = name
    return run


_FUNCTIONS = (
    "ascontiguousarray", "arange", "where", "take_along_axis", "broadcast_to", "concatenate",
    "stack", "multiply", "add", "matmul", "exp", "log", "log1p", "tanh", "sqrt", "square",
    "absolute", "maximum", "minimum", "clip", "argsort", "searchsorted", "take", "repeat",
)  # fmt: skip


def _runtime(gpus: int) -> SimpleNamespace:
    def count() -> int:
        if not gpus:
            raise CUDARuntimeError(35, "cudaErrorInsufficientDriver: the driver is too old")
        return gpus

    return SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDevice=lambda: _now.gpu,
        getDeviceCount=count,
        getDeviceProperties=lambda gpu: {"name": b"Stand-in", "major": 9, "minor": 0},
        deviceSynchronize=count,
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
    )


def make(gpus: int = GPUS) -> ModuleType:
    """Return a module that does as ``cupy`` does, on a machine with some GPUs."""
    module = ModuleType("cupy")
    module.__version__ = "14.0"
    own = "ndarray", "empty", "empty_like", "zeros", "asarray", "from_dlpack", "may_share_memory"
    for name in own:
        setattr(module, name, globals()[name])
    for name in _FUNCTIONS:
        setattr(module, name, _function(name))
    module.cuda = SimpleNamespace(
        Device=Device,
        runtime=_runtime(gpus),
        get_current_stream=lambda: SimpleNamespace(ptr=0, synchronize=lambda: None),
    )
    return module


@contextmanager
def installed(gpus: int = GPUS) -> Iterator[ModuleType]:
    """Let ``import cupy`` find a stand-in inside a ``with`` block."""
    module, special = make(gpus), ModuleType("cupyx.scipy.special")
    special.erf = erf
    _now.gpu = 0
    modules = {"cupy": module, special.__name__: special}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield module
    finally:  # nothing else that was imported meanwhile goes
        for name, one in before.items():
            if one is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = one


@contextmanager
def no_read_back() -> Iterator[None]:
    """Fail if the host reads device memory inside a ``with`` block."""
    before = read_backs
    yield
    assert read_backs == before, f"{read_backs - before} times device memory was read back"
