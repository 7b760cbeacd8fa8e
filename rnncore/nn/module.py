"""The base of everything in :mod:`rnncore.nn`: parameters, gradients and the parts inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from rnncore import devices
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.layers import options
from rnncore.layers.listening import GradientListener, telling
from rnncore.layers.parameters import Movable, Parametrised, checked_entries
from rnncore.nn import moves
from rnncore.nn.tying import Entry, Shared, untied


class Module(Movable):
    """Hold parameters, their gradients and the modules or layers assigned as attributes.

    A module made of parts assigns them, or lists of them, as attributes and writes its own
    ``forward`` and ``backward``; their parameters appear under ``attribute.name``, those of a list
    under ``attribute.0.name``. What several parts share appears once, where it is met first.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of the parameters and of the arrays that go through the module.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are: NumPy arrays, or CuPy arrays. Of a module made of parts, what the parts are
        made with matters; :meth:`to` moves all of it.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> class Scorer(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(3, 4, seed=0)
    ...         self.output = nn.Linear(4, 1, bias=False, seed=1)
    >>> sorted(Scorer().params)
    ['hidden.bias', 'hidden.weight', 'output.weight']
    """

    _of_a_call: ClassVar[tuple[str, ...]] = ("_kept",)
    """Attributes that a call leaves behind; copies and pickles go without."""

    def __init__(self, dtype: str = "float32", device: str = "cpu") -> None:
        place = options.device(device)
        self.dtype = moves.dtype(dtype, place)
        self._numpy_dtype = np.dtype(self.dtype)
        self._device = devices.get(place)
        self._own_params: dict[str, Array] = {}
        self._own_grads: dict[str, Array] = {}
        self._constants: dict[str, Array] = {}
        self._shared: dict[str, Shared] = {}
        self._kept: Any = None

    _listener: GradientListener | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Have a subclass's ``backward`` tell a listener when it has succeeded."""
        super().__init_subclass__(**options)
        if "backward" in vars(cls):
            cls.backward = telling(vars(cls)["backward"])  # type: ignore[attr-defined]

    @property
    def features(self) -> tuple[int | None, int | None] | None:
        """Sizes of the last axis that go in and come out, None for any.

        A module that has them maps every step of a sequence by itself, and may be a member of
        ``rc.Stack``. One that looks across steps has None in their place.
        """
        return None

    def _add_parameter(self, name: str, value: Array) -> None:
        """Take an array as a parameter of this module, with a gradient of zeros."""
        held = self._device.upload(np.ascontiguousarray(value, dtype=self.dtype))
        self._own_params[name] = held
        self._own_grads[name] = self._device.zeros(held.shape, held.dtype)

    @property
    def device(self) -> str:
        """Where its parameters are: ``"cpu"``, ``"cuda:0"`` ..."""
        return self._location().name

    def _location(self) -> Device:
        """Return the device of the first parameters met, or its own where there are none."""
        for _, holder in self._holders():
            if isinstance(holder, Parametrised) or holder._own_params:
                return holder._device
        return self._device

    def _brought(self, device: Device) -> Any:
        return moves.brought((holder for _, holder in self._holders()), device)

    def _settle(self, device: Device, brought: Any) -> None:
        moves.settle(device, brought)

    def _settle_own(self, device: Device, own: tuple[dict[str, Array], ...]) -> None:
        """Hold one's own arrays on another device, and nothing of the last call."""
        self._own_params, self._own_grads, self._constants = own
        self._device = device
        vars(self).update(dict.fromkeys(self._of_a_call))

    def _take_kept(self) -> Any:
        """Return what ``forward`` kept and forget it."""
        if self._kept is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: expected a forward() before it, got none "
                "(or its result was used already)"
            )
        kept, self._kept = self._kept, None
        return kept

    def _release(self) -> list[Any]:
        """Return what the last ``forward`` left in this module and its parts, and forget it."""
        kept, self._kept = [self._kept], None
        for _, part in self.parts():
            if isinstance(part, Module):
                kept.append(part._release())
            else:
                kept.append(getattr(part, "_tape", None))
        return kept

    def _restore(self, kept: list[Any]) -> None:
        """Put back what :meth:`_release` returned."""
        self._kept = kept[0]
        for (_, part), value in zip(self.parts(), kept[1:], strict=True):
            if isinstance(part, Module):
                part._restore(value)
            else:
                part._tape = value  # type: ignore[attr-defined]

    def parts(self) -> Iterator[tuple[str, Module | Parametrised]]:
        """Yield names and values of the attributes that are, or list, modules and layers."""
        for name, value in vars(self).items():
            if isinstance(value, Module | Parametrised):
                yield name, value
            elif isinstance(value, list | tuple):
                for place, part in enumerate(value):
                    if isinstance(part, Module | Parametrised):
                        yield f"{name}.{place}", part

    def _holders(self, prefix: str = "") -> Iterator[tuple[str, Module | Parametrised]]:
        """Yield this module and all modules and layers inside it, with their prefixes."""
        yield prefix, self
        for name, part in self.parts():
            if isinstance(part, Module):
                yield from part._holders(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}.", part

    def _entries(self) -> tuple[list[Entry], dict[str, str]]:
        """Return every parameter once, and other names by the name that stands for them."""
        entries: dict[int, Entry] = {}
        others: list[tuple[str, int]] = []
        for prefix, holder in self._holders():
            own = holder._own_params if isinstance(holder, Module) else holder.params
            for local, value in own.items():
                entry = Entry(prefix + local, holder, local, value)
                if entries.setdefault(id(value), entry) is not entry:
                    others.append((entry.name, id(value)))
            if isinstance(holder, Module):
                others += [(prefix + k, id(shared.value)) for k, shared in holder._shared.items()]
        tied = {name: entries[key].name for name, key in others if key in entries}
        return list(entries.values()), tied

    def _tellers(self) -> Iterator[Any]:
        """Yield what tells of gradients of its own: this module, and what is inside."""
        yield self
        for _, part in self.parts():
            yield from part._tellers()

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name, those of the parts included; the arrays may be written into."""
        return MappingProxyType({entry.name: entry.value for entry in self._entries()[0]})

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients under the names of ``params``; ``backward`` adds into them."""
        return MappingProxyType(
            {
                name: (holder._own_grads if isinstance(holder, Module) else holder.grads)[local]
                for name, holder, local, _ in self._entries()[0]
            }
        )

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that would stand for a parameter once more, each with the one that does."""
        return MappingProxyType(self._entries()[1])

    def _all_constants(self) -> dict[str, Array]:
        """Return what is fixed but part of the model, by name."""
        return {
            prefix + name: value
            for prefix, holder in self._holders()
            if isinstance(holder, Module)
            for name, value in holder._constants.items()
        }

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(value.size for value in self.params.values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        with self._location().entered():
            for value in self.grads.values():
                value[...] = 0

    def reset_state(self) -> None:
        """Make every stateful recurrent layer inside start from zero again."""
        for _, part in self.parts():
            resettable: Any = part
            if isinstance(part, Module) or getattr(part, "stateful", False):
                resettable.reset_state()

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter by name, and of vectors that are not trained."""
        with self._location().entered():
            held = {**self.params, **self._all_constants()}
            return {name: value.copy() for name, value in held.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter from arrays of the same names and shapes.

        Parameters
        ----------
        state : mapping of str to array
            What :meth:`state_dict` returned, on any device. A dtype that holds less is widened,
            never narrowed. A tied parameter may come under any of its names, or all of them with
            equal values, as PyTorch writes it. Vectors that are not trained may be left out.

        Raises
        ------
        ValueError
            If entries are missing, unexpected, misshapen, or tied and different: all are named, and
            nothing changes.
        TypeError
            If nothing is wrong but dtypes.
        """
        entries, tied = self._entries()
        targets = {entry.name: entry.value for entry in entries}
        if isinstance(state, Mapping):
            targets |= {k: value for k, value in self._all_constants().items() if k in state}
            state = untied(state, tied)
        with self._location().entered():
            for name, value in checked_entries(targets, state).items():
                targets[name][...] = value
        for _, holder in self._holders():
            if isinstance(holder, Parametrised):
                holder._params_changed()

    def _touched(self) -> list[Array]:
        """Return every gradient that ``backward`` adds into, those of others' parameters too."""
        shared = [
            kept.grad
            for _, holder in self._holders()
            if isinstance(holder, Module)
            for kept in holder._shared.values()
        ]
        return [*self.grads.values(), *shared]

    def _config(self) -> dict[str, Any]:
        """Return what builds an equal module: its class under ``type``, and its arguments."""
        raise NotImplementedError(
            f"{type(self).__name__} has no description for files; train.save_checkpoint writes the "
            "parameters of any model"
        )

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**{name: value for name, value in config.items() if name != "type"})

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        """Return the configuration of a snapshot for inference."""
        return {**self._config(), "dtype": dtype}

    def _frozen_values(self) -> Mapping[str, Array]:
        """Return the parameters of a snapshot."""
        return self.params

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what ``forward`` kept: a copy or a pickle is the module, not the call."""
        state = {**vars(self), **dict.fromkeys(self._of_a_call)}
        state.pop("_listener", None)
        return moves.on_host(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`__getstate__` returned, on the device where it was."""
        vars(self).update(moves.on_device(state))

    def _options(self) -> str:
        """Return the constructor's arguments as ``repr`` shows them."""
        return f"dtype={self.dtype!r}"

    def __repr__(self) -> str:
        parts = list(self.parts())
        if not parts:
            return f"{type(self).__name__}({self._options()})"
        lines = [f"  {name}: " + repr(part).replace("\n", "\n  ") for name, part in parts]
        if type(self)._options is not Module._options:
            lines.insert(0, f"  {self._options()}")
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


Trainable: TypeAlias = Module | Parametrised
"""Modules and recurrent layers: parameters, gradients and how to save them."""
