"""Say what is asked of an engine that sums arrays over processes."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rnncore.checks import Array, real


class Pending(Protocol):
    """A sum that is under way."""

    def wait(self) -> None:
        """Return once the array holds the sum.

        Raises
        ------
        TimeoutError
            If the communicator has a limit and it has passed.
        """


class Communicator(Protocol):
    """An engine and the processes that it joins, the same on all of them.

    All processes call the same methods in the same order with arrays of equal shape and dtype:
    float32, float64, int64 or uint8, C-contiguous. They must not be touched before ``wait``.
    """

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def empty(self, count: int, dtype: Any) -> Array:
        """Return a new array ``(count,)`` in the memory that the engine reads."""

    def all_reduce(self, array: Array) -> Pending:
        """Start to replace an array by its sum over all processes."""

    def broadcast(self, array: Array) -> None:
        """Replace an array by that of rank 0, and return when it is done."""


class SingleProcess:
    """A world of one: the same program, started without a launcher.

    Examples
    --------
    >>> import numpy as np
    >>> alone, array = SingleProcess(), np.ones(3)
    >>> alone.all_reduce(array).wait()
    >>> array
    array([1., 1., 1.])
    """

    rank = 0
    size = 1

    def empty(self, count: int, dtype: Any) -> Array:
        """Return a new array ``(count,)``."""
        return np.empty(count, dtype)

    def all_reduce(self, array: Array) -> Pending:
        """Leave an array as it is: it is the sum."""
        return self

    def broadcast(self, array: Array) -> None:
        """Leave an array as it is."""

    def wait(self) -> None:
        """Return at once."""


def checked_timeout(timeout: float | None) -> float | None:
    """Return a limit in seconds above zero, or None for none."""
    if timeout is None:
        return None
    seconds = real("timeout", timeout)
    if seconds <= 0:
        raise ValueError(f"timeout: expected more than 0 seconds, got {seconds}")
    return seconds


def timed_out(engine: str, timeout: float) -> TimeoutError:
    """Return the error for a sum that did not come."""
    return TimeoutError(
        f"{engine}: expected all processes within {timeout:g} seconds, got no sum; "
        "one of them has failed, or fell behind"
    )
