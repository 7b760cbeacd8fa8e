"""Hold named parameters and their gradients, as layers, cells and whatever joins them do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Self
from weakref import WeakSet

import numpy as np

from rnncore import devices
from rnncore.checks import Array
from rnncore.devices import HOST, Device
from rnncore.initializers import undrawn
from rnncore.layers import options
from rnncore.layers.listening import GradientListener
from rnncore.sequences import Tape


class Movable:
    """Move what is held between devices: bring all of it first, which may fail, then settle."""

    def to(self, device: str) -> Self:
        """Move parameters, gradients, and what else is held, to a device.

        That is a carried state, vectors that are not trained, and all parts; what is tied stays
        tied. Older tapes become foreign, and ``backward`` needs a new ``forward``.

        Parameters
        ----------
        device : {"cpu", "cuda", "cuda:0", ...}
            ``"cuda"`` is the GPU that is current in CuPy.

        Returns
        -------
        self
            Either moved as a whole or, after an error, as it was.

        Raises
        ------
        DeviceError
            If the device is not there.
        NotImplementedError
            If a layer has a dtype that is not on that device.
        """
        target = devices.get(options.device(device))
        self._settle(target, self._brought(target))
        return self

    def _brought(self, device: Device) -> Any:
        """Return what is held, as it will lie on another device; nothing changes yet."""
        raise NotImplementedError

    def _settle(self, device: Device, brought: Any) -> None:
        """Hold what :meth:`_brought` returned from now on. It does not fail."""
        raise NotImplementedError


class Parametrised(Movable):
    """Hold parameters by name, and gradients under the same names once they are asked for."""

    def __init__(self, params: dict[str, Array], device: Device = HOST) -> None:
        self._device = device
        self._params = params
        self._params_view = MappingProxyType(params)
        self._grads: dict[str, Array] | None = None
        self._owner = object()  # what this layer's tapes bear; a new one makes old tapes foreign
        self._listener: GradientListener | None = None
        self._open_tapes: WeakSet[Tape] = WeakSet()  # kept while somebody listens

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name. The mapping is read-only, its arrays are not.

        What is written into an array is seen by the next call.
        """
        return self._params_view

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients by the names of the parameters; ``backward`` adds into them."""
        return MappingProxyType(self._own_grads())

    @property
    def device(self) -> str:
        """Where its arrays are: ``"cpu"``, ``"cuda:0"`` ..."""
        return self._device.name

    @property
    def num_parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(array.size for array in self._params.values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        with self._device.entered():
            for array in (self._grads or {}).values():
                array.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        with self._device.entered():
            return {name: array.copy() for name, array in self._params.items()}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Copy values into the parameters, all of them or, after an error, none.

        Parameters
        ----------
        state_dict : mapping of str to array
            One entry for every parameter, on any device. A dtype that holds less is widened, never
            narrowed.

        Raises
        ------
        ValueError
            If entries are missing, unexpected or misshapen: all are named.
        TypeError
            If nothing is wrong but dtypes.
        """
        with self._device.entered():
            for name, value in checked_entries(self._params, state_dict).items():
                self._params[name][...] = value
        self._params_changed()

    def _brought(self, device: Device) -> Any:
        grads = self._grads
        return _all_brought(device, self._params), grads and _all_brought(device, grads)

    def _settle(self, device: Device, brought: Any) -> None:
        params, self._grads = brought
        self._params.update(params)
        self._device = device
        self._owner = object()

    def _own_grads(self) -> dict[str, Array]:
        if self._grads is None:
            zeros = self._device.zeros
            items = self._params.items()
            self._grads = {name: zeros(array.shape, array.dtype) for name, array in items}
        return self._grads

    def _grads_so_far(self) -> dict[str, Array] | None:
        """Return the gradients unless nobody has asked for them yet."""
        return self._grads

    def _tellers(self) -> Iterator[Any]:
        """Yield what tells of gradients of its own: this layer, or the members it is made of."""
        yield self

    def _open(self, tape: Tape) -> None:
        """Take note of a tape whose gradient is still to come."""
        if self._listener is not None:
            self._open_tapes.add(tape)

    def _listener_of_last(self, tape: Tape, retain: bool) -> GradientListener | None:
        """Return whom to tell of a tape's gradient: nobody while another is still to come."""
        if self._listener is None or retain:
            return None
        others = [other for other in self._open_tapes if other is not tape and not other.spent]
        return None if others else self._listener

    def _params_changed(self) -> None:
        """Forget what was made of the parameters' old values."""

    def _config(self) -> dict[str, Any]:
        """Return what builds an equal object: its class under ``type``, and its arguments."""
        raise NotImplementedError

    def _memory(self) -> Any:
        """Return what it holds beyond configuration, parameters and gradients."""
        return None

    def _remember(self, memory: Any) -> None:
        """Take back what :meth:`_memory` returned."""

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**{name: value for name, value in config.items() if name != "type"})

    def __reduce__(self) -> tuple[Any, ...]:
        contents = _downloaded((self._params, self._grads_so_far(), self._memory()))
        return rebuild, (type(self), self._config(), *contents)


def rebuild(
    kind: type[Parametrised],
    config: Mapping[str, Any],
    params: Mapping[str, Array],
    grads: Mapping[str, Array] | None,
    memory: Any,
) -> Parametrised:
    """Build a layer from what pickling kept of it, through its constructor and its checks."""
    with undrawn():
        layer = kind._from_config(config)
    layer.load_state_dict(params)
    with layer._device.entered():
        if grads is not None:
            own = layer._own_grads()
            for name, value in checked_entries(own, grads).items():
                own[name][...] = value
        layer._remember(memory)
    return layer


def _all_brought(device: Device, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: device.brought(name, array) for name, array in arrays.items()}


def _downloaded(held: Any) -> Any:
    """Return what a layer holds, however it nests, with its arrays in host memory."""
    if isinstance(held, Mapping):
        return {key: _downloaded(part) for key, part in held.items()}
    if isinstance(held, tuple | list):
        return type(held)(_downloaded(part) for part in held)
    return devices.of(held).download(held) if hasattr(held, "dtype") else held


def checked_entries(params: Mapping[str, Array], given: Mapping[str, object]) -> dict[str, Array]:
    """Return the entries as arrays, or raise one error about all that is wrong with them."""
    if not isinstance(given, Mapping):
        raise TypeError(f"state_dict: expected a mapping, got {type(given).__name__}")
    values: dict[str, Array] = {}
    misshapen, mistyped = [], []
    for name, param in params.items():
        if name not in given:
            continue
        value = devices.of(param).brought(f"state_dict[{name!r}]", given[name])
        if value.dtype.kind != "f" or not np.can_cast(value.dtype, param.dtype, "safe"):
            mistyped.append(f"{name}: expected dtype {param.dtype}, got {value.dtype}")
        if value.shape != param.shape:
            misshapen.append(f"{name}: expected {param.shape}, got {value.shape}")
        with devices.of(param).entered():
            values[name] = value.copy()  # given may hold our own arrays under other names
    missing = [name for name in params if name not in given]
    unexpected = [str(name) for name in given if name not in params]
    wrong = ["missing " + ", ".join(missing)] if missing else []
    wrong += ["unexpected " + ", ".join(unexpected)] if unexpected else []
    wrong += misshapen
    if wrong:
        raise ValueError("state_dict: " + "; ".join(wrong + mistyped))
    if mistyped:
        raise TypeError("state_dict: " + "; ".join(mistyped))
    return values
