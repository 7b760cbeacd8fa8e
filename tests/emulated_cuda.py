"""The CUDA backend on the emulation: kernels compiled for the CPU, NumPy's memory as a device's."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import stand_in_cupy
from cases import Case, Problem, Results, collect
from emulation.bindings import Emulation
from emulation.build import build
from stand_in_cupy import unwrap

from rnncore import _rnncore
from rnncore.backends import cuda
from rnncore.cuda import driver, errors, program
from rnncore.cuda.beyond_lengths import BeyondLengths
from rnncore.errors import DeviceError
from rnncore.masks import Masks


class EmulatedDriver:
    """Kernels and memory of the emulation.

    Parameters
    ----------
    programs : sequence of Program
        What is compiled at once; without them every program is, when it is first asked for.
    persists : bool
        Whether layers that may run in persistent blocks do.
    """

    def __init__(self, programs: Sequence[program.Program], persists: bool) -> None:
        self.persists = persists
        self._registered: dict[int, int] = {}
        self._libraries: dict[Any, Emulation] = {}
        self._common = self._load(programs) if programs else None
        self._word = np.zeros(1, np.int32)
        self.beyond = BeyondLengths(self._word, self._word.ctypes.data)

    @property
    def emulation(self) -> Emulation:
        """The library of a driver whose programs were all compiled at once."""
        assert self._common is not None
        return self._common

    def _load(self, programs: Sequence[program.Program]) -> Emulation:
        key = tuple(made.text for made in programs)
        if key not in self._libraries:
            library = self._libraries[key] = Emulation(build(key))
            for begin, nbytes in self._registered.items():
                library.register(begin, nbytes)
        return self._libraries[key]

    def empty(self, nbytes: int) -> Any:
        """Return memory that is full of NaN, as the stand-in's always is."""
        return sys.modules["cupy"].empty(nbytes, np.uint8)

    def address(self, array: Any) -> int:
        """Return where an array lies, and let kernels touch the memory that it is part of."""
        if array is None:
            return 0
        whole = part = unwrap(array)
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        begin = whole.ctypes.data
        if whole.nbytes and begin not in self._registered:
            self._registered[begin] = whole.nbytes
            for library in self._libraries.values():
                library.register(begin, whole.nbytes)
            weakref.finalize(whole, self._release, begin)
        return part.ctypes.data

    def _release(self, begin: int) -> None:
        del self._registered[begin]
        for library in self._libraries.values():
            library.unregister(begin)

    def stream(self) -> int:
        return 0

    def beyond_lengths(self) -> int:
        return self.address(self._word)

    def program(self, cell: str, dtype: str, options: bool, width: int) -> Any:
        width = width if self.persists else 0
        parts = program.programs_of(cell, dtype, options, width)
        library = self._common or self._load(parts)
        names = {kernel: name for part in parts for kernel, name in part.names.items()}
        kernels = {kernel: library.kernel(name) for kernel, name in names.items()}
        return _rnncore.CudaProgram(library.device, kernels, width)


def all_programs(dtype: str, persists: bool, width: int = 32) -> list[program.Program]:
    """Return the programs of every cell in one dtype and regime, blocks of one width."""
    made = [program.common_program(dtype)]
    for name, cell in _rnncore.cuda_cells().items():
        for options in [True, False][: 1 + cell.has_plain]:
            if not persists:
                made.append(program.cell_program(name, dtype, options))
            elif cell.phases == 1:
                made.append(program.persistent_program(name, dtype, options, width))
    return made


@lru_cache(maxsize=8)
def driver_of(dtype: str, persists: bool = False) -> EmulatedDriver:
    """Return a driver of every cell's kernels in one dtype and regime."""
    return EmulatedDriver(all_programs(dtype, persists), persists)


@lru_cache(maxsize=2)
def layers_driver(persists: bool) -> EmulatedDriver:
    """Return a driver that compiles what layers of any dtype ask for, when they do."""
    return EmulatedDriver([], persists)


