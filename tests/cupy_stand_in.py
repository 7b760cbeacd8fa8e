"""The few words of CuPy and of its NCCL that NCCLCommunicator says, in host memory.

Streams and events do nothing but note who waited for whom. A sum is made when the event behind it
is waited for, so that a caller who reads too early is found out.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class Place:
    def __init__(self, array: np.ndarray) -> None:
        self.ptr = array.__array_interface__["data"][0]


class ndarray(np.ndarray):
    """A NumPy array that says where it lies as CuPy's do."""

    @property
    def data(self) -> Place:  # type: ignore[override]
        return Place(self)

    def get(self) -> np.ndarray:
        return np.array(self)


class Event:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work
        self.done = False

    def complete(self) -> None:
        while self._work:
            self._work.pop(0)()
        self.done = True


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.non_blocking = non_blocking
        self.asked: list[Callable[[], None]] = []
        self.waited_for: list[Event] = []
        self.ptr = id(self)
        STREAMS[self.ptr] = self

    def record(self) -> Event:
        return Event(self.asked)

    def wait_event(self, event: Event) -> None:
        self.waited_for.append(event)
        event.complete()


STREAMS: dict[int, Stream] = {}
TYPES = {7: "float32", 8: "float64", 4: "int64", 1: "uint8"}  # as nccl.h numbers them


def at(place: int, count: int, datatype: int) -> np.ndarray:
    """Return the array at an address."""
    dtype = np.dtype(TYPES[datatype])
    raw = (np.ctypeslib.ctypes.c_char * (count * dtype.itemsize)).from_address(place)
    return np.frombuffer(raw, dtype)


class NcclCommunicator:
    """Sums with one other process, whose arrays are ours times `other`; none if it is 0."""

    other = 0

    def __init__(self, size: int, identifier: bytes, rank: int) -> None:
        assert type(identifier) is bytes
        assert len(identifier) == 128
        self.identifier, self.aborted = identifier, False

    def allReduce(
        self, send: int, receive: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        assert (send, op) == (receive, 0)

        def work() -> None:
            array = at(receive, count, datatype)
            array += array * array.dtype.type(self.other)

        STREAMS[stream].asked.append(work)

    def broadcast(
        self, send: int, receive: int, count: int, datatype: int, root: int, stream: int
    ) -> None:
        assert (send, root) == (receive, 0)
        STREAMS[stream].asked.append(lambda: None)

    def check_async_error(self) -> None:
        assert not self.aborted

    def abort(self) -> None:
        self.aborted = True


def install(monkeypatch: Any) -> types.ModuleType:
    """Put the stand-in where ``import cupy`` finds it."""
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    nccl = types.ModuleType("cupy.cuda.nccl")
    current = Stream()
    nccl.NCCL_FLOAT32, nccl.NCCL_FLOAT64, nccl.NCCL_INT64, nccl.NCCL_UINT8 = 7, 8, 4, 1
    nccl.NCCL_SUM, nccl.available = 0, True
    nccl.NcclCommunicator = NcclCommunicator
    nccl.get_unique_id = lambda: bytes(range(100, 228))
    cuda.Stream, cuda.get_current_stream, cuda.nccl = Stream, lambda: current, nccl
    cupy.cuda, cupy.ndarray = cuda, ndarray
    cupy.empty = lambda count, dtype: np.full(count, 99, dtype).view(ndarray)
    for name, module in (("cupy", cupy), ("cupy.cuda", cuda), ("cupy.cuda.nccl", nccl)):
        monkeypatch.setitem(sys.modules, name, module)
    return cupy
