"""Resets: several segments in one row, as if each were a sequence of its own."""

from __future__ import annotations

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, normal
from cases import Case, Problem, assert_results_close, draw, run_reference
from engine import build, infer, train
from segments import run_segments
from variants import ALONE, case_of, random_case

import rnncore as rc
from rnncore import functional
from rnncore.cells import CellSpec


def draw_rows(case: Case) -> Problem:
    """Return a problem with rows of length 0, 1 and T, and resets before, at and past the ends."""
    problem = draw(case)
    problem.lengths = np.array([case.T, 0, 1, case.T - 2, case.T])
    problem.resets[0] = [True, True, False, False, False]
    problem.resets[case.T - 2, 3] = True  # the first step past the end
    problem.resets[case.T - 1, 0] = True
    return problem


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_the_reference_equals_its_segments_run_alone(cell: str, option: str) -> None:
    case = case_of(cell, option, T=7, N=5)
    problem = draw_rows(case)
    expected = run_segments(case, problem, run_reference)
    assert_results_close(run_reference(case, problem), expected, "float64")


@pytest.mark.parametrize("seed", range(12))
def test_random_combinations_equal_their_segments_run_alone(seed: int) -> None:
    case = random_case(seed, T=7, N=5)
    problem = draw_rows(case)
    expected = run_segments(case, problem, run_reference)
    assert_results_close(run_reference(case, problem), expected, "float64")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", CLASSES)
def test_layers_equal_their_segments_run_alone(cell: str, batch_first: bool, backend: str) -> None:
    case = case_of(cell, "plain", T=7, N=5, batch_first=batch_first)
    problem = draw_rows(case)
    expected = run_segments(case, problem, train)
    assert_results_close(train(case, problem), expected, "float64")
    assert_same(infer(case, problem)["y"], train(case, problem)["y"])


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
@pytest.mark.parametrize("lengths", [None, [7, 0, 1, 5, 7]])
def test_a_bidirectional_wrapper_turns_the_resets_too(merge, lengths, backend) -> None:
    case = case_of("lstm", "plain", T=7, N=5, layers=1, bidirectional=False)
    problem = draw_rows(case)
    layer = rc.Bidirectional(build(case, problem), merge)
    inner = rc.LSTM(case.D, case.H, bidirectional=True, dtype="float64")
    inner.load_state_dict(layer.state_dict())
    y, state = layer(problem.x, None, lengths, problem.resets)
    both, expected = inner(problem.x, None, lengths, problem.resets)
    ahead, back = both[:, :, : case.H], both[:, :, case.H :]
    merged = {
        "concat": both, "sum": ahead + back, "mul": ahead * back, "average": (ahead + back) * 0.5,
    }  # fmt: skip
    np.testing.assert_allclose(y, merged[merge], rtol=1e-13, atol=1e-15)
    for part, other in zip(state, expected, strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-13, atol=1e-15)


def test_a_stack_hands_resets_to_every_member(backend: str) -> None:
    first, second = rc.GRU(3, 4, seed=1, dtype="float64"), rc.LSTM(4, 2, seed=2, dtype="float64")
    x, resets = normal(6, 2, 3, dtype="float64"), np.zeros((6, 2), bool)
    resets[3] = [True, False]
    y, _ = rc.Stack([first, second])(x, None, None, resets)
    inner, _ = first(x, None, None, resets)
    assert_same(y, second(inner, None, None, resets)[0])
    assert not np.array_equal(y, second(inner)[0])


def test_a_state_is_replaced_and_not_multiplied(backend: str) -> None:
    for cell in CLASSES:
        layer = CLASSES[cell](3, 4, 2, dtype="float64", seed=1)
        x, resets = normal(6, 2, 3, dtype="float64"), np.zeros((6, 2), bool)
        x[1, 0], x[4, 1], resets[3] = np.nan, np.inf, True
        y, _ = layer.forward(x, resets=resets)
        assert np.isnan(y[1:3, 0]).all()
        assert_same(y[3:, 0], layer(x[3:])[0][:, 0])
        dx, dstate = layer.backward(np.where(np.isnan(y), 0, y))
        assert np.isfinite(dx[3:, 0]).all()
        assert np.isfinite(dstate[0] if cell == "lstm" else dstate)[:, 1].all()


def test_resets_of_an_unbatched_sequence_are_one_row(backend: str) -> None:
    layer, x = rc.GRU(3, 4, dtype="float64", seed=1), normal(6, 3, dtype="float64")
    resets = np.array([False, False, True, False, False, True])
    y, h = layer(x, resets=resets)
    batched, end = layer(x[:, None], resets=resets[:, None])
    assert_same([y, h], [batched[:, 0], end[:, 0]])


@pytest.mark.host_only
def test_frozen_engines_and_the_functional_core_take_them(backend: str) -> None:
    layer, x = rc.LSTM(3, 4, dtype="float64", seed=1), normal(6, 2, 3, dtype="float64")
    resets = normal(6, 2) > 0
    expected = layer(x, resets=resets)
    assert_same(layer.freeze()(x, resets=resets), expected)
    assert_same(functional.forward(layer.spec, layer.params, x, None, None, resets)[:2], expected)
    out = np.empty_like(expected[0])
    assert layer.freeze()(x, resets=resets, out=out)[0] is out
    assert_same(out, expected[0])


def test_a_stateful_layer_forgets_where_a_row_starts_anew(backend: str) -> None:
    layer = rc.GRU(3, 4, dtype="float64", seed=1, stateful=True)
    x, resets = normal(6, 2, 3, dtype="float64"), np.zeros((3, 2), bool)
    resets[0, 1] = True
    layer(x[:3])
    y, _ = layer(x[3:], resets=resets)
    plain = rc.GRU(3, 4, dtype="float64", seed=1)
    assert_same(y[:, 0], plain(x)[0][3:, 0])
    assert_same(y[:, 1], plain(x[3:])[0][:, 1])


def test_the_callers_resets_may_change_before_the_gradient(backend: str) -> None:
    layer, x = rc.GRU(3, 4, dtype="float64", seed=1), normal(6, 2, 3, dtype="float64")
    resets = normal(6, 2) > 0
    y, _ = layer.forward(x, resets=resets)
    expected = layer.backward(y)
    layer.forward(x, resets=resets)
    resets[...] = ~resets
    assert_same(layer.backward(y), expected)


def test_resets_are_read_from_any_strides(backend: str) -> None:
    spec = CellSpec("gru", 3, 4, dtype="float64")
    params = {name: normal(*shape, dtype="float64") for name, shape in spec.param_shapes().items()}
    x, resets = normal(6, 2, 3, dtype="float64"), normal(2, 12) > 0
    y, *_ = functional.forward(spec, params, x, resets=resets.T[::2])
    assert_same(y, functional.forward(spec, params, x, resets=resets.T[::2].copy())[0])
