"""Keep what kernels found wrong until a later call, or ``check``, raises it.

Work on a GPU goes on after a call has returned, so what fails there cannot be raised by that call.
A backend hands over what it learns with :func:`post`, or has itself asked with :func:`watch`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from rnncore.errors import DeviceError

_posted: deque[str] = deque()
_watched: list[Callable[[], str | None]] = []
_lock = threading.Lock()


def post(message: str) -> None:
    """Leave a message for the next call or ``check``; any thread may."""
    _posted.append(message)


def watch(poll: Callable[[], str | None]) -> None:
    """Have `poll` asked before every call and by ``check``.

    Parameters
    ----------
    poll : callable
        Returns what went wrong since it was last asked, or None. It must be quick, must not wait
        for the device and may be called from any thread, though never from two at a time.
    """
    with _lock:
        if poll not in _watched:
            _watched.append(poll)


def unwatch(poll: Callable[[], str | None]) -> None:
    """Ask `poll` no more."""
    with _lock:
        if poll in _watched:
            _watched.remove(poll)


def raise_pending() -> None:
    """Raise all that was left behind as one error, and forget it.

    Raises
    ------
    DeviceError
        If an earlier call failed on its device.
    """
    if not _posted and not _watched:
        return
    messages: list[str] = []
    with _lock:
        while _posted:
            messages.append(_posted.popleft())
        messages += [message for poll in _watched if (message := poll()) is not None]
    if messages:
        raise DeviceError("an earlier call failed on its device: " + "; ".join(messages))
