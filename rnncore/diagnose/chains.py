"""A layer taken apart into single recurrences: one layer in one direction each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rnncore.cells import DIRECTION_SUFFIXES
from rnncore.initializers import undrawn
from rnncore.layers import Stack
from rnncore.layers.bidirectional import Bidirectional
from rnncore.layers.recurrent import Recurrent

_RANDOM = {"dropout": 0.0, "recurrent_dropout": 0.0, "variational": False}


def recurrences_of(layer: Any) -> list[Recurrent]:
    """Return the RNNs, LSTMs and GRUs that a layer is, or that a stack runs one after another.

    Raises
    ------
    TypeError
        If there is another kind of layer among them.
    """
    members = layer.layers if isinstance(layer, Stack) else [layer]
    for member in members:
        if not isinstance(member, Recurrent):
            extra = "; bidirectional=True has it" if isinstance(member, Bidirectional) else ""
            raise TypeError(
                f"layer: expected an RNN, LSTM or GRU, or a Stack of them, "
                f"got {type(member).__name__}{extra}"
            )
    return list(members)


def names_of(layer: Recurrent) -> Iterator[tuple[int, str]]:
    """Yield each place of a recurrence: its layer's number, and the end of its parameters' names.

    They come as in states: by layer, forward direction first.
    """
    for number in range(layer.num_layers):
        for suffix in DIRECTION_SUFFIXES[: layer.spec.num_directions]:
            yield number, f"_l{number}{suffix}"


def chains_of(layer: Any) -> list[list[Recurrent]]:
    """Return copies of a layer's recurrences, one list a layer with one entry a direction.

    Each runs forwards in time, with ``batch_first`` and dropout off: the reverse one is to be given
    a sequence turned around. Weights are copied.
    """
    chains: list[list[Recurrent]] = []
    for member in recurrences_of(layer):
        single = _RANDOM | {"num_layers": 1, "bidirectional": False}
        plain = {"batch_first": False, "stateful": False}
        for number, end in names_of(member):
            features = member.spec.input_size if number == 0 else member.spec.features
            given = member._arguments | single | plain | {"input_size": features}
            with undrawn():
                copy = Recurrent(member.spec.cell, given)
            copy.load_state_dict(
                {
                    f"{name.removesuffix(end)}_l0": value
                    for name, value in member.params.items()
                    if name.endswith(end)
                }
            )
            if end.endswith("_reverse"):
                chains[-1].append(copy)
            else:
                chains.append([copy])
    return chains
