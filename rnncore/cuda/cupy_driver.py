"""Run kernels by CuPy: its memory pool, its current stream, and NVRTC through its RawModule."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Any

from rnncore import _rnncore
from rnncore.cuda import errors, sources
from rnncore.cuda.beyond_lengths import BeyondLengths
from rnncore.cuda.program import Program, programs_of
from rnncore.errors import DeviceError

INSTALL = "pip install 'rnncore[cuda13]', or 'rnncore[cuda12]' where the driver is of CUDA 12"
OLDEST = 14
"""The first version of CuPy that finds NVRTC, cuBLAS and headers in NVIDIA's wheels."""

NOT_FOUND = "Failed to find", "Failure finding"
"""How CuPy speaks of headers, and CUDA's own path finder of libraries."""


class CupyDriver:
    """Give CuPy's memory, stream and compiled kernels, all of CuPy's current device.

    Kernels are compiled when they are first asked for, once in a process for each device; CuPy
    keeps them on disk for other processes.

    Raises
    ------
    rnncore.DeviceError
        Where CuPy is not installed or too old, or finds no GPU.
    """

    def __init__(self) -> None:
        self._cupy = _import_cupy()
        self._lock = threading.Lock()
        self._beyond: BeyondLengths | None = None
        self._tables: dict[int, int] = {}
        # CuPy's functions by kernel, of a device and text: they keep their module loaded.
        self._functions: dict[tuple[int, str], dict[str, Any]] = {}
        self._programs: dict[tuple[int, str, str, bool, int], Any] = {}

    def empty(self, nbytes: int) -> Any:
        """Return an array of bytes from CuPy's pool.

        Parameters
        ----------
        nbytes : int
            Its size.

        Returns
        -------
        cupy.ndarray
            [nbytes], uint8, not initialised. The pool hands it out again in the order of the
            stream that was current.

        Raises
        ------
        MemoryError
            Where the device has not as much left.
        """
        return self._cupy.empty(nbytes, "uint8")

    def address(self, array: Any) -> int:
        """Return where an array lies on the device, 0 for None."""
        return 0 if array is None else int(array.data.ptr)

    def stream(self) -> int:
        """Return the address of the calling thread's current stream; 0 is the default one."""
        return int(self._cupy.cuda.get_current_stream().ptr)

    def beyond_lengths(self) -> int:
        """Return where a kernel marks lengths beyond 0 to T: a word of the host's memory.

        The word serves all devices, which read and write pinned memory at the host's own address.
        """
        with self._lock:
            if self._beyond is None:
                with self._reported("pinned memory"):
                    memory = self._cupy.cuda.alloc_pinned_memory(BeyondLengths.BYTES)
                self._beyond = BeyondLengths(memory, int(memory.ptr))
                errors.watch(self._beyond)
        return self._beyond.address

    def on(self, ordinal: int) -> AbstractContextManager[Any]:
        """Make a GPU the current one inside a ``with`` block.

        Parameters
        ----------
        ordinal : int
            Which one, as CUDA counts them.
        """
        entered: AbstractContextManager[Any] = self._cupy.cuda.Device(ordinal)
        return entered

    def program(self, cell: str, dtype: str, options: bool, width: int) -> Any:
        """Return the kernels of a cell, compiled on the first call.

        Parameters
        ----------
        cell : str
            As ``csrc/cells/list.h`` names it.
        dtype : str
            Of sequences: float16, bfloat16, float32 or float64.
        options : bool
            Whether the cell asks for its options at run time.
        width : int
            Units of a persistent block; 0 where every step is kernels of its own.

        Returns
        -------
        rnncore._rnncore.CudaProgram
            For the current device; the same one for the same arguments.

        Raises
        ------
        rnncore.DeviceError
            With the compiler's words where kernels do not compile, or what is missing.
        """
        with self._reported("the current device"):
            device = int(self._cupy.cuda.runtime.getDevice())
        key = device, cell, dtype, options, width
        found = self._programs.get(key)
        if found is None:
            with self._lock:
                found = self._programs.get(key)
                if found is None:
                    found = self._programs[key] = self._make(*key)
        return found

    def _make(self, device: int, cell: str, dtype: str, options: bool, width: int) -> Any:
        table = self._table(device)
        pointers: dict[str, int] = {}
        names = dtype, f"{cell} in {dtype}"
        for name, made in zip(names, programs_of(cell, dtype, options, width), strict=True):
            functions = self._load(device, made, name)
            pointers |= {kernel: int(function.ptr) for kernel, function in functions.items()}
        return _rnncore.CudaProgram(table, pointers, width)

    def _table(self, device: int) -> int:
        """Return the core's table of functions; CuPy has loaded cuBLAS by then, from wherever."""
        if device not in self._tables:
            with self._reported("cuBLAS, which CuPy loads,"):
                self._cupy.cuda.device.get_cublas_handle()
            self._tables[device] = _rnncore.cuda_device()
        return self._tables[device]

    def _load(self, device: int, made: Program, what: str) -> dict[str, Any]:
        key = device, made.text
        if key not in self._functions:
            with self._reported(f"compiling CUDA kernels for {what}"):
                module = self._cupy.RawModule(code=made.text, options=sources.compile_options())
                self._functions[key] = {
                    kernel: module.get_function(name).kernel for kernel, name in made.names.items()
                }
        return self._functions[key]

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        """Raise what goes wrong inside a ``with`` block as a ``DeviceError``."""
        try:
            yield
        except (ImportError, OSError, RuntimeError, self._cupy.cuda.compiler.CompileException) as e:
            missing = isinstance(e, ImportError) or any(word in str(e) for word in NOT_FOUND)
            advice = (
                f"\nWithout a CUDA toolkit, its libraries come by: {INSTALL}" if missing else ""
            )
            raise DeviceError(f"device 'cuda': {what} failed: {e}{advice}") from e


def _import_cupy() -> ModuleType:
    """Return CuPy, with a GPU that it can use."""
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise DeviceError(f"device 'cuda': CuPy does not load: {error}") from error
        raise DeviceError(
            f"device 'cuda': expected CuPy {OLDEST} or newer, which is not installed: {INSTALL}"
        ) from error
    except ImportError as error:
        raise DeviceError(f"device 'cuda': CuPy does not load: {error}") from error
    if int(cupy.__version__.split(".")[0]) < OLDEST:
        raise DeviceError(
            f"device 'cuda': expected CuPy {OLDEST} or newer, got {cupy.__version__}: {INSTALL}"
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except RuntimeError as error:
        raise DeviceError(
            f"device 'cuda': CuPy {cupy.__version__} finds no GPU that it can use: {error}"
        ) from error
    if not count:
        raise DeviceError(f"device 'cuda': CuPy {cupy.__version__} finds no GPU")
    return cupy  # type: ignore[no-any-return]
