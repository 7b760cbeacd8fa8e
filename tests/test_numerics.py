"""The published error bounds of float32, over long sequences in the contractive regime."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from cases import CELLS, Case, draw, run_reference, what
from engine import train
from tolerances import forward_l2, gradient_l2, relative_l2

from rnncore import reference

SIZES = [
    {"T": 16, "N": 2, "D": 16, "H": 16},
    {"T": 1024, "N": 4, "D": 16, "H": 16},
    {"T": 1024, "N": 2, "D": 64, "H": 64},
    {"T": 128, "N": 2, "D": 256, "H": 256},
    {"T": 256, "N": 3, "D": 40, "H": 64, "layers": 3},
    {"T": 256, "N": 3, "D": 40, "H": 33, "layers": 2, "bidirectional": True},
]
CASES = [Case(cell=cell, nonlinearity=kind, **s) for cell, kind in CELLS for s in SIZES]
CASES += [Case(proj_size=20, **s) for s in SIZES[3:]]


def widest(case: Case) -> int:
    """Return the number of features that enter the widest layer."""
    return case.D if case.layers == 1 else max(case.D, case.spec.features)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_errors_stay_within_the_published_bounds(case: Case, isa: str) -> None:
    problem = draw(case)
    actual, expected = train(case, problem), run_reference_once(case)
    for name, value in expected.items():
        sizes = (case.dtype, widest(case), case.H)
        if what(name) == "forward":
            bound = forward_l2(*sizes, layers=case.layers)
        else:
            bound = gradient_l2(*sizes, case.T, case.N, layers=case.layers)
        assert np.linalg.norm(value) > 0, name
        error = relative_l2(actual[name], value)
        assert error <= bound, f"{name}: {error / bound:.2f} of what is allowed"


@functools.cache
def run_reference_once(case: Case) -> dict[str, np.ndarray]:
    """Keep a case's reference for the next instruction set."""
    return run_reference(case, draw(case))


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_the_data_of_these_tests_do_not_saturate_the_gates(cell: str, kind: str) -> None:
    for case in CASES[:2]:
        case = case.but(cell=cell, nonlinearity=kind)
        problem = draw(case)
        w = problem.params
        y = run_reference(case, problem)["y"]
        inputs = problem.x[1:] @ w["weight_ih_l0"].T + w["bias_ih_l0"]
        gates = inputs + y[:-1] @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        assert 0.5 < np.sqrt((gates**2).mean()) < 2.5
        assert (np.abs(gates) < 3).mean() > 0.7


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_one_step_is_right_in_the_chaotic_regime_too(cell: str, kind: str) -> None:
    case = Case(cell=cell, nonlinearity=kind, T=40, N=3, D=20, H=48)
    problem = draw(case)
    for name, value in problem.params.items():
        if name.startswith("weight_hh"):
            value *= 4.0 if kind == "tanh" else 1.5
    from engine import build

    layer = build(case, problem)
    h, c = problem.h0, problem.c0
    # sum |w||v| is at most about 6 sqrt(D+H) here; a step is Lipschitz with a small constant
    allowed = (4 + 2 * np.sqrt(case.D + case.H)) * 2.0**-24 * 6 * np.sqrt(case.D + case.H)
    for x_t in problem.x[:, None]:
        y, state = layer(x_t, h if c is None else (h, c))
        exact, _, exact_c, _ = reference.forward(case.spec, problem.params, x_t, h, c)
        assert np.abs(y - exact).max() <= allowed * max(1.0, np.abs(exact).max())
        h, c = state if isinstance(state, tuple) else (state, None)
        if exact_c is not None:
            assert np.abs(c - exact_c).max() <= allowed * max(1.0, np.abs(exact_c).max())


def test_cancelling_inputs_stay_within_the_backward_error() -> None:
    case = Case(cell="rnn", nonlinearity="relu", T=1, N=1, D=33, H=5, states=False)
    problem = draw(case)
    problem.params["weight_ih_l0"][:] = 1.0
    problem.x[0, 0] = np.resize([1e8, -1e8, 1.0], 33)
    actual, expected = train(case, problem)["y"], run_reference(case, problem)["y"]
    scale = np.abs(problem.x).sum()
    assert np.abs(actual - expected).max() <= 33 * 2.0**-24 * scale
    assert expected.max() > 10
