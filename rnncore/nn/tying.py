"""One parameter under several names: a weight that modules share, or a part in two places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnncore.checks import Array
from rnncore.devices import HOST

if TYPE_CHECKING:
    from rnncore.layers.parameters import Parametrised
    from rnncore.nn.module import Module


class Shared:
    """A parameter of another module that this one works with as well.

    Parameters
    ----------
    owner : Module
        Whose parameter it is, and in whose ``params`` it stays.
    name : str
        Its name there.
    """

    def __init__(self, owner: Module, name: str) -> None:
        self.owner, self.name = owner, name

    @property
    def value(self) -> Array:
        """The owner's array."""
        return self.owner._own_params[self.name]

    @property
    def grad(self) -> Array:
        """The owner's gradient, which every user adds into."""
        return self.owner._own_grads[self.name]


class Entry(NamedTuple):
    """One parameter in a tree of modules and layers."""

    name: str
    holder: Module | Parametrised
    local: str
    value: Array


def untied(state: Mapping[str, Any], tied: Mapping[str, str]) -> dict[str, Any]:
    """Return the entries with one name for each parameter, if all its names agree."""
    given, different = dict(state), []
    for other, name in tied.items():
        if other not in given:
            continue
        value = given.pop(other)
        first = HOST.brought(f"state_dict[{name!r}]", given.setdefault(name, value))
        if not _same(first, HOST.brought(f"state_dict[{other!r}]", value)):
            different.append(f"{other} is tied to {name}, whose values are others")
    if different:
        raise ValueError("state_dict: " + "; ".join(different))
    return given


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")
