"""Hold the layers: what users make, call and train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rnncore.layers.base import Layer
from rnncore.layers.bidirectional import Bidirectional
from rnncore.layers.cells import GRUCell, LSTMCell, RNNCell
from rnncore.layers.gru import GRU
from rnncore.layers.lstm import LSTM
from rnncore.layers.parameters import Parametrised
from rnncore.layers.pointwise import registered
from rnncore.layers.recurrent import Recurrent
from rnncore.layers.rnn import RNN
from rnncore.layers.stack import Stack

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "GRUCell",
    "LSTMCell",
    "Layer",
    "RNNCell",
    "Stack",
    "from_config",
]

_KINDS: dict[str, type[Parametrised]] = {
    kind.__name__: kind
    for kind in (RNN, LSTM, GRU, Bidirectional, Stack, RNNCell, LSTMCell, GRUCell)
}


def from_config(config: Mapping[str, Any], device: str | None = None) -> Any:
    """Build a layer, a cell or a stack's module from its ``_config()``, or on another device.

    Users' own layers of one recurrence are found as well, once their classes are defined.

    Raises
    ------
    ValueError
        If ``config["type"]`` is no layer's name.
    """
    if device is not None:
        config = placed(config, device)
    own: dict[str, Any] = {kind.__name__: kind for kind in Recurrent.__subclasses__()}
    kinds = own | dict(registered()) | _KINDS
    name = config.get("type")
    if name not in kinds:
        raise ValueError(f"type: expected one of {', '.join(kinds)}, got {name!r}")
    return kinds[name]._from_config(config)


def placed(config: Any, device: str) -> Any:
    """Return a configuration, however it nests, with another device in it."""
    if isinstance(config, list):
        return [placed(part, device) for part in config]
    if not isinstance(config, Mapping):
        return config
    changed = {key: placed(part, device) for key, part in config.items()}
    return changed | {"device": device} if "device" in config else changed
