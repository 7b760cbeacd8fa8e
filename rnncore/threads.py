"""Decide how many threads a call may use.

In order: the number given by :func:`threads` in the calling thread, the number given to
:func:`set_num_threads`, the environment variables ``RNNCORE_NUM_THREADS`` and ``OMP_NUM_THREADS``,
and the whole CPUs that this process may use (its affinity and its cgroup's quota, rounded down).
Results do not depend on the number.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnncore import _rnncore, checks

MAX_THREADS = 256
"""Larger requests are lowered to this."""

_VARIABLES = ("RNNCORE_NUM_THREADS", "OMP_NUM_THREADS")
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc/self/cgroup")

_process_wide: int | None = None
_source = "default"


class _Override(threading.local):
    value: int | None = None


_override = _Override()


def set_num_threads(n: int) -> None:
    """Set the number of threads of later calls in this process.

    Parameters
    ----------
    n : int
        At least 1; numbers above ``MAX_THREADS`` (256) are lowered to it.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1.
    """
    global _process_wide, _source
    _process_wide, _source = _checked(n), "set_num_threads"
    _rnncore.set_num_threads(_process_wide)


def get_num_threads() -> int:
    """Return the number of threads that a call made here and now may use."""
    global _process_wide
    if _override.value is not None:
        return _override.value
    if _process_wide is None:
        _process_wide = _from_environment() or default_num_threads()
        _rnncore.set_num_threads(_process_wide)
    return _rnncore.get_num_threads()  # which threadpoolctl may have changed


def source() -> str:
    """Return where the number comes from: a call, an environment variable or the default."""
    get_num_threads()
    return _source if _override.value is None else "threads"


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Use another number of threads inside a ``with`` block, in the calling thread only.

    Examples
    --------
    >>> import rnncore as rc
    >>> with rc.threads(1):
    ...     rc.get_num_threads()
    1
    """
    before = _override.value
    _override.value = _checked(n)
    try:
        yield
    finally:
        _override.value = before


def default_num_threads() -> int:
    """Return the whole CPUs that this process may use, at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = _cgroup_cpus()
    if quota is not None:
        cpus = min(cpus, int(quota))
    return min(max(cpus, 1), MAX_THREADS)


def _checked(n: int) -> int:
    return min(checks.integer("n", n, minimum=1), MAX_THREADS)


def _from_environment() -> int | None:
    global _source
    for variable in _VARIABLES:
        text = os.environ.get(variable, "").strip()
        if not text:
            continue
        first = text.split(",")[0].strip()  # OMP_NUM_THREADS may list one number a nesting level
        if first.isascii() and first.isdigit() and int(first) > 0:
            _source = variable
            return min(int(first), MAX_THREADS)
        warnings.warn(
            f"{variable}: expected a positive integer, got {text!r}; ignored",
            RuntimeWarning,
            stacklevel=2,
        )
    return None


def _cgroup_cpus() -> float | None:
    """Return the smallest CPU quota among this process's cgroup and its parents."""
    try:
        lines = _PROC.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, read = _CGROUP, _quota_v2
        elif "cpu" in controllers.split(","):
            root, read = _CGROUP / "cpu", _quota_v1
        else:
            continue
        folder = root / path.lstrip("/")
        for place in (folder, *folder.parents):
            quotas.append(read(place))
            if place == root:
                break
    known = [quota for quota in quotas if quota is not None]
    return min(known, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
