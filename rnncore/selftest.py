"""Check the engine on this machine against the float64 reference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rnncore import _rnncore, functional, reference
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.initializers import draw_params
from rnncore.threads import get_num_threads

STEPS, ROWS = 9, 20
LENGTHS = np.array([9, 4, 0, 7, 9] * 4)
BOUNDS = {"float32": (2e-5, 2e-4), "float64": (1e-12, 1e-11)}
"""Largest error of results and of gradients, relative to the largest entry."""

SPECS = (
    CellSpec("rnn", 37, 97, num_layers=2),
    CellSpec("rnn", 37, 97, num_layers=2, nonlinearity="relu"),
    CellSpec("lstm", 37, 97, num_layers=2),
    CellSpec("lstm", 37, 97, num_layers=2, proj_size=53),
    CellSpec("gru", 37, 97, num_layers=2),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    isa: str
    spec: CellSpec
    forward: float
    backward: float

    @property
    def passed(self) -> bool:
        """Whether both errors are within their bounds; not a number is not."""
        forward, backward = BOUNDS[self.spec.dtype]
        return self.forward <= forward and self.backward <= backward


def selftest() -> bool:
    """Print a table of errors for every instruction set, cell, direction and type.

    Returns
    -------
    bool
        Whether all are within their bounds.
    """
    write = sys.stdout.write
    write(f"errors against the float64 reference, {get_num_threads()} threads\n")
    write(f"{'isa':9} {'cell':10} {'directions':10} {'type':8} {'results':>9} {'gradients':>9}\n")
    failed = 0
    for isa in _rnncore.supported_isas():
        with chosen_isa(isa):
            for row in (check(spec, isa) for spec in specs()):
                failed += not row.passed
                write(f"{row.isa:9} {cell_name(row.spec):10} {row.spec.num_directions:10} ")
                write(f"{row.spec.dtype:8} {row.forward:9.1e} {row.backward:9.1e} ")
                write("ok\n" if row.passed else "WRONG\n")
    write("all within bounds\n" if not failed else f"{failed} out of bounds\n")
    return not failed


def specs() -> Iterator[CellSpec]:
    """Yield every combination that is checked."""
    for spec in SPECS:
        for directions in (1, 2):
            for dtype in BOUNDS:
                yield replace(spec, num_directions=directions, dtype=dtype)


def cell_name(spec: CellSpec) -> str:
    """Return what the table calls a cell."""
    if spec.cell == "rnn":
        return f"rnn {spec.nonlinearity}"
    return spec.cell + (" proj" if spec.proj_size else "")


@contextmanager
def chosen_isa(name: str) -> Iterator[None]:
    """Use one instruction set inside a ``with`` block."""
    before = _rnncore.isa()
    _rnncore.set_isa(name)
    try:
        yield
    finally:
        _rnncore.set_isa(before)


def check(spec: CellSpec, isa: str) -> Row:
    """Run one specification forward and backward, with lengths and states, and measure errors."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(spec.dtype)

    params = draw_params(spec, seed=0)
    x, dy = draw(STEPS, ROWS, spec.input_size), draw(STEPS, ROWS, spec.features)
    state = tuple(draw(*shape) for shape in spec.state_shapes(ROWS))
    dstate = tuple(draw(*shape) for shape in spec.state_shapes(ROWS))
    h, c = (*state, None)[:2]

    y, end, tape = functional.forward(spec, params, x, _as_given(state), LENGTHS)
    assert tape is not None
    dx, start, grads = functional.backward(spec, params, tape, dy, _as_given(dstate))

    expected_y, *expected_end, oracle = reference.forward(spec, params, x, h, c, LENGTHS)
    expected_dx, *expected_start, expected = reference.backward(spec, params, oracle, dy, *dstate)
    gradients = list(zip([dx, *_as_tuple(start)], [expected_dx, *expected_start], strict=False))
    gradients += [(grads[name], expected[name]) for name in expected]
    return Row(
        isa,
        spec,
        max(map(error, [y, *_as_tuple(end)], [expected_y, *expected_end])),
        max(error(got, wanted) for got, wanted in gradients),
    )


def error(got: Any, wanted: Any) -> float:
    """Return the largest difference, relative to the largest entry; infinite for NaN."""
    difference = float(np.abs(np.asarray(got, np.float64) - wanted).max())
    return difference / float(np.abs(wanted).max()) if difference == difference else float("inf")


def _as_given(state: tuple[Array, ...]) -> Any:
    return state if len(state) == 2 else state[0]


def _as_tuple(state: Any) -> tuple[Array, ...]:
    return state if isinstance(state, tuple) else (state,)
