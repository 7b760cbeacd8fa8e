"""The engine's float64 gradients against central finite differences of its own outputs."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CELLS, Case, draw
from engine import build, state_of, train
from finite_differences import assert_gradients_match_differences

STACKED = {"T": 4, "N": 3, "D": 2, "H": 3, "layers": 3, "bidirectional": True, "dtype": "float64"}
OPTIONS = {
    "stacked": STACKED,
    "ragged": STACKED | {"ragged": True},
    "without bias": STACKED | {"bias": False, "ragged": True},
    "without states": STACKED | {"states": False},
    "batch first": STACKED | {"batch_first": True, "ragged": True, "layers": 2},
    "one direction": STACKED | {"bidirectional": False, "T": 6, "H": 5},
    "around the lanes": {"T": 3, "N": 2, "D": 9, "H": 9, "dtype": "float64"},
}
CASES = {
    f"{kind if cell == 'rnn' else cell} {label}": Case(cell=cell, nonlinearity=kind, **options)
    for cell, kind in CELLS
    for label, options in OPTIONS.items()
} | {f"projected lstm {label}": Case(proj_size=2, **options) for label, options in OPTIONS.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_equal_central_differences(case: Case) -> None:
    problem = draw(case)
    if case.ragged:
        problem.lengths = np.array([2, 4, 1])
    layer = build(case, problem)
    actual = train(case, problem, layer)

    def forward(p):
        for name, value in p.params.items():
            layer.params[name][...] = value
        x = p.x.swapaxes(0, 1) if case.batch_first else p.x
        y, state = layer(x, state_of(p.h0, p.c0), lengths=p.lengths)
        y = y.swapaxes(0, 1) if case.batch_first else y
        return (y, *state) if isinstance(state, tuple) else (y, state, None)

    assert (problem.dhn != 0).all()
    assert_gradients_match_differences(problem, forward, actual)
