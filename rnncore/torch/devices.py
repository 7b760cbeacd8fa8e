"""Say which devices the operators run on, and what runs them there."""

from __future__ import annotations

from types import ModuleType

from rnncore.torch import cpu

KERNELS: dict[str, ModuleType] = {"cpu": cpu}
"""By a device's type: a module with ``forward`` and ``backward`` as those of ``cpu``.

This is the one place where another device comes in. Its module takes torch's current stream and
memory from torch, and lays its tape out as ``(T, N, width)`` of a width known before the call.
"""
