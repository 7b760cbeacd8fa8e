"""Write a recurrence as the text that an operator of PyTorch takes, and read it again.

Operators take tensors, numbers and text. The text lacks the dtype, which is that of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from rnncore.cells import CellSpec

PLAIN = "{}"
"""The part of a text that stands for a cell without options."""

_SIZES = ("input_size", "hidden_size", "num_layers", "num_directions", "proj_size")

NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
"""What the engine calls the dtypes that it computes in, the last two on GPUs alone."""


def write(
    cell: str,
    sizes: tuple[int, int, int, int, int],
    bias: bool,
    nonlinearity: str,
    options: str = PLAIN,
) -> str:
    """Return the text of a recurrence with the sizes ``D H L K P``; :func:`read` is its inverse."""
    inputs, units, layers, directions, projection = sizes
    return (
        f"{cell} {inputs} {units} {layers} {directions} {projection} {int(bias)} "
        f"{nonlinearity} {options}"
    )


def write_options(options: Mapping[str, Any]) -> str:
    """Return the text of those fields of a ``CellSpec`` that differ from its defaults."""
    chosen = {name: value for name, value in options.items() if value != getattr(CellSpec, name)}
    return json.dumps(chosen)


@lru_cache(maxsize=256)
def read(text: str, dtype: torch.dtype) -> CellSpec:
    """Return the recurrence that a text and a dtype stand for.

    Parameters
    ----------
    text : str
        The cell, ``D H L K P``, bias (0 or 1), nonlinearity and, as JSON, its options.
    dtype : torch.dtype
        A key of ``NAMES``.

    Examples
    --------
    >>> read("gru 3 4 1 2 0 1 tanh {}", torch.float32).features
    8
    """
    cell, *numbers, nonlinearity, options = text.split(" ", 8)
    given: dict[str, Any] = json.loads(options)
    for name in ("zoneout", "activations"):
        if name in given:
            given[name] = _tuples(given[name])
    *sizes, bias = map(int, numbers)
    given |= dict(zip(_SIZES, sizes, strict=True))
    given |= {"bias": bool(bias), "nonlinearity": nonlinearity, "dtype": NAMES[dtype]}
    return CellSpec(cell, **given)


def _tuples(value: Any) -> Any:
    """Return JSON's lists as the tuples that they were written from."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
