"""Sum over GPUs, through NCCL as CuPy binds it."""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np

from rnncore.checks import Array
from rnncore.distributed.communicator import Communicator, Pending, checked_timeout, timed_out

_NAMES = {
    "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
    "int64": "NCCL_INT64",
    "uint8": "NCCL_UINT8",
}
_IDENTIFIER = 128  # bytes, by NCCL's header


class NCCLCommunicator:
    """Sum CuPy arrays, one process for each GPU, on a CUDA stream of its own.

    A sum starts when all that was asked of the caller's stream until then is done, and the caller's
    stream goes on while it runs; ``wait`` has the stream wait, not the processor.

    Parameters
    ----------
    communicator : cupy.cuda.nccl.NcclCommunicator
        Of this process; :meth:`join` makes one.
    rank, size : int
        Which process this is, and how many there are.
    timeout : float, optional
        Seconds until ``wait`` aborts NCCL with a ``TimeoutError``. With it the processor waits too.

    Raises
    ------
    ModuleNotFoundError
        If CuPy is missing, or finds no NCCL.
    """

    def __init__(
        self, communicator: Any, rank: int, size: int, *, timeout: float | None = None
    ) -> None:
        self._cupy, self._nccl = _cupy_and_nccl()
        self._world = communicator
        self._rank, self._size = rank, size
        self._timeout = checked_timeout(timeout)
        self._stream = self._cupy.cuda.Stream(non_blocking=True)

    @classmethod
    def join(cls, others: Communicator, *, timeout: float | None = None) -> Self:
        """Return one that joins the processes of another communicator, each on its current GPU.

        Parameters
        ----------
        others : Communicator
            Of host memory, as MPI's; it carries NCCL's identifier from rank 0 to the others.
        timeout : float, optional
            As the class takes it.
        """
        _, nccl = _cupy_and_nccl()
        identifier = np.zeros(_IDENTIFIER, np.uint8)
        if others.rank == 0:
            identifier[:] = np.frombuffer(nccl.get_unique_id(), np.uint8)
        others.broadcast(identifier)
        world = nccl.NcclCommunicator(others.size, identifier.tobytes(), others.rank)
        return cls(world, others.rank, others.size, timeout=timeout)

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return self._rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._size

    def empty(self, count: int, dtype: Any) -> Array:
        """Return a new CuPy array ``(count,)``."""
        array: Array = self._cupy.empty(count, dtype)
        return array

    def all_reduce(self, array: Array) -> Pending:
        """Start to replace an array by its sum over all processes."""
        self._begin()
        place = self._place(array)
        self._world.allReduce(
            place, place, array.size, self._type(array), self._nccl.NCCL_SUM, self._stream.ptr
        )
        return _Sum(self, self._stream.record())

    def broadcast(self, array: Array) -> None:
        """Replace an array by that of rank 0."""
        self._begin()
        place, kind = self._place(array), self._type(array)
        self._world.broadcast(place, place, array.size, kind, 0, self._stream.ptr)
        _Sum(self, self._stream.record()).wait()

    def _begin(self) -> None:
        """Let the stream of the sums wait for what the caller's has been asked."""
        self._stream.wait_event(self._cupy.cuda.get_current_stream().record())

    def _place(self, array: Any) -> int:
        if not isinstance(array, self._cupy.ndarray):
            raise TypeError(f"array: expected a CuPy array, got a {type(array).__name__}")
        return int(array.data.ptr)

    def _type(self, array: Array) -> int:
        return int(getattr(self._nccl, _NAMES[array.dtype.name]))

    def _wait_for(self, event: Any) -> None:
        if self._timeout is not None:
            until = time.monotonic() + self._timeout
            while not event.done:
                if time.monotonic() > until:
                    self._world.abort()
                    raise timed_out("NCCL", self._timeout)
                time.sleep(1e-4)
        self._world.check_async_error()
        self._cupy.cuda.get_current_stream().wait_event(event)


def _cupy_and_nccl() -> tuple[Any, Any]:
    import cupy
    from cupy.cuda import nccl

    if not getattr(nccl, "available", True):
        raise ModuleNotFoundError(
            "cupy.cuda.nccl: expected the NCCL library beside CuPy, got none; "
            "pip install nvidia-nccl-cu12, or -cu13, as CuPy's CUDA is"
        )
    return cupy, nccl


class _Sum:
    def __init__(self, communicator: NCCLCommunicator, event: Any) -> None:
        self._communicator = communicator
        self._event = event

    def wait(self) -> None:
        """Have the caller's stream wait until the array holds the sum."""
        self._communicator._wait_for(self._event)
