"""Let threadpoolctl see the engine's threads, and limit them with those of other libraries.

Where threadpoolctl was imported before rnncore it knows already; otherwise :func:`register` tells
it.
"""

from __future__ import annotations

import sys
from typing import Any

from rnncore import threads
from rnncore._version import __version__


def register() -> None:
    """Tell threadpoolctl of this engine, once.

    From then on ``threadpool_info()`` lists it with ``user_api="rnncore"``, and
    ``threadpool_limits`` limits calls of the whole process; ``rnncore.threads(n)`` in a thread
    still goes before that.

    Raises
    ------
    ModuleNotFoundError
        If threadpoolctl is missing.

    Examples
    --------
    >>> from threadpoolctl import threadpool_limits
    >>> import rnncore as rc
    >>> from rnncore import threadpool
    >>> threadpool.register()
    >>> with threadpool_limits(1):
    ...     rc.get_num_threads()
    1
    """
    import threadpoolctl

    if not any(known.internal_api == "rnncore" for known in threadpoolctl._ALL_CONTROLLERS):
        threads.get_num_threads()  # the first number comes from the environment, not after a limit
        threadpoolctl.register(_controller(threadpoolctl.LibController))


def register_if_loaded() -> None:
    """Tell threadpoolctl of this engine where the process has it."""
    if "threadpoolctl" in sys.modules:
        register()


def _controller(base: type[Any]) -> type[Any]:
    class RnncoreController(base):  # type: ignore[misc]
        """Read and set the process-wide number of threads."""

        user_api = internal_api = "rnncore"
        filename_prefixes = ("_rnncore",)
        check_symbols = ("rnncore_get_num_threads",)

        def get_version(self) -> str:
            """Return rnncore's version."""
            return __version__

        def get_num_threads(self) -> int:
            """Return the number of threads of calls in this process."""
            return int(self.dynlib.rnncore_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            """Set it."""
            self.dynlib.rnncore_set_num_threads(int(num_threads))

    return RnncoreController
