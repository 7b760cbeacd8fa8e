"""Pack the weights that an operator is given, or find them packed.

Weights are packed at every forward call: a version counter sees most changes to a tensor but not
those through ``.data`` or NumPy, and stale weights would be wrong numbers. A backward call finds
what its forward call packed, by the memory of its tape.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

import torch

from rnncore.cells import CellSpec


class Packer(Protocol):
    """Bring weights into the form that a device's kernels read."""

    @property
    def name(self) -> str:
        """Where what is packed may be used."""

    def pack(self, spec: CellSpec, params: Sequence[Any], num_threads: int) -> Any:
        """Pack the memory of weights."""


_of_tapes: dict[int, Any] = {}  # by the address of the tape's memory, for as long as that lives
_lock = Lock()
_held_addresses: Counter[int] = Counter()
_held: dict[tuple[Any, ...], Any] = {}


@contextmanager
def hold(module: torch.nn.Module) -> Iterator[None]:
    """Promise, for a ``with`` block, that parameters do not change: weights are packed once.

    Worth it for many short calls, such as a loop over a cell. Changes made by torch's own
    operations are noticed nevertheless; those through ``.data`` or NumPy are not.

    Parameters
    ----------
    module : torch.nn.Module
        Whose recurrent modules are meant, those inside it too.

    Examples
    --------
    >>> import torch
    >>> import rnncore.torch
    >>> cell = rnncore.torch.GRUCell(3, 4)
    >>> h = torch.zeros(2, 4)
    >>> with rnncore.torch.hold(cell):
    ...     for x_t in torch.ones(10, 2, 3):
    ...         h = cell(x_t, h)
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    params = list(module.parameters())  # which keeps them, and so their addresses
    addresses = [p.data_ptr() for p in params]
    with _lock:
        _held_addresses.update(addresses)
    try:
        yield
    finally:
        with _lock:
            _held_addresses.subtract(addresses)
            for address in {a for a in addresses if _held_addresses[a] <= 0}:
                del _held_addresses[address]
            for key in [key for key in _held if not _is_held(key)]:
                del _held[key]


def packed_for_forward(
    backend: Packer,
    spec: CellSpec,
    tensors: Sequence[torch.Tensor],
    arrays: Sequence[Any],
    threads: int,
) -> Any:
    """Return weights packed now, or held; `arrays` are the memory of `tensors`."""
    if not _held_addresses:
        return backend.pack(spec, arrays, threads)
    addresses = tuple(t.data_ptr() for t in tensors)
    versions = tuple(None if t.is_inference() else t._version for t in tensors)
    key = (addresses, versions, spec, backend.name)
    packed = _held.get(key)
    if packed is None:
        packed = backend.pack(spec, arrays, threads)
        with _lock:
            if _is_held(key):
                for older in [other for other in _held if other[0] == addresses]:
                    del _held[older]
                _held[key] = packed
    return packed


def remember(memory: Any, address: int, packed: Any) -> None:
    """Let the backward call of a tape find the weights: its `memory`, which starts at `address`."""
    _of_tapes[address] = packed
    weakref.finalize(memory, _of_tapes.pop, address, None).atexit = False


def packed_for_backward(
    backend: Packer, spec: CellSpec, arrays: Sequence[Any], address: int, threads: int
) -> Any:
    """Return the weights of a tape's forward call; packed anew where its memory was copied."""
    found = _of_tapes.get(address)
    return backend.pack(spec, arrays, threads) if found is None else found


def _is_held(key: tuple[Any, ...]) -> bool:
    return all(_held_addresses[address] > 0 for address in key[0])
