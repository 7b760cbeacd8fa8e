"""Let tests that speak NumPy run layers on a GPU: arrays go up for a call and come down again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import stand_in_cupy
from stand_in_backend import OnStandIn

import rnncore as rc
from rnncore import backends

LAYERS = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
JOINED = ("Bidirectional", "Stack")


def up(value: Any) -> Any:
    """Copy arrays to the GPU, however they nest."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fbV":
        return sys.modules["cupy"].asarray(np.asarray(value))
    if isinstance(value, tuple | list) and any(isinstance(part, np.ndarray) for part in value):
        return type(value)(map(up, value))
    return value


def down(value: Any) -> Any:
    """Copy arrays to the host, however they nest."""
    if isinstance(value, OnHost):
        return value
    if type(value).__name__ == "ndarray" and not isinstance(value, np.ndarray):
        return value.get()
    if isinstance(value, tuple | list):
        return type(value)(map(down, value))
    return value


class WrittenBack(np.ndarray):
    """A host copy of an array on the GPU; what is assigned to its items goes there too."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        origin = getattr(self, "origin", None)
        if origin is not None:
            origin.set(np.ascontiguousarray(self))


class Copies(Mapping):
    """A layer's parameters or gradients as host copies."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        copied = self._arrays[name].get().view(WrittenBack)
        copied.origin = self._arrays[name]
        return copied

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class OnHost:
    """A layer on the GPU that is called as one on the host is."""

    def __init__(self, layer: Any) -> None:
        self.__dict__["layer"] = layer

    params = property(lambda self: Copies(self.layer.params))
    grads = property(lambda self: Copies(self.layer.grads))
    state = property(lambda self: down(self.layer.state))
    layers = property(lambda self: [OnHost(layer) for layer in self.layer.layers])

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._lowered(self.layer, given, named)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["layer"], name)
        if name in ("forward", "record", "backward", "set_state", "state_dict", "load_state_dict"):
            return lambda *given, **named: self._lowered(found, given, named)
        if name == "freeze":
            return lambda *given: OnHost(found(*given))
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.layer, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnHost, (self.layer,)

    def to(self, device: str) -> OnHost:
        self.layer.to("cuda" if device == "cpu" else device)
        return self

    def __repr__(self) -> str:
        return repr(self.layer).replace(", device='cuda:0'", "")

    def _lowered(self, function: Callable, given: Any, named: Any) -> Any:
        made = function(*map(up, given), **{name: up(value) for name, value in named.items()})
        if isinstance(made, Mapping):
            return {name: down(array) for name, array in made.items()}
        results = down(made)
        if (out := named.get("out")) is not None:
            out[...] = results[0]
            return out, *results[1:]
        return results


def bare(value: Any) -> Any:
    """Return a layer itself, or a list of layers themselves."""
    if isinstance(value, tuple | list):
        return type(value)(map(bare, value))
    return value.layer if isinstance(value, OnHost) else value


def lifted(make: Callable) -> Callable:
    """Return a constructor that makes its layer on the GPU."""

    def run(*given: Any, **named: Any) -> OnHost:
        return OnHost(make(*given, **{"device": "cuda", **named}))

    return run


@contextmanager
def stand_in(host: str = "cpu") -> Iterator[Any]:
    """Make ``device="cuda"`` work on a stand-in for CuPy, computed by a backend of the host."""
    with stand_in_cupy.installed() as cupy, backends.use(OnStandIn(host), "cuda"):
        yield cupy


@contextmanager
def lifted_layers() -> Iterator[None]:
    """Make every layer that a test asks for one on the GPU, called as one on the host."""
    with ExitStack() as stack:
        for name in LAYERS:
            stack.enter_context(mock.patch.object(rc, name, lifted(getattr(rc, name))))
        for name in JOINED:
            make = getattr(rc, name)
            stack.enter_context(
                mock.patch.object(
                    rc,
                    name,
                    lambda given, *more, make=make, **named: OnHost(
                        make(bare(given), *more, **named)
                    ),
                )
            )
        save, load = rc.save, rc.load
        stack.enter_context(mock.patch.object(rc, "save", lambda path, x: save(path, bare(x))))
        stack.enter_context(
            mock.patch.object(rc, "load", lambda path: OnHost(load(path, device="cuda")))
        )
        yield