@contextmanager
def emulated_layers(persists: bool = False) -> Iterator[EmulatedDriver]:
    """Make ``device="cuda"`` run the real backend: CuPy is stood in for, the GPU emulated."""
    device = layers_driver(persists)
    errors.watch(device.beyond)
    try:
        with stand_in_cupy.installed(), driver.use(device):
            yield device
    finally:
        errors.unwatch(device.beyond)
        device.beyond()


class Attempt:
    """One training call on the emulation, and how far it came."""

    def __init__(self, case: Case, persists: bool = False) -> None:
        self.case, self.spec = case, case.spec
        self.device = driver_of(case.dtype, persists)
        self.stage = "none"
        self._grads: list[Any] = []

    def run(self, p: Problem, retain: bool = False, lengths_on_device: bool = False) -> Results:
        """Run forward and backward; return everything that comes out.

        Results start as NaN, so that an entry nobody wrote shows; gradients start at zero.
        """
        case, spec, cupy = self.case, self.spec, sys.modules["cupy"]

        def empty(shape: tuple[int, ...], dtype: Any = spec.state_dtype) -> Any:
            return cupy.empty(shape, dtype)

        def copy(value: np.ndarray | None, dtype: Any = None) -> Any:
            return None if value is None else cupy.asarray(np.array(value, dtype, order="C"))

        real, states = spec.param_dtype, spec.state_shapes(case.N)
        params = [copy(value, real) for value in p.params.values()]
        grads = self._grads = [cupy.zeros(value.shape, real) for value in p.params.values()]
        x, dy, resets = copy(p.x), copy(p.dy), copy(p.resets)
        h0, c0, dhn, dcn = (copy(value, real) for value in (p.h0, p.c0, p.dhn, p.dcn))
        masks = p.masks and Masks(*([copy(mask) for mask in part] for part in p.masks))
        y = empty((case.T, case.N, spec.features), spec.numpy_dtype)
        dx = empty((case.T, case.N, case.D), spec.numpy_dtype)
        hn, dh0 = empty(states[0]), empty(states[0])
        cn, dc0 = (empty(states[1]) if spec.has_cell_state else None for _ in range(2))
        lengths = copy(p.lengths, np.int64) if lengths_on_device else p.lengths
        self.stage = "pack"
        packed = cuda.pack(spec, params, 1)
        self.stage = "forward"
        tape = cuda.forward(packed, x, h0, c0, lengths, resets, y, hn, cn, masks, True, False, 1)
        self.stage = "backward"
        for _ in range(1 + retain):
            for grad in grads:
                grad.fill(0)
            cuda.backward(
                packed, tape, x, y, h0, c0, masks, dy, dhn, dcn, dx, dh0, dc0, grads, retain, 1
            )
        self.stage = "done"
        assert tape.spent is not retain
        host = [None if value is None else value.get() for value in (y, hn, cn, dx, dh0, dc0)]
        return collect(*host, dict(zip(p.params, self.gradients(), strict=True)))

    def gradients(self) -> list[np.ndarray]:
        """Return the gradients of the parameters as they are now."""
        return [grad.get() for grad in self._grads]


def train(
    case: Case,
    p: Problem,
    retain: bool = False,
    lengths_on_device: bool = False,
    persists: bool = False,
) -> Results:
    """Run the backend forward and backward on a problem; return everything that comes out."""
    attempt = Attempt(case, persists)
    with stand_in_cupy.installed(), driver.use(attempt.device):
        return attempt.run(p, retain, lengths_on_device)


@contextmanager
def failing(case: Case, call: int) -> Iterator[Attempt]:
    """Lend an attempt whose n-th call to the device fails, and catch the error that follows."""
    attempt = Attempt(case)
    with stand_in_cupy.installed(), driver.use(attempt.device):
        attempt.device.emulation.fail_after(call)
        try:
            yield attempt
        except DeviceError:
            assert attempt.stage != "done"
        finally:
            attempt.device.emulation.fail_after(0)
