"""What must hold for a cell that the guide added; run by test_add_a_cell.py where it is built."""

from __future__ import annotations

import pickle
from pathlib import Path

import engine
import numpy as np
import pytest
import variants
from cases import (
    Case,
    Results,
    assert_array_same_bits,
    assert_results_close,
    assert_same_bits,
    draw,
    forward_reference,
    run_reference,
)
from engine import build, infer, train, train_at_the_border
from finite_differences import assert_gradients_match_differences
from minimal import Minimal
from tolerances import LARGEST_ENTRY

import rnncore as rc
from rnncore import _rnncore, functional, reference

OPTIONS = {name: given for name, given in variants.OPTIONS["gru"].items() if name != "reset before"}
EVERYTHING = tuple(name for name in OPTIONS if name not in ("plain", "no bias"))
COMBINED = {name: (name,) for name in OPTIONS} | {"everything": EVERYTHING}

variants.OPTIONS["minimal"] = OPTIONS
engine.LAYERS["minimal"] = "Minimal"
rc.Minimal = Minimal  # layers are looked up there

SMALL = {"T": 5, "N": 3, "D": 4, "H": 6}
LARGER = {"T": 9, "N": 5, "D": 11, "H": 37}


def case_of(name: str, **sizes: object) -> Case:
    return variants.case_of("minimal", *COMBINED[name], **sizes)


def forward_of(results: Results) -> Results:
    return {name: results[name] for name in ("y", "hn")}


def test_this_is_the_copy() -> None:
    assert Path(rc.__file__).parents[1] == Path.cwd()
    assert Path(_rnncore.__file__).parents[1] == Path.cwd()


@pytest.mark.parametrize("name", COMBINED)
def test_the_gradients_of_the_reference_equal_differences(name: str) -> None:
    case = case_of(name, **SMALL)
    problem = variants.draw_ragged(case)
    assert_gradients_match_differences(
        problem, lambda p: forward_reference(case, p)[:3], run_reference(case, problem)
    )


def test_the_reference_computes_the_equations_of_the_guide() -> None:
    case = Case(cell="minimal", T=1, N=1, D=1, H=1, dtype="float64")
    weights = {"weight_ih": (0.4, -1.1), "weight_hh": (0.9, 0.7), "bias_ih": (0.1, 0.2),
               "bias_hh": (-0.3, 0.5)}  # fmt: skip
    problem = draw(case).but(x=np.full((1, 1, 1), 1.5), h0=np.full((1, 1, 1), -0.6))
    for name, (of_f, of_n) in weights.items():
        problem.params[name + "_l0"].flat = of_f, of_n
    f = 1 / (1 + np.exp(-(0.4 * 1.5 + 0.1 + 0.9 * -0.6 - 0.3)))
    n = np.tanh(-1.1 * 1.5 + 0.2 + f * (0.7 * -0.6 + 0.5))
    y = forward_reference(case, problem)[0]
    assert y.item() == pytest.approx((1 - f) * n + f * -0.6, rel=1e-14)


