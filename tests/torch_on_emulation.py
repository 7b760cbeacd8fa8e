"""The CUDA kernels of rnncore.torch on tensors of the CPU, by the emulation."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from emulated_cuda import EmulatedDriver, all_programs

from rnncore.cuda import driver
from rnncore.torch import cuda
from rnncore.torch.devices import KERNELS


class TorchMemory:
    """Lets kernels touch the memory of tensors for as long as that lives."""

    def __init__(self, device: EmulatedDriver) -> None:
        self.emulation = device.emulation
        self.registered: dict[int, weakref.finalize] = {}

    def address(self, tensor: Any) -> int:
        """Return where a tensor is, and register all of the storage that it is part of."""
        if tensor is None:
            return 0
        storage = tensor.untyped_storage()
        begin = storage.data_ptr()
        if storage.nbytes() and begin not in self.registered:
            self.emulation.register(begin, storage.nbytes())
            self.registered[begin] = weakref.finalize(storage, self.release, begin)
        return tensor.data_ptr()

    def release(self, begin: int) -> None:
        del self.registered[begin]
        self.emulation.unregister(begin)

    def release_all(self) -> None:
        for finalizer in list(self.registered.values()):
            finalizer()


@lru_cache(maxsize=8)
def driver_of(dtype: str, persists: bool = False) -> EmulatedDriver:
    """Return a driver of every cell's kernels in one dtype and regime."""
    return EmulatedDriver(all_programs(dtype, persists), persists)


@contextmanager
def running(dtype: str, persists: bool = False) -> Iterator[TorchMemory]:
    """Let operators on tensors of the CPU run the CUDA kernels inside a ``with`` block."""
    device = driver_of(dtype, persists)
    memory = TorchMemory(device)

    @contextmanager
    def on(_: torch.device) -> Iterator[int]:
        yield device.stream()

    before = cuda._on, cuda._address
    cuda._on, cuda._address = on, memory.address
    KERNELS["cpu"] = cuda
    try:
        with driver.use(device):
            yield memory
    finally:
        from rnncore.torch import cpu

        KERNELS["cpu"] = cpu
        cuda._on, cuda._address = before
        memory.release_all()
