"""Hold the backends and say which one layers use.

``cpu`` is the C++ core and what everyone runs. ``reference`` computes the same in plain NumPy;
tests switch to it with :func:`use`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from rnncore.backends.interface import Backend

_NAMES = ("cpu", "reference")

_chosen = "cpu"
_active: Backend | None = None


def get_backend(name: str) -> Backend:
    """Return a backend by its name."""
    if name not in _NAMES:
        raise ValueError(f"name: expected one of {_NAMES}, got {name!r}")
    return cast(Backend, importlib.import_module(f"rnncore.backends.{name}"))


def current() -> Backend:
    """Return the backend that calls made now run on."""
    global _active
    if _active is None:
        _active = get_backend(_chosen)
    return _active


@contextmanager
def use(name: str) -> Iterator[Backend]:
    """Run everything inside a ``with`` block on another backend."""
    global _active, _chosen
    before = _chosen, _active
    _chosen, _active = name, get_backend(name)
    try:
        yield _active
    finally:
        _chosen, _active = before
