"""Hold the backends and say which one layers of a device use.

``cpu`` is the C++ core and what everyone runs on the CPU, ``cuda`` runs on GPUs. ``reference``
computes the same in plain NumPy; tests switch to it with :func:`use`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from rnncore.backends.interface import Backend

_NAMES = ("cpu", "cuda", "reference")

running: dict[str, Backend] = {}
"""What runs in the place of a backend, under its name: itself, from its first use on."""


def get_backend(name: str) -> Backend:
    """Return a backend by its name."""
    if name not in _NAMES:
        raise ValueError(f"name: expected one of {_NAMES}, got {name!r}")
    module = f"rnncore.backends.{name}"
    try:
        return cast(Backend, importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise NotImplementedError(f"device: {name!r} is not in this version of rnncore") from None


def current(name: str = "cpu") -> Backend:
    """Return the backend that calls made now run on where a device asks for `name`."""
    backend = running.get(name)
    if backend is None:
        backend = running[name] = get_backend(name)
    return backend


@contextmanager
def use(backend: str | Backend, instead_of: str = "cpu") -> Iterator[Backend]:
    """Run everything inside a ``with`` block on another backend."""
    before = running.get(instead_of)
    chosen = running[instead_of] = get_backend(backend) if isinstance(backend, str) else backend
    try:
        yield chosen
    finally:
        running.pop(instead_of)
        if before is not None:
            running[instead_of] = before
