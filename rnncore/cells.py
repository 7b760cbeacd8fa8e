"""Describe the cells: their gates, their parameters and the sizes of everything they touch.

This is the one table of gate orders and parameter names in Python. Sizes are named as everywhere
in the house: ``T`` steps, ``N`` rows, ``D`` inputs, ``H`` units, ``L`` layers, ``K`` directions,
``P`` outputs of one direction, ``G`` gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

GATES: dict[str, tuple[str, ...]] = {
    "rnn": ("h",),
    "lstm": ("i", "f", "g", "o"),
    "gru": ("r", "z", "n"),
}
"""Gates of each cell in the order of their blocks of ``H`` rows in the weights (PyTorch's)."""

DIRECTION_SUFFIXES: tuple[str, str] = ("", "_reverse")


@dataclass(frozen=True)
class CellSpec:
    """Say which recurrence a layer runs.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
        The equations of one step.
    input_size, hidden_size, num_layers, num_directions : int
        ``D``, ``H``, ``L`` and ``K`` (1 or 2).
    proj_size : int
        Size of the LSTM's projected output, 0 for none.
    bias : bool
        Whether the gates have ``bias_ih`` and ``bias_hh``.
    nonlinearity : {"tanh", "relu"}
        Activation of the ``rnn`` cell; the other cells ignore it.
    dtype : {"float32", "float64"}
        Type of every array.

    Examples
    --------
    >>> spec = CellSpec("gru", input_size=3, hidden_size=4)
    >>> spec.param_shapes()["weight_ih_l0"]
    (12, 3)
    """

    cell: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    num_directions: int = 1
    proj_size: int = 0
    bias: bool = True
    nonlinearity: str = "tanh"
    dtype: str = "float32"

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates in the order of their rows."""
        return GATES[self.cell]

    @property
    def num_gates(self) -> int:
        """``G``."""
        return len(GATES[self.cell])

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Type of every array, as NumPy has it."""
        return np.dtype(self.dtype)

    @cached_property
    def has_cell_state(self) -> bool:
        """Whether the state is a pair ``(h, c)`` rather than ``h``."""
        return self.cell == "lstm"

    @cached_property
    def output_size(self) -> int:
        """``P``: features that one direction puts out."""
        return self.proj_size or self.hidden_size

    @cached_property
    def features(self) -> int:
        """``K*P``: features of ``y``."""
        return self.num_directions * self.output_size

    @cached_property
    def state_rows(self) -> int:
        """``L*K``: leading size of a state."""
        return self.num_layers * self.num_directions

    def layer_input_size(self, layer: int) -> int:
        """Return the number of features that enter a layer: ``D``, then ``K*P``."""
        return self.input_size if layer == 0 else self.features

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by name.

        The order is the one that kernels take them in: by layer, by direction, and then
        ``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` (with ``bias``), ``weight_hr``
        (with ``proj_size``).

        Returns
        -------
        dict of str to tuple of int
        """
        rows = self.num_gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for suffix in DIRECTION_SUFFIXES[: self.num_directions]:
                end = f"l{layer}{suffix}"
                shapes[f"weight_ih_{end}"] = (rows, self.layer_input_size(layer))
                shapes[f"weight_hh_{end}"] = (rows, self.output_size)
                if self.bias:
                    shapes[f"bias_ih_{end}"] = (rows,)
                    shapes[f"bias_hh_{end}"] = (rows,)
                if self.proj_size:
                    shapes[f"weight_hr_{end}"] = (self.output_size, self.hidden_size)
        return shapes

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the parts of a state: ``(h,)``, or ``(h, c)`` for an LSTM."""
        rows = self.state_rows
        if self.has_cell_state:
            return (rows, batch, self.output_size), (rows, batch, self.hidden_size)
        return ((rows, batch, self.output_size),)
