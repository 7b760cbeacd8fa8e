"""Loads a library that build.py made: memory, seeds, kernels and the device table."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from emulation.build import ROOT

TYPES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}


class Product(ctypes.Structure):
    """CudaProduct of csrc/core/cuda_device.h."""

    _fields_ = (
        ("factors", ctypes.c_int32),
        ("result", ctypes.c_int32),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("c", ctypes.c_void_p),
        ("a_stride", ctypes.c_int64),
        ("b_stride", ctypes.c_int64),
        ("c_stride", ctypes.c_int64),
        ("a_transposed", ctypes.c_int32),
        ("b_transposed", ctypes.c_int32),
        ("beta", ctypes.c_double),
        ("allow_tf32", ctypes.c_int32),
    )


class Launch(ctypes.Structure):
    """CudaLaunch of csrc/core/cuda_device.h."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("blocks_x", ctypes.c_int64),
        ("blocks_y", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("shared_bytes", ctypes.c_int64),
        ("arguments", ctypes.c_void_p),
        ("arguments_bytes", ctypes.c_size_t),
    )


POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t


def function(*arguments: type) -> type:
    return ctypes.CFUNCTYPE(ctypes.c_int, POINTER, POINTER, *arguments)


class Table(ctypes.Structure):
    """CudaDevice of csrc/core/cuda_device.h."""

    _fields_ = (
        ("context", POINTER),
        ("launch", function(ctypes.POINTER(Launch))),
        ("multiply", function(ctypes.POINTER(Product))),
        ("clear", function(POINTER, SIZE)),
        ("copy", function(POINTER, POINTER, SIZE)),
        ("upload", function(POINTER, POINTER, SIZE)),
        ("message", ctypes.CFUNCTYPE(ctypes.c_char_p, POINTER, ctypes.c_int)),
    )


class DeviceFailure(Exception):
    """What the device table's message said of a status other than 0."""


class Emulation:
    """A library of kernels, and the device that runs them.

    Parameters
    ----------
    path : pathlib.Path
        What `build.build` returned.

    Attributes
    ----------
    device : int
        The address of the `CudaDevice` table.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.rnncore_emulated_device.restype = ctypes.POINTER(Table)
        library.rnncore_emulated_kernel.restype = POINTER
        library.rnncore_emulated_kernel.argtypes = [ctypes.c_char_p]
        library.rnncore_emulated_register.argtypes = [POINTER, SIZE]
        library.rnncore_emulated_unregister.argtypes = [POINTER]
        library.rnncore_emulated_seed.argtypes = [ctypes.c_uint64]
        library.rnncore_emulated_fail_after.argtypes = [ctypes.c_int64]
        self.path = path
        self.chains: dict[str, str] = {}
        self.compiled = library
        self.table = library.rnncore_emulated_device().contents
        self.device = ctypes.addressof(self.table)

    def seed(self, seed: int) -> None:
        """Set what the order of threads follows from."""
        self.compiled.rnncore_emulated_seed(seed)

    def fail_after(self, calls: int) -> None:
        """Let the table's n-th call from now on fail; 0: none."""
        self.compiled.rnncore_emulated_fail_after(calls)

    def register(self, address: int, size: int) -> None:
        """Make host memory device memory."""
        if self.compiled.rnncore_emulated_register(address, size):
            raise ValueError(f"{size} bytes at {address:#x} overlap registered memory")

    def unregister(self, address: int) -> None:
        """Make it host memory again."""
        if self.compiled.rnncore_emulated_unregister(address):
            raise ValueError(f"{address:#x} is not where registered memory starts")

    @contextmanager
    def memory(self, *arrays: np.ndarray) -> Iterator[None]:
        """Register arrays, each of them contiguous, for a while."""
        registered = []
        try:
            for array in arrays:
                assert array.flags.c_contiguous
                self.register(array.ctypes.data, array.nbytes)
                registered.append(array)
            yield
        finally:
            for array in registered:
                self.unregister(array.ctypes.data)

    def kernel(self, name: str) -> int:
        """Find a kernel's pointer, as `CudaLaunch` takes it."""
        pointer = self.compiled.rnncore_emulated_kernel(name.encode())
        if not pointer:
            raise KeyError(f"no kernel, or more than one, is named {name}")
        return pointer

    def check(self, status: int) -> None:
        """Raise what the table says of a status."""
        if status:
            raise DeviceFailure(self.explain(self.table.message(None, status).decode()))

    def explain(self, report: str) -> str:
        """Put callers in the place of a report's {addresses}, where debug symbols tell them."""
        return re.sub(r"(\S+) \{(\d+)\}", lambda found: self.callers(found[1], found[2]), report)

    def callers(self, site: str, address: str) -> str:
        """Name a place in a kernel's text, and from where the code there was called."""
        if address not in self.chains:
            # A call's return address may belong to the next line already.
            command = ["addr2line", "-i", "-e", str(self.path), hex(int(address) - 1)]
            said = ""
            if shutil.which("addr2line"):
                said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            lines = [str(Path(line.partition(" ")[0]).resolve()) for line in said.splitlines()]
            lines = [line.removeprefix(f"{ROOT}/") for line in lines]
            outer = lines[lines.index(site) + 1 :] if site in lines else []
            chain = [site, *(line for line in outer if not line.startswith("build/"))]
            self.chains[address] = " < ".join(chain)
        return self.chains[address]

    def launch(
        self,
        name: str,
        arguments: ctypes.Structure,
        *,
        blocks: tuple[int, int] = (1, 1),
        threads: int,
        shared: int = 0,
    ) -> None:
        """Run a kernel; what it does wrong is raised as `DeviceFailure`."""
        size = ctypes.sizeof(arguments)
        launch = Launch(
            self.kernel(name), *blocks, threads, shared, ctypes.addressof(arguments), size
        )
        self.check(self.table.launch(None, None, launch))

    def multiply(self, product: Product) -> None:
        """Run a product; what is wrong with it is raised as `DeviceFailure`."""
        self.check(self.table.multiply(None, None, product))
