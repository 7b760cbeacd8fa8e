"""The base of everything in :mod:`rnncore.nn`: parameters, gradients and the parts inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from rnncore.checks import Array
from rnncore.layers import options
from rnncore.layers.parameters import Parametrised, checked_entries


class Module:
    """Hold parameters, their gradients and the modules or layers assigned as attributes.

    A module made of parts assigns them as attributes and writes its own ``forward`` and
    ``backward``; their parameters appear under ``attribute.name``.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of the parameters and of the arrays that go through the module.

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

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = options.dtype(dtype)
        self._own_params: dict[str, Array] = {}
        self._own_grads: dict[str, Array] = {}
        self._kept: Any = None

    def _add_parameter(self, name: str, value: Array) -> None:
        """Take an array as a parameter of this module, with a gradient of zeros."""
        self._own_params[name] = np.ascontiguousarray(value, dtype=self.dtype)
        self._own_grads[name] = np.zeros_like(self._own_params[name])

    def _take_kept(self) -> Any:
        """Return what ``forward`` kept and forget it."""
        if self._kept is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: expected a forward() before it, got none "
                "(or its result was used already)"
            )
        kept, self._kept = self._kept, None
        return kept

    def parts(self) -> Iterator[tuple[str, Module | Parametrised]]:
        """Yield the name and value of every attribute that is itself a module or a layer."""
        for name, value in vars(self).items():
            if isinstance(value, Module | Parametrised):
                yield name, value

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name, those of the parts included; the arrays may be written into."""
        return self._merged("params", self._own_params)

    @property
    def grads(self) -> Mapping[str, Array]:
        """Gradients under the names of ``params``; ``backward`` adds into them."""
        return self._merged("grads", self._own_grads)

    def _merged(self, kind: str, own: dict[str, Array]) -> Mapping[str, Array]:
        merged = dict(own)
        for prefix, part in self.parts():
            for name, value in getattr(part, kind).items():
                merged[f"{prefix}.{name}"] = value
        return MappingProxyType(merged)

    @property
    def num_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(value.size for value in self.params.values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for value in self.grads.values():
            value[...] = 0

    def reset_state(self) -> None:
        """Make every stateful recurrent layer inside start from zero again."""
        for _, part in self.parts():
            resettable: Any = part
            if isinstance(part, Module) or getattr(part, "stateful", False):
                resettable.reset_state()

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of every parameter by name."""
        return {name: value.copy() for name, value in self.params.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set every parameter from arrays of the same names and shapes.

        Parameters
        ----------
        state : mapping of str to array
            What :meth:`state_dict` returned. A dtype that holds less is widened, never narrowed.

        Raises
        ------
        ValueError
            If entries are missing, unexpected or misshapen: all are named, and nothing changes.
        TypeError
            If nothing is wrong but dtypes.
        """
        params = self.params
        for name, value in checked_entries(params, state).items():
            params[name][...] = value

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what ``forward`` kept: a copy or a pickle is the module, not the call."""
        return {**vars(self), "_kept": None}

    def _options(self) -> str:
        """Return the constructor's arguments as ``repr`` shows them."""
        return f"dtype={self.dtype!r}"

    def __repr__(self) -> str:
        parts = list(self.parts())
        if not parts:
            return f"{type(self).__name__}({self._options()})"
        lines = [f"  {name}: " + repr(part).replace("\n", "\n  ") for name, part in parts]
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


Trainable: TypeAlias = Module | Parametrised
"""Modules and recurrent layers: parameters, gradients and how to save them."""
