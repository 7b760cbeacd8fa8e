"""The float64 reference against hand numbers, PyTorch in float64 and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import (
    CELLS,
    Case,
    assert_results_close,
    draw,
    forward_reference,
    input_masks,
    run_reference,
)
from finite_differences import assert_gradients_match_differences

from rnncore import reference
from rnncore.cells import CellSpec

OPTIONS = [
    {},
    {"bias": False, "states": False},
    {"layers": 3, "bidirectional": True, "ragged": True, "shortest": 1},
    {"T": 1, "N": 1, "D": 1, "H": 1},
    {"T": 9, "N": 5, "D": 2, "H": 11, "layers": 2, "bidirectional": True, "bias": False},
]
PROJECTED = [
    {"cell": "lstm", "nonlinearity": "tanh", "proj_size": 3, **options}
    for options in OPTIONS
    if options.get("H", 7) > 3
]
CASES = [
    Case(cell=cell, nonlinearity=kind, dtype="float64", **options)
    for cell, kind in CELLS
    for options in OPTIONS
] + [Case(dtype="float64", **options) for options in PROJECTED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_equals_torch_in_float64(case: Case) -> None:
    from torch_oracle import run_torch

    problem = draw(case)
    assert_results_close(run_reference(case, problem), run_torch(case, problem), "float64")


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(
    ("cell", "kind", "proj_size"), [(*c, 0) for c in CELLS] + [("lstm", "tanh", 1)]
)
def test_reference_gradients_equal_finite_differences(
    cell: str, kind: str, proj_size: int, ragged: bool
) -> None:
    case = Case(
        cell=cell, nonlinearity=kind, proj_size=proj_size, ragged=ragged, dtype="float64",
        T=4, N=3, D=2, H=2, layers=3, bidirectional=True, seed=3,
    )  # fmt: skip
    problem = draw(case)
    if ragged:
        problem.lengths = np.array([2, 4, 0])
    assert_gradients_match_differences(
        problem, lambda p: forward_reference(case, p)[:3], run_reference(case, problem)
    )


def test_masks_multiply_each_layers_input_and_its_gradient() -> None:
    case = Case(cell="gru", T=4, N=2, D=3, H=2, layers=2, dtype="float64")
    problem, rng = draw(case), np.random.default_rng(5)
    masks = [2.0 * rng.integers(0, 2, (4, 2, 3)), np.broadcast_to([[[0.0, 2.0]]], (4, 2, 2))]
    problem.masks = input_masks(case, masks)
    results = run_reference(case, problem)
    alone = reference.forward(case.spec, problem.params, problem.x, problem.h0, None, None, masks)
    assert np.array_equal(results["y"], alone[0])
    assert_gradients_match_differences(problem, lambda p: forward_reference(case, p)[:3], results)
    assert (results["dx"][masks[0] == 0] == 0).all()
    assert (masks[0] == 0).any()
    assert (results["d weight_ih_l1"][:, 0] == 0).all()


def logistic(a: float) -> float:
    return 1.0 / (1.0 + math.exp(-a))


def test_one_lstm_step_by_hand() -> None:
    params = {
        "weight_ih_l0": np.array([[0.1], [0.2], [0.3], [0.4]]),
        "weight_hh_l0": np.array([[-0.5], [0.6], [-0.7], [0.8]]),
        "bias_ih_l0": np.array([0.01, 0.02, 0.03, 0.04]),
        "bias_hh_l0": np.array([0.1, 0.2, 0.3, 0.4]),
    }
    spec = CellSpec("lstm", 1, 1)
    y, hn, cn, _ = reference.forward(spec, params, [[[2.0]]], [[[0.5]]], [[[-1.5]]])
    i = logistic(0.1 * 2 - 0.5 * 0.5 + 0.11)
    f = logistic(0.2 * 2 + 0.6 * 0.5 + 0.22)
    g = math.tanh(0.3 * 2 - 0.7 * 0.5 + 0.33)
    o = logistic(0.4 * 2 + 0.8 * 0.5 + 0.44)
    c = f * -1.5 + i * g
    assert cn is not None
    assert cn[0, 0, 0] == pytest.approx(c, rel=1e-15)
    assert y[0, 0, 0] == hn[0, 0, 0] == pytest.approx(o * math.tanh(c), rel=1e-15)


def test_one_gru_step_by_hand() -> None:
    params = {
        "weight_ih_l0": np.array([[0.1], [0.2], [0.3]]),
        "weight_hh_l0": np.array([[-0.5], [0.6], [-0.7]]),
        "bias_ih_l0": np.array([0.01, 0.02, 0.03]),
        "bias_hh_l0": np.array([0.1, 0.2, 0.3]),
    }
    y, _, cn, _ = reference.forward(CellSpec("gru", 1, 1), params, [[[2.0]]], [[[0.5]]])
    r = logistic(0.1 * 2 - 0.5 * 0.5 + 0.11)
    z = logistic(0.2 * 2 + 0.6 * 0.5 + 0.22)
    n = math.tanh(0.3 * 2 + 0.03 + r * (-0.7 * 0.5 + 0.3))
    assert cn is None
    assert y[0, 0, 0] == pytest.approx((1 - z) * n + z * 0.5, rel=1e-15)


def test_two_relu_steps_and_their_gradients_by_hand() -> None:
    params = {"weight_ih_l0": np.array([[0.5]]), "weight_hh_l0": np.array([[2.0]])}
    spec = CellSpec("rnn", 1, 1, bias=False, nonlinearity="relu")
    y, hn, _, tape = reference.forward(spec, params, [[[3.0]], [[-1.0]]], [[[0.25]]])
    assert y.ravel().tolist() == [2.0, 3.5]
    assert hn.item() == 3.5
    dx, dh0, _, grads = reference.backward(spec, params, tape, [[[1.0]], [[10.0]]], [[[100.0]]])
    assert dx.ravel().tolist() == [110.5, 55.0]
    assert dh0.item() == 442.0
    assert grads["weight_ih_l0"].item() == 221.0 * 3.0 - 110.0
    assert grads["weight_hh_l0"].item() == 221.0 * 0.25 + 110.0 * 2.0


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_a_ragged_batch_equals_its_rows_alone(cell: str, kind: str) -> None:
    case = Case(
        cell=cell, nonlinearity=kind, T=6, N=4, layers=2, bidirectional=True, dtype="float64"
    )
    problem = draw(case)
    problem.lengths = np.array([4, 0, 6, 1])
    problem.x[4:, 0], problem.dy[4:, 0], problem.x[:, 1], problem.x[1:, 3] = (np.nan,) * 4
    whole = run_reference(case, problem)
    total = {name: np.zeros_like(value) for name, value in whole.items() if name[:2] == "d "}
    for row, length in enumerate(problem.lengths):
        one = slice(row, row + 1)
        alone = problem.but(x=problem.x[:length, one], dy=problem.dy[:length, one], lengths=None)
        for name in ("h0", "c0", "dhn", "dcn"):
            if getattr(problem, name) is not None:
                setattr(alone, name, getattr(problem, name)[:, one])
        single = run_reference(case.but(T=int(length), N=1), alone)
        for name in ("hn", "cn", "dh0", "dc0"):
            if name in whole:
                np.testing.assert_allclose(
                    whole[name][:, one], single[name], rtol=1e-12, atol=1e-14
                )
        for name in ("y", "dx"):
            np.testing.assert_allclose(
                whole[name][:length, one], single[name], rtol=1e-12, atol=1e-14
            )
            assert (whole[name][length:, row] == 0).all()
        for name in total:
            total[name] += single[name]
    for name, value in total.items():
        np.testing.assert_allclose(whole[name], value, rtol=1e-11, atol=1e-13, err_msg=name)
    assert np.array_equal(whole["hn"][:, 1], problem.h0[:, 1])
    assert np.array_equal(whole["dh0"][:, 1], problem.dhn[:, 1])


def test_nan_and_infinity_stay_in_their_row_and_after_their_step() -> None:
    for cell, kind in CELLS:
        case = Case(cell=cell, nonlinearity=kind, T=5, N=3, dtype="float64")
        clean, dirty = draw(case), draw(case)
        dirty.x[2, 1, 0] = np.nan
        good, bad = run_reference(case, clean), run_reference(case, dirty)
        assert np.array_equal(good["y"][:2], bad["y"][:2])
        assert np.array_equal(good["y"][:, [0, 2]], bad["y"][:, [0, 2]])
        assert np.isnan(bad["y"][2:, 1]).all()
        dirty.x[2, 1, 0] = np.inf
        bounded = run_reference(case, dirty)["y"]
        assert np.isfinite(bounded).all() or kind == "relu"


@pytest.mark.parametrize(("T", "N"), [(0, 3), (4, 0), (0, 0)])
def test_no_steps_and_no_rows_give_the_states_back(T: int, N: int) -> None:
    case = Case(T=T, N=N, layers=2, bidirectional=True, dtype="float64")
    problem = draw(case)
    results = run_reference(case, problem)
    assert results["y"].shape == (T, N, 14)
    assert results["dx"].shape == (T, N, 6)
    assert np.array_equal(results["hn"], problem.h0)
    assert results["hn"] is not problem.h0
    assert np.array_equal(results["dc0"], problem.dcn)
    assert all((value == 0).all() for name, value in results.items() if name[:2] == "d ")
