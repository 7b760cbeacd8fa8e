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

ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01,),
    "Relu": (),
    "ScaledTanh": (1.0, 1.0),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": (1.0,),
}
"""ONNX' activations: each takes as many of alpha and beta as it has defaults here."""

PLAIN_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "rnn": ("Tanh",),
    "lstm": ("Sigmoid", "Tanh", "Tanh"),
    "gru": ("Sigmoid", "Tanh"),
}
"""What each cell has where none are chosen: for its gates, its candidate and its output.

One that carries a second state c has three, one with gates two, one without gates one.
"""


def carries_c(cell: str) -> bool:
    """Return whether a cell carries a second state c, which its output then has to squash."""
    return len(PLAIN_ACTIVATIONS[cell]) == 3


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy type of a name; bfloat16 is that of `ml_dtypes`."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise ImportError(
            "dtype: bfloat16 arrays are those of ml_dtypes: pip install ml_dtypes"
        ) from error
    dtype: np.dtype[Any] = np.dtype(bfloat16)
    return dtype


@dataclass(frozen=True)
class CellSpec:
    """Say which recurrence a layer runs.

    Parameters
    ----------
    cell : str
        The equations of one step: a key of ``GATES``.
    input_size, hidden_size, num_layers, num_directions : int
        ``D``, ``H``, ``L`` and ``K`` (1 or 2).
    proj_size : int
        Size of the LSTM's projected output, 0 for none.
    bias : bool
        Whether the gates have ``bias_ih`` and ``bias_hh``.
    nonlinearity : {"tanh", "relu"}
        Activation of the ``rnn`` cell; the other cells ignore it.
    dtype : {"float32", "float64", "float16", "bfloat16"}
        Type of sequences and their gradients. Parameters and states have it too, but float32 beside
        the last two, which CUDA devices alone run.
    peephole : bool
        Whether the LSTM's i and f see ``c[t-1]`` and its o sees ``c[t]``.
    coupled : bool
        Whether the LSTM's forget gate is ``1 - i``; the parameters' f rows are then not used.
    reset_after : bool
        Whether the GRU's reset gate acts after the product with ``h``, or on ``h`` before it.
    layer_norm : bool
        Whether every product is normalised over its rows in use, and the LSTM's c before its
        output.
    zoneout : (p_h, p_c)
        Probabilities that a unit keeps its old h, and its old c; p_c is the LSTM's.
    activations : tuple of (name, alpha, beta), or None
        In the order of ``PLAIN_ACTIVATIONS``, which None stands for; 0.0 for a number that a name
        does not take.
    clip : float, optional
        The input of every activation is clamped to ``[-clip, clip]``.

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
    peephole: bool = False
    coupled: bool = False
    reset_after: bool = True
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)
    activations: tuple[tuple[str, float, float], ...] | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        """Refuse options of other cells, and forms that kernels do not take."""
        if self.cell not in GATES:
            raise ValueError(f"cell: expected one of {', '.join(GATES)}, got {self.cell!r}")
        has_c = self.has_cell_state
        owned = {"peephole": has_c, "proj_size": has_c}
        owned |= {"coupled": self.cell == "lstm", "reset_after": self.cell == "gru"}
        for name, allowed in owned.items():
            if not allowed and getattr(self, name) != getattr(CellSpec, name):
                raise ValueError(f"{name}: not an option of cell={self.cell!r}")
        if not 0 <= self.proj_size <= max(self.hidden_size, 1):
            raise ValueError(
                f"proj_size: expected 0 to hidden_size={self.hidden_size}, got {self.proj_size}"
            )
        if not isinstance(self.zoneout, tuple) or len(self.zoneout) != 2:
            raise ValueError(f"zoneout: expected a pair (p_h, p_c), got {self.zoneout!r}")
        if self.activations is not None:
            self._check_activations(self.activations)

    def _check_activations(self, given: object) -> None:
        count = len(PLAIN_ACTIVATIONS[self.cell])
        items = given if isinstance(given, tuple) else ()
        forms = [isinstance(item, tuple) and len(item) == 3 for item in items]
        if not isinstance(given, tuple) or len(given) != count or not all(forms):
            raise ValueError(
                f"activations: expected {count} of (name, alpha, beta) in a tuple, got {given!r}"
            )
        if self.nonlinearity != "tanh":
            raise ValueError("activations: expected nonlinearity='tanh' beside it")

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
        """Type of x, y and their gradients, and of what dropout multiplies them by."""
        return numpy_dtype(self.dtype)

    @cached_property
    def param_dtype(self) -> np.dtype[Any]:
        """Type of parameters and their gradients."""
        return np.dtype("float32") if self.numpy_dtype.itemsize == 2 else self.numpy_dtype

    @cached_property
    def state_dtype(self) -> np.dtype[Any]:
        """Type of states and their gradients."""
        return self.param_dtype

    @cached_property
    def has_cell_state(self) -> bool:
        """Whether the state is a pair ``(h, c)`` rather than ``h``."""
        return carries_c(self.cell)

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
        (with ``proj_size``), ``peephole``, ``norm_ih``, ``norm_hh``, ``norm_c`` and
        ``norm_c_bias`` (with ``layer_norm``, these two of the LSTM alone).

        Returns
        -------
        dict of str to tuple of int
        """
        return {
            f"{name}_l{layer}{suffix}": shape
            for layer in range(self.num_layers)
            for suffix in DIRECTION_SUFFIXES[: self.num_directions]
            for name, shape in self._direction_shapes(layer).items()
        }

    def _direction_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one direction of one layer under their plain names."""
        rows, units = self.num_gates * self.hidden_size, self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, self.layer_input_size(layer)),
            "weight_hh": (rows, self.output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.output_size, units)
        if self.peephole:
            shapes["peephole"] = (3 * units,)
        if self.layer_norm:
            shapes |= {"norm_ih": (rows,), "norm_hh": (rows,)}
            if self.has_cell_state:
                shapes |= {"norm_c": (units,), "norm_c_bias": (units,)}
        return shapes

    def state_shapes(self, batch: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the parts of a state: ``(h,)``, or ``(h, c)`` for an LSTM."""
        rows = self.state_rows
        if self.has_cell_state:
            return (rows, batch, self.output_size), (rows, batch, self.hidden_size)
        return ((rows, batch, self.output_size),)
