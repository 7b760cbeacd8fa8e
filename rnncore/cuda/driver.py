"""Hold what runs kernels: CuPy, or what tests put in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol


class Driver(Protocol):
    """Give memory, a stream and compiled kernels."""

    def empty(self, nbytes: int) -> Any:
        """Return an array of bytes on the device."""

    def address(self, array: Any) -> int:
        """Return where an array lies on the device, 0 for None."""

    def stream(self) -> int:
        """Return the address of the caller's current stream."""

    def beyond_lengths(self) -> int:
        """Return where a kernel marks lengths beyond 0 to T; ``errors`` watches that word."""

    def on(self, ordinal: int) -> AbstractContextManager[Any]:
        """Make a device the current one, as CUDA counts them, inside a ``with`` block."""

    def program(self, cell: str, dtype: str, options: bool, width: int) -> Any:
        """Return the kernels of a cell, compiled once; arguments as of ``program.programs_of``."""


_current: Driver | None = None


def current() -> Driver:
    """Return the driver in use; the first call makes one of CuPy."""
    global _current
    if _current is None:
        from rnncore.cuda.cupy_driver import CupyDriver

        _current = CupyDriver()
    return _current


@contextmanager
def use(driver: Driver) -> Iterator[Driver]:
    """Run everything inside a ``with`` block on another driver."""
    global _current
    before, _current = _current, driver
    try:
        yield driver
    finally:
        _current = before
