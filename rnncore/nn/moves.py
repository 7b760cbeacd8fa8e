"""Move what modules hold between devices, as a whole or, after an error, not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rnncore import devices
from rnncore.checks import Array
from rnncore.devices import HOST, Device
from rnncore.layers import options
from rnncore.layers.parameters import Parametrised

if TYPE_CHECKING:
    from rnncore.nn.module import Module

HELD = ("_own_params", "_own_grads", "_constants")
"""The attributes of a module that hold its arrays by name."""


def brought(holders: Iterable[Module | Parametrised], device: Device) -> list[tuple[Any, Any]]:
    """Return modules and layers, each once, with what they hold as it will lie on a device."""

    def bring(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: device.brought(name, array) for name, array in arrays.items()}

    found: dict[int, tuple[Any, Any]] = {}
    for holder in holders:
        if id(holder) in found:
            continue
        if isinstance(holder, Parametrised):
            found[id(holder)] = holder, holder._brought(device)
        else:
            found[id(holder)] = holder, tuple(bring(getattr(holder, name)) for name in HELD)
    return list(found.values())


def settle(device: Device, held: list[tuple[Any, Any]]) -> None:
    """Let modules and layers hold what :func:`brought` returned. It does not fail."""
    for holder, part in held:
        if isinstance(holder, Parametrised):
            holder._settle(device, part)
        elif holder._device is not device:  # a member of a stack may be here already
            holder._settle_own(device, part)


def on_host(state: dict[str, Any]) -> dict[str, Any]:
    """Return a module's attributes with its arrays in host memory, where copies travel."""
    return _held_elsewhere(state, state["_device"].download)


def on_device(state: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes that :func:`on_host` returned with arrays where the module is."""
    return _held_elsewhere(state, state["_device"].upload)


def _held_elsewhere(state: dict[str, Any], move: Callable[[Array], Array]) -> dict[str, Any]:
    if state["_device"] is HOST:
        return state
    return state | {
        kind: {name: move(array) for name, array in state[kind].items()} for kind in HELD
    }


def dtype(value: object, place: str) -> str:
    """Return the name of a dtype that modules may have."""
    name = options.dtype(value, place)
    if name not in devices.DTYPES["cpu"]:
        raise NotImplementedError(
            f"dtype: {name} is for recurrent layers in this version of rnncore; modules are "
            "'float32' or 'float64'"
        )
    return name
