"""Turn Ctrl-C into a request that a loop answers where it is safe to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """While entered, take the first Ctrl-C as a request; a second one interrupts at once.

    Python delivers signals to the main thread alone; entered elsewhere this does nothing.

    Attributes
    ----------
    requested : bool
        Whether Ctrl-C was pressed.

    Examples
    --------
    >>> with StopRequest() as stop:
    ...     stop.requested
    False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True  # and no word: the handler may run in the middle of a write

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._answer)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
