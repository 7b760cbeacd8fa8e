"""Every option of the cells in the reference: gradients against differences, meanings by hand."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Problem, draw, forward_reference, run_reference
from finite_differences import (
    assert_gradients_match_along_directions,
    assert_gradients_match_differences,
)
from variants import ALONE, PAIRS, case_of, draw_ragged, random_case

from rnncore import reference
from rnncore.cells import ACTIVATIONS
from rnncore.reference.activations import FUNCTIONS, Activation


def check_along_directions(case: Case, problem: Problem, seed: int = 0) -> None:
    assert_gradients_match_along_directions(
        problem, lambda p: forward_reference(case, p)[:3], run_reference(case, problem), seed
    )


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_gradients_of_every_option_equal_differences_of_every_entry(cell: str, option: str) -> None:
    case = case_of(cell, option)
    problem = draw_ragged(case)
    assert_gradients_match_differences(
        problem, lambda p: forward_reference(case, p)[:3], run_reference(case, problem)
    )


@pytest.mark.parametrize(("cell", "one", "other"), PAIRS)
def test_gradients_of_every_pair_of_options_equal_differences(cell, one, other) -> None:
    case = case_of(cell, one, other)
    check_along_directions(case, draw_ragged(case))


@pytest.mark.parametrize("seed", range(100))
def test_gradients_of_random_combinations_equal_differences(seed: int) -> None:
    case = random_case(seed)
    problem = draw_ragged(case)
    if seed % 4 == 0:
        problem.masks = None  # zoneout by its expectation, which has a gradient too
    check_along_directions(case, problem, seed)


POINTS = np.array([-3.0, -1.3, -0.6, -0.2, 0.3, 0.9, 1.7, 2.8])
CHOSEN = {
    "Affine": (0.5, -0.25), "Elu": (0.7,), "HardSigmoid": (0.3, 0.6), "LeakyRelu": (0.1,),
    "ScaledTanh": (1.5, 0.5), "ThresholdedRelu": (0.8,),
}  # fmt: skip
BY_HAND = {
    "Affine": lambda a, alpha, beta: alpha * a + beta,
    "Elu": lambda a, alpha, beta: a if a > 0 else alpha * (np.exp(a) - 1),
    "HardSigmoid": lambda a, alpha, beta: max(0.0, min(1.0, alpha * a + beta)),
    "LeakyRelu": lambda a, alpha, beta: a if a > 0 else alpha * a,
    "Relu": lambda a, alpha, beta: a if a > 0 else 0.0,
    "ScaledTanh": lambda a, alpha, beta: alpha * np.tanh(beta * a),
    "Sigmoid": lambda a, alpha, beta: 1 / (1 + np.exp(-a)),
    "Softplus": lambda a, alpha, beta: np.log(1 + np.exp(a)),
    "Softsign": lambda a, alpha, beta: a / (1 + abs(a)),
    "Tanh": lambda a, alpha, beta: np.tanh(a),
    "ThresholdedRelu": lambda a, alpha, beta: a if a >= alpha else 0.0,
}


def test_the_tables_of_activations_have_the_same_names() -> None:
    assert FUNCTIONS.keys() == ACTIVATIONS.keys() == BY_HAND.keys()


@pytest.mark.parametrize("clip", [None, 1.5])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_onnxs_values_and_their_differences_as_slopes(name, clip) -> None:
    alpha, beta = (*CHOSEN.get(name, ()), 0.0, 0.0)[:2]
    activation, eps = Activation(name, alpha, beta, clip), 1e-6
    for a in POINTS:
        seen = a if clip is None else max(-clip, min(clip, a))
        expected = BY_HAND[name](seen, alpha, beta)
        assert activation.value(np.array([a]))[0] == pytest.approx(expected, rel=1e-14)
        above, below = activation.value(np.array([a + eps, a - eps]))
        slope = activation.slope(np.array([a]))[0]
        assert slope == pytest.approx((above - below) / (2 * eps), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(
    ("activation", "at", "value", "slope"),
    [
        (Activation("Relu"), 0.0, 0.0, 0.0),
        (Activation("LeakyRelu", 0.1), 0.0, 0.0, 0.1),
        (Activation("ThresholdedRelu", 0.8), 0.8, 0.8, 0.0),
        (Activation("HardSigmoid", 0.5, 0.5), 1.0, 1.0, 0.0),
        (Activation("HardSigmoid", 0.5, 0.5), -1.0, 0.0, 0.0),
        (Activation("Elu", 0.7), 0.0, 0.0, 0.7),
        (Activation("Tanh", clip=0.5), 0.5, np.tanh(0.5), 1 - np.tanh(0.5) ** 2),
        (Activation("Tanh", clip=0.5), 0.5000001, np.tanh(0.5), 0.0),
        (Activation("Tanh", clip=0.5), -9.0, -np.tanh(0.5), 0.0),
    ],
    ids=str,
)
def test_slopes_at_kinks_are_the_left_ones_and_the_clamps_own_ends_count_as_inside(
    activation, at, value, slope
) -> None:
    assert activation.value(np.array([at]))[0] == pytest.approx(value, rel=1e-15)
    assert activation.slope(np.array([at]))[0] == pytest.approx(slope, rel=1e-15)


def test_activations_stay_finite_far_out() -> None:
    for name, numbers in ACTIVATIONS.items():
        activation = Activation(name, *(*numbers, 0.0, 0.0)[:2])
        far = np.array([-1e4, 1e4])
        assert np.isfinite(activation.value(far)).all(), name
        assert np.isfinite(activation.slope(far)).all(), name


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_cells_own_activations_by_name_change_nothing(cell: str) -> None:
    plain = {"rnn": ("Tanh",), "lstm": ("Sigmoid", "Tanh", "Tanh"), "gru": ("Sigmoid", "Tanh")}
    case = case_of(cell, "plain")
    problem = draw_ragged(case)
    named = case.but(activations=tuple((name, 0.0, 0.0) for name in plain[cell]))
    actual, expected = run_reference(named, problem), run_reference(case, problem)
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_the_forget_rows_of_a_coupled_lstm_are_not_used_and_have_no_gradient() -> None:
    case = case_of("lstm", "coupled", "peephole", "layer norm")
    problem = draw_ragged(case)
    expected, H = run_reference(case, problem), case.H
    for name, value in problem.params.items():
        if name.startswith(("weight_ih", "weight_hh", "bias", "norm_ih", "norm_hh", "peephole")):
            value[H : 2 * H] = np.nan
    actual = run_reference(case, problem)
    for name, value in expected.items():
        assert np.array_equal(actual[name], value), name
        if name.startswith(("d weight_ih", "d weight_hh", "d bias", "d norm_ih", "d peephole")):
            assert (value[H : 2 * H] == 0).all()
            assert (value[:H] != 0).any()


def test_one_coupled_lstm_step_with_peepholes_and_zoneout_by_hand() -> None:
    case = Case(
        cell="lstm", T=1, N=1, D=1, H=1, peephole=True, coupled=True, zoneout=(0.25, 0.5),
        dtype="float64",
    )  # fmt: skip
    problem = draw(case)
    problem.masks = None
    p = {name.removesuffix("_l0"): value.ravel() for name, value in problem.params.items()}
    x, h, c = problem.x.item(), problem.h0.item(), problem.c0.item()
    a = p["weight_ih"] * x + p["weight_hh"] * h + p["bias_ih"] + p["bias_hh"]
    i = BY_HAND["Sigmoid"](a[0] + p["peephole"][0] * c, 0, 0)
    c_new = (1 - i) * c + i * np.tanh(a[2])
    h_new = BY_HAND["Sigmoid"](a[3] + p["peephole"][2] * c_new, 0, 0) * np.tanh(c_new)
    results = run_reference(case, problem)
    assert results["cn"].item() == pytest.approx(0.5 * c + 0.5 * c_new, rel=1e-14)
    assert results["hn"].item() == pytest.approx(0.25 * h + 0.75 * h_new, rel=1e-14)
    assert results["y"].item() == results["hn"].item()


def test_one_gru_step_with_layer_norm_and_reset_before_by_hand() -> None:
    case = Case(
        cell="gru", T=1, N=1, D=2, H=2, layer_norm=True, reset_after=False, dtype="float64",
        recurrent_dropout=0.5, seed=4,
    )  # fmt: skip
    problem = draw(case)
    p = {name.removesuffix("_l0"): value for name, value in problem.params.items()}
    mask = problem.masks.recurrent[0][0]
    assert set(mask) == {0.0, 2.0}

    def norm(v: np.ndarray) -> np.ndarray:
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5)

    def logistic(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    x, h = problem.x[0, 0], problem.h0[0, 0]
    from_x = norm(p["weight_ih"] @ x) * p["norm_ih"] + p["bias_ih"]
    gates = norm(p["weight_hh"][:4] @ (mask * h)) * p["norm_hh"][:4] + p["bias_hh"][:4]
    r, z = np.split(logistic(from_x[:4] + gates), 2)
    u_n = norm(p["weight_hh"][4:] @ (r * mask * h)) * p["norm_hh"][4:] + p["bias_hh"][4:]
    n = np.tanh(from_x[4:] + u_n)
    y = run_reference(case, problem)["y"][0, 0]
    np.testing.assert_allclose(y, (1 - z) * n + z * h, rtol=1e-14)


@pytest.mark.parametrize(("cell", "option"), ALONE)
@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_reduced_weights_of_every_option_stay_near_full_ones(cell, option, weights) -> None:
    case = case_of(cell, option, H=13, D=9)
    problem, p = draw_ragged(case), draw_ragged(case)
    full = forward_reference(case, problem)[0]
    reduced = reference.forward(
        case.spec, p.params, p.x, p.h0, p.c0, p.lengths, p.masks, weights, p.resets
    )[0]
    assert 0 < np.abs(reduced - full).max() < 0.1 * np.abs(full).max()
