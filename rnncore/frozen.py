"""Run a snapshot of a layer for inference only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rnncore import checks
from rnncore.backends import current, running
from rnncore.backends.interface import CoreStream
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.initializers import undrawn
from rnncore.layers import from_config
from rnncore.layers.base import Layer

_DTYPES = ("float32", "float64", "bfloat16", "int8")


class Frozen:
    """Run a snapshot of a layer: immutable, weights packed once, never stateful.

    Made by ``layer.freeze()``. Calls may come from many threads at once.

    Parameters
    ----------
    layer : Layer
        The snapshot, which the engine keeps to itself.
    weights : {"full", "bfloat16", "int8"}, optional
        How they are packed; see :meth:`Layer.freeze`.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> engine = rc.GRU(3, 4, seed=1).freeze()
    >>> y, h = engine(np.ones((5, 2, 3), np.float32))
    >>> y.shape
    (5, 2, 4)
    """

    def __init__(self, layer: Layer, weights: str = "full") -> None:
        self._layer = layer
        self._weights = weights
        layer._hold_reduced(weights)
        for array in layer.params.values():
            layer._device.protect(array)
        self._hold = ExitStack()
        self._hold.enter_context(layer.hold())
        self._pack()
        self._backend, self._short_calls = current(), layer._short_calls()

    @property
    def params(self) -> Mapping[str, Array]:
        """The weights by name, read-only."""
        return self._layer.params

    @property
    def num_parameters(self) -> int:
        """Number of numbers in the weights."""
        return self._layer.num_parameters

    @property
    def dtype(self) -> str:
        """Type of every array that goes in or comes out."""
        return self._layer.dtype

    @property
    def weight_dtype(self) -> str:
        """How weights are held: the arrays' type, "bfloat16" or "int8"."""
        return self._layer.dtype if self._weights == "full" else self._weights

    @property
    def input_size(self) -> int:
        """``D``: number of inputs."""
        return self._layer.input_size

    @property
    def output_size(self) -> int:
        """Number of features of the output."""
        return self._layer.output_size

    def __call__(
        self,
        x: object,
        state: object = None,
        lengths: object = None,
        resets: object = None,
        out: Array | None = None,
    ) -> tuple[Array, Any]:
        """Run a sequence.

        Parameters
        ----------
        x, state, lengths, resets
            As a layer takes them.
        out : ndarray, optional
            Where to write y: of its exact shape and dtype, writable, apart in memory from the
            inputs. Its values are unspecified after an interrupt.

        Returns
        -------
        y : ndarray
            Output; `out` itself if it was given.
        state : ndarray or pair
            Final state.
        """
        layer, short = self._layer, self._short_calls
        if short and lengths is None and resets is None and running.get("cpu") is self._backend:
            results = short.run(x, state, out)
            if results is not None:
                return results
        inputs = layer._take(x, state, lengths, resets)
        if out is None:
            y, final, _, _ = layer._run(inputs, keep=False)
            given = layer._layout.give(y, inputs.extent)
        else:
            at = layer._device
            lent = {**_lent(at, "x", x), **_lent(at, "state", state)}
            final = self._run_into(out, inputs, lent)
            given = out
        return given, layer._give_state(final, inputs.extent.batched)

    def stream(self, batch: int = 1) -> CoreStream:
        """Return a stream that keeps a state of `batch` rows and goes a step a call.

        Raises
        ------
        ValueError
            If the layer has two directions.
        """
        stream: CoreStream = self._layer._stream(checks.size("batch", batch))
        return stream

    def __repr__(self) -> str:
        reduced = "" if self._weights == "full" else f", {self._weights!r}"
        return f"Frozen({self._layer!r}{reduced})"

    def __deepcopy__(self, memo: object) -> Frozen:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self._layer, self._weights)

    def _pack(self) -> None:
        """Pack now rather than at the first call, which may come from two threads."""
        layer = self._layer
        empty = layer._layout.device.zeros((0, layer.input_size), layer._layout.dtype)
        layer._run(layer._take(empty, None, None, None), keep=False)

    def _run_into(self, out: Array, inputs: Any, lent: dict[str, Array | None]) -> Any:
        layer = self._layer
        place = layer._layout.take_out(out, inputs.extent, layer.output_size, lent)
        if place.strides[-1] == place.itemsize:
            return layer._run(inputs, keep=False, out=place).state
        outcome = layer._run(inputs, keep=False)
        place[...] = outcome.y
        return outcome.state


class StackStream:
    """Step through the streams of a stack's members, one after another."""

    def __init__(self, streams: Sequence[CoreStream]) -> None:
        self._streams = streams

    @property
    def state(self) -> list[Any]:
        """Copies of the members' states."""
        return [stream.state for stream in self._streams]

    @state.setter
    def state(self, value: Sequence[Any]) -> None:
        for stream, part in zip(self._streams, value, strict=True):
            stream.state = part

    def reset(self, rows: object = None) -> None:
        """Set the state of all or some rows to zero."""
        for stream in self._streams:
            stream.reset(rows)

    def step(self, x_t: Array, out: Array | None = None) -> Array:
        """Return the last member's output of one step."""
        for stream in self._streams[:-1]:
            x_t = stream.step(x_t)
        return self._streams[-1].step(x_t, out)


def freeze(layer: Layer, dtype: str | None) -> Frozen:
    """Return a frozen copy of a layer; see ``layer.freeze``."""
    name = layer.dtype if dtype is None else checks.choice("dtype", dtype, _DTYPES)
    if name == "float64" and layer.dtype != "float64":
        raise ValueError(
            f"dtype: expected None, 'float32', 'bfloat16' or 'int8' for a {layer.dtype} layer, "
            "got 'float64'"
        )
    weights = "full" if dtype is None or name not in ("bfloat16", "int8") else name
    if weights not in layer._device.weights:
        raise NotImplementedError(
            f"dtype: {name} weights are not in this version of rnncore on {layer.device}; "
            "expected None or 'float32'"
        )
    arrays = name if weights == "full" else "float32"
    with undrawn():
        copy = from_config(layer._frozen_config(arrays))
    given = layer._frozen_values()
    types = {key: value.dtype for key, value in copy.params.items()}
    copy.load_state_dict(
        {key: value.astype(types.get(key, arrays), copy=False) for key, value in given.items()}
    )
    return Frozen(copy, weights)


def _lent(device: Device, name: str, value: Any) -> dict[str, Array | None]:
    """Return the caller's own arrays, checked already, however a state nests them, by name."""
    if value is None:
        return {}
    if not isinstance(value, tuple | list):
        return {name: device.any_array(name, value)}
    found: dict[str, Array | None] = {}
    for i, part in enumerate(value):
        found |= _lent(device, f"{name}[{i}]", part)
    return found