@pytest.mark.parametrize("sizes", [SMALL, LARGER], ids=["small", "larger"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COMBINED)
def test_the_engine_equals_the_reference(name: str, dtype: str, sizes, isa: str) -> None:
    case = case_of(name, dtype=dtype, **sizes)
    problem = draw(case)
    assert_results_close(train(case, problem), run_reference(case, problem), dtype)
    problem.masks = None
    expected = forward_reference(case, problem)[:2]
    assert_results_close(infer(case, problem), dict(zip(("y", "hn"), expected, strict=True)), dtype)


@pytest.mark.parametrize("name", COMBINED)
def test_bits_are_those_of_any_threads_and_of_recomputed_gates(name: str) -> None:
    case = case_of(name, dtype="float64", **LARGER)
    problem = draw(case)
    one = train_at_the_border(case, problem, threads=1)
    assert_same_bits(train_at_the_border(case, problem, threads=2), one)
    assert_same_bits(train_at_the_border(case, problem, threads=2, recompute=True), one)


@pytest.mark.parametrize("T", [1, 70])
def test_long_and_wide_layers_have_the_same_bits_for_any_threads(T: int) -> None:
    case = Case(cell="minimal", T=T, N=33, D=40, H=129, layers=2)
    problem = draw(case)
    one = train_at_the_border(case, problem, threads=1)
    assert_same_bits(train_at_the_border(case, problem, threads=2), one)
    assert_results_close(one, run_reference(case, problem), "float32")


def test_functional_runs_it() -> None:
    case = Case(cell="minimal", ragged=True, **LARGER)
    p = draw(case)
    y, h, tape = functional.forward(case.spec, p.params, p.x, p.h0, p.lengths)
    dx, dh, grads = functional.backward(case.spec, p.params, tape, p.dy, p.dhn)
    actual = {"y": y, "hn": h, "dx": dx, "dh0": dh} | {f"d {k}": v for k, v in grads.items()}
    assert_same_bits(actual, train(case, p))


@pytest.mark.parametrize("name", COMBINED)
def test_a_stream_has_the_bits_of_a_call(name: str) -> None:
    case = case_of(name, **LARGER).but(bidirectional=False, ragged=False, resets=False)
    problem = draw(case)
    frozen = build(case, problem).freeze()
    stream = frozen.stream(batch=case.N)
    stream.state = problem.h0
    steps = np.stack([stream.step(x_t) for x_t in problem.x])
    expected = infer(case, problem)
    assert_array_same_bits(steps, expected["y"])
    assert_array_same_bits(stream.state, expected["hn"])
    assert_same_bits(infer(case, problem, frozen), expected)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_reduced_weights_are_the_references(weights: str, isa: str) -> None:
    case = Case(cell="minimal", layers=2, bidirectional=True, **LARGER)
    p = draw(case)
    y, hn, _, _ = reference.forward(case.spec, p.params, p.x, p.h0, weights=weights)
    actual = infer(case, p, build(case, p).freeze(weights))
    if weights == "bfloat16":
        assert_results_close(actual, {"y": y, "hn": hn}, "float32")
    else:  # a last bit may turn a whole number over
        assert np.abs(actual["y"] - y).max() < 0.02
    error = np.abs(actual["y"] - infer(case, p)["y"]).max()
    assert LARGEST_ENTRY["float32", "forward"] < error < 0.1


def test_layers_around_it_take_it() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    for layer in (
        rc.Bidirectional(Minimal(3, 4, num_layers=2, seed=1), merge="sum"),
        rc.Stack([Minimal(3, 5, seed=1), rc.LSTM(5, 4, seed=2), Minimal(4, 4, clip=1.0, seed=3)]),
    ):
        y, _ = layer.forward(x)
        layer.backward(np.ones_like(y))
        assert all(np.abs(value).max() > 0 for value in layer.grads.values())
        assert_array_same_bits(layer.freeze()(x)[0], y)


def test_it_is_saved_loaded_pickled_and_shown(tmp_path: Path) -> None:
    layer = Minimal(3, 4, num_layers=2, layer_norm=True, zoneout=0.25, stateful=True, seed=1)
    shown = "Minimal(3, 4, num_layers=2, stateful=True, zoneout=0.25, layer_norm=True)"
    assert repr(layer) == shown
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    rc.save(tmp_path / "layer", layer)
    loaded, pickled = rc.load(tmp_path / "layer"), pickle.loads(pickle.dumps(layer))
    y, _ = layer(x)
    for copy in (loaded, pickled):
        assert repr(copy) == shown
        assert_array_same_bits(copy(x)[0], y)


def test_chunks_held_weights_and_retained_tapes_change_no_bits() -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 3)).astype(np.float32)
    whole = Minimal(3, 4, 2, batch_first=True, seed=1)
    chunked = Minimal(3, 4, 2, batch_first=True, stateful=True, seed=1)
    y, _, tape = whole.record(x)
    with chunked.hold():
        chunks = [chunked.forward(part)[0] for part in (x[:, :4], x[:, 4:])]
    assert_array_same_bits(np.concatenate(chunks, axis=1), y)
    first, _ = whole.backward(y, tape=tape, retain=True)
    assert_array_same_bits(whole.backward(y, tape=tape)[0], first)


def test_what_the_cell_lacks_is_refused() -> None:
    for option in ("peephole", "reset_after", "nonlinearity", "unheard_of"):
        with pytest.raises(TypeError, match=f"{option}: expected one of"):
            Minimal(3, 4, **{option: 1})
    with pytest.raises(ValueError, match="one probability"):
        Minimal(3, 4, zoneout=(0.1, 0.2))
