"""Say which devices the operators run on, and what runs them there."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from rnncore.torch import cpu, cuda

KERNELS: dict[str, ModuleType] = {"cpu": cpu, "cuda": cuda}
"""By a device's type: a module with ``forward``, ``backward``, ``tape_width`` and ``DTYPES``.

This is the one place where another device comes in. Its module takes torch's current stream and
memory from torch, and lays its tape out as ``(T, N, width)`` of a width known before the call.
"""


def kernels_of(tensor: Tensor) -> ModuleType:
    """Return what runs where a tensor is; of shapes alone (``meta``), what the CPU would do."""
    kind = tensor.device.type
    return KERNELS["cpu" if kind == "meta" else kind]
