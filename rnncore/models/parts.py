"""What the models share: how they take a layer, draw seeds and run their parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import devices
from rnncore.checks import Array
from rnncore.layers import Stack
from rnncore.layers.base import Layer
from rnncore.layers.bidirectional import Bidirectional


def taken_layer(name: str, layer: Any, stateful: bool = False) -> Layer:
    """Return a layer if models can run it: time first, and stateless unless `stateful` is allowed.

    Raises
    ------
    TypeError, ValueError
        If it is no layer, or one of another kind.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"{name}: expected a recurrent layer, got {type(layer).__name__}")
    if layer.batch_first:
        raise ValueError(f"{name}: expected time first, got batch_first=True")
    if layer.stateful and not stateful:
        raise ValueError(f"{name}: expected a layer that is not stateful, got {layer!r}")
    return layer


def seeds(seed: int | None, count: int) -> list[int]:
    """Return seeds that follow from one, or fresh ones for None."""
    return [int(word) for word in np.random.SeedSequence(seed).generate_state(count)]


def apply(part: Any, x: Array, train: bool) -> Array:
    """Run a module in training or in inference."""
    result: Array = part.forward(x) if train else part(x)
    return result


def as_array(value: Any) -> Array:
    """Return integers, of a list too, as an array where they lie: on the host or on a GPU."""
    device = devices.of_foreign(value)
    return np.asarray(value) if device is None else device.any_array("lengths", value)


def reverse_features(layer: Layer) -> int:
    """Return how many of a layer's last features come from a reverse direction.

    Raises
    ------
    ValueError
        If directions are merged so that no feature is of one of them alone.
    """
    last: Any = layer
    while isinstance(last, Stack):
        last = last.layers[-1]
    if isinstance(last, Bidirectional) and last.merge != "concat":
        raise ValueError(f"layer: expected merge='concat' for its last state, got {last!r}")
    return layer.output_size // 2 if sees_what_follows(last) else 0


def sees_what_follows(layer: Any) -> bool:
    """Return whether any part of a layer has a reverse direction."""
    if isinstance(layer, Stack):
        return any(map(sees_what_follows, layer.layers))
    return isinstance(layer, Bidirectional) or bool(getattr(layer, "bidirectional", False))
