"""Draw the first values of a layer's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from rnncore.cells import CellSpec
from rnncore.checks import Array

_ADDRESSABLE = 1 << 47  # bytes, on x86-64 and on most AArch64

_DRAWN: ContextVar[bool] = ContextVar("drawn", default=True)


@contextmanager
def undrawn() -> Iterator[None]:
    """Let layers that are made inside start from zeros: their parameters are about to be loaded.

    Drawing six million numbers takes 30 ms, copying them 2.
    """
    token = _DRAWN.set(False)
    try:
        yield
    finally:
        _DRAWN.reset(token)


def draw_params(spec: CellSpec, seed: int, forget_bias: float = 0.0) -> dict[str, Array]:
    """Draw every parameter from U(-1/sqrt(H), 1/sqrt(H)); gains are 1, the bias of norm(c) is 0.

    Parameters
    ----------
    spec : CellSpec
        The layer's specification.
    seed : int
        Seed of ``numpy.random.default_rng``. Layers of all dtypes draw the same numbers.
    forget_bias : float, optional
        Added to the forget gate's part of every ``bias_ih``.

    Returns
    -------
    dict of str to ndarray
        New C-contiguous arrays of ``spec.param_dtype`` in the order of ``spec.param_shapes()``.

    Raises
    ------
    ValueError
        If no machine could address so many.
    """
    _check_addressable(spec)
    if not _DRAWN.get():
        shapes = spec.param_shapes()
        return {name: np.zeros(shape, spec.param_dtype) for name, shape in shapes.items()}
    rng = np.random.default_rng(seed)
    bound = 1.0 / np.sqrt(spec.hidden_size)
    params: dict[str, Array] = {}
    for name, shape in spec.param_shapes().items():
        if name.startswith("norm"):
            start = 0.0 if name.startswith("norm_c_bias") else 1.0
            params[name] = np.full(shape, start, spec.param_dtype)
            continue
        values = rng.uniform(-bound, bound, shape)
        if forget_bias and name.startswith("bias_ih"):
            start = spec.gates.index("f") * spec.hidden_size
            values[start : start + spec.hidden_size] += forget_bias
        params[name] = values.astype(spec.param_dtype)
    return params


def _check_addressable(spec: CellSpec) -> None:
    """Refuse sizes whose parameters would not fit in an address space, before any is made."""
    inputs = spec.input_size + (spec.num_layers - 1) * spec.features
    columns = spec.num_directions * (inputs + spec.num_layers * spec.output_size)
    weights = spec.num_gates * spec.hidden_size * columns
    if weights > _ADDRESSABLE // spec.param_dtype.itemsize:
        raise ValueError(
            f"input_size, hidden_size, num_layers: expected parameters of at most {_ADDRESSABLE} "
            f"bytes, got {spec.input_size}, {spec.hidden_size}, {spec.num_layers}"
        )
