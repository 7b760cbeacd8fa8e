"""The one file to run if only one is run: every cell trains right, fast path against reference."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CELLS, Case, assert_results_close, assert_same_bits, draw, run_reference
from engine import build, infer, train

import rnncore as rc

RAGGED = {"layers": 2, "bidirectional": True, "ragged": True, "T": 6, "N": 5, "D": 9, "H": 17}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_outputs_and_gradients_equal_the_reference(cell: str, kind: str, dtype: str, isa) -> None:
    case = Case(cell=cell, nonlinearity=kind, dtype=dtype, **RAGGED)
    problem = draw(case)
    assert len(set(problem.lengths)) > 2
    assert_results_close(train(case, problem), run_reference(case, problem), dtype)


def test_projected_lstm_equals_the_reference(isa) -> None:
    case = Case(proj_size=5, **RAGGED)
    problem = draw(case)
    assert_results_close(train(case, problem), run_reference(case, problem), "float32")


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_bits_do_not_depend_on_the_number_of_threads(cell: str, kind: str) -> None:
    case = Case(cell=cell, nonlinearity=kind, T=7, N=13, D=40, H=150)
    problem = draw(case)
    runs = []
    for threads in (1, 2, 3):
        with rc.threads(threads):
            runs.append(train(case, problem))
    assert_same_bits(runs[1], runs[0])
    assert_same_bits(runs[2], runs[0])


@pytest.mark.host_only
def test_inference_frozen_and_stream_give_the_bits_of_training() -> None:
    case = Case(T=9, N=2, D=5, H=20, layers=2)
    problem = draw(case)
    layer = build(case, problem)
    trained = train(case, problem, layer)
    expected = {name: trained[name] for name in ("y", "hn", "cn")}
    assert_same_bits(infer(case, problem, layer), expected)
    engine = layer.freeze()
    assert_same_bits(infer(case, problem, engine), expected)
    stream = engine.stream(batch=2)
    y, _ = engine(problem.x)
    streamed = np.stack([stream.step(x_t) for x_t in problem.x])
    assert_same_bits({"y": streamed}, {"y": y})


def test_a_step_of_descent_lowers_the_loss_as_its_gradient_says() -> None:
    case = Case(cell="gru", T=6, N=4, D=5, H=12, dtype="float64")
    problem = draw(case)
    layer = build(case, problem)

    def loss() -> float:
        return float(0.5 * (infer(case, problem, layer)["y"] ** 2).sum())

    before = loss()
    problem.dy, problem.dhn = infer(case, problem, layer)["y"], np.zeros_like(problem.dhn)
    train(case, problem, layer)
    slope = sum(float((g**2).sum()) for g in layer.grads.values())
    for name, gradient in layer.grads.items():
        layer.params[name][...] -= 1e-6 * gradient
    assert slope > 1.0
    assert before - loss() == pytest.approx(1e-6 * slope, rel=1e-3)
