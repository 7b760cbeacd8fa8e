"""Weights held in bfloat16 and in 8 bits: what they mean, and that every machine agrees on it."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from cases import CELLS, Case, Problem, assert_same_bits, draw
from engine import build, infer, parts, state_of
from processes import output_of

import rnncore as rc
from rnncore import _rnncore, backends, reference
from rnncore.reference.reduced import quantize, round_to_bfloat16

KINDS = [*CELLS, ("lstm", "projected")]
SIZES = {
    "small": {"T": 5, "N": 3, "D": 7, "H": 13, "layers": 2},
    "one row": {"T": 6, "N": 1, "D": 131, "H": 151},
    "one step": {"T": 1, "N": 2, "D": 70, "H": 33, "layers": 2},
    "wide": {"T": 5, "N": 19, "D": 1, "H": 200},
    "tall": {"T": 4, "N": 110, "D": 37, "H": 19, "ragged": True},
    "both ways": {"T": 7, "N": 9, "D": 5, "H": 40, "layers": 2, "bidirectional": True},
}
ALL = [(cell, kind, size) for cell, kind in KINDS for size in SIZES]
LONG = {"T": 3, "N": 2, "D": 2075, "H": 1043}  # more than a block of k, and an odd one


def case_of(cell: str, kind: str, sizes: dict[str, int]) -> Case:
    if kind == "projected":
        return Case(cell=cell, proj_size=max(1, sizes["H"] // 3), **sizes)
    return Case(cell=cell, nonlinearity=kind, **sizes)


def rounded(problem: Problem) -> Problem:
    """Return the problem with its matrices rounded to bfloat16 by somebody else."""
    params = {
        name: value.astype(ml_dtypes.bfloat16).astype(np.float32) if value.ndim == 2 else value
        for name, value in problem.params.items()
    }
    return problem.but(params=params)


@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_bfloat16_has_the_bits_of_rounded_float32_weights(cell, kind, size, isa) -> None:
    case = case_of(cell, kind, SIZES[size])
    problem = draw(case)
    engine = build(case, problem).freeze("bfloat16")
    assert_same_bits(infer(case, problem, engine), infer(case, rounded(problem)))


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_long_sums_are_rounded_float32_ones_too(cell, kind, isa) -> None:
    case = case_of(cell, kind, LONG)
    problem = draw(case)
    engine = build(case, problem).freeze("bfloat16")
    assert_same_bits(infer(case, problem, engine), infer(case, rounded(problem)))


def test_both_roundings_to_bfloat16_are_the_standard_one() -> None:
    special = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-39, 1.00390625, 1.01171875]
    values = np.array([*special, *np.random.default_rng(0).standard_normal(1000)], np.float32)
    expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    ours = round_to_bfloat16(values.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(ours, expected)
    # The engine's: an RNN of one unit each, whose weight is the value and whose input is 1.
    values[:10] = 1.0
    layer = rc.RNN(1, values.size, nonlinearity="relu", bias=False)
    for array in layer.params.values():
        array[...] = 0
    layer.params["weight_ih_l0"][:, 0] = np.abs(values)
    y, _ = layer.freeze("bfloat16")(np.ones((1, 1, 1), np.float32))
    np.testing.assert_array_equal(y[0, 0], np.abs(values.astype(ml_dtypes.bfloat16)))


def next_state(case: Case, problem: Problem, h: np.ndarray, c: np.ndarray | None, t: int) -> tuple:
    """Take one step of the reference from a given state."""
    x = problem.x[t : t + 1]
    y, h, c, _ = reference.forward(case.spec, problem.params, x, h, c, weights="int8")
    return y[0], h, c


@pytest.mark.parametrize(("cell", "kind"), KINDS)
@pytest.mark.parametrize("sizes", [{"N": 1, "D": 5, "H": 13}, {"N": 9, "D": 130, "H": 65}])
def test_int8_steps_are_the_references_from_the_same_state(cell, kind, sizes, isa) -> None:
    # Whole numbers follow from float32 states exactly; only pointwise arithmetic differs.
    case = case_of(cell, kind, {"T": 12, **sizes})
    problem = draw(case)
    stream = build(case, problem).freeze("int8").stream(batch=case.N)
    stream.state = state_of(problem.h0, problem.c0)
    for t, x_t in enumerate(problem.x):
        expected, h, c = next_state(case, problem, *parts(stream.state), t)
        # With a projection its input is quantized, and a last bit there may turn a number over.
        tolerance = 2e-3 if kind == "projected" else 2e-6
        np.testing.assert_allclose(stream.step(x_t), expected, rtol=0, atol=tolerance)
        for actual, part in zip(parts(stream.state), (h, c), strict=True):
            if actual is not None:
                np.testing.assert_allclose(actual, part, rtol=0, atol=2 * tolerance)


@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_int8_is_close_to_the_reference_and_to_float32(cell, kind, size, isa) -> None:
    case = case_of(cell, kind, SIZES[size])
    problem = draw(case)
    layer = build(case, problem)
    y = infer(case, problem, layer.freeze("int8"))["y"]
    with backends.use("reference"):
        expected = infer(case, problem, build(case, problem).freeze("int8"))["y"]
    scale = np.abs(expected).max(initial=1e-9)
    np.testing.assert_allclose(y, expected, rtol=0, atol=0.02 * scale)
    full = infer(case, problem, layer)["y"]
    assert 0 < np.abs(y - full).max() < 0.15 * scale


def test_quantized_rows_are_what_they_say() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 33)) * np.logspace(-20, 20, 50)[:, None]
    whole, scale = quantize(rows)
    assert (np.abs(whole).max(axis=1) == 127).all()
    assert (np.abs(whole * scale - rows) <= 0.5001 * scale).all()
    whole, scale = quantize(np.array([[0.0, 0], [1e-31, 0], [np.nan, 1], [np.inf, 1]]))
    assert (whole == 0).all()
    np.testing.assert_array_equal(scale[:, 0], [0, 0, np.nan, np.nan])


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_the_promise_on_bits_holds(cell, kind, size, weights) -> None:
    case = case_of(cell, kind, SIZES[size])
    problem = draw(case)
    before, runs = _rnncore.isa(), []
    for name in {"avx2", "avx512"} & set(_rnncore.supported_isas()):
        _rnncore.set_isa(name)
        for threads in (1, 2, 3):
            with rc.threads(threads):
                runs.append(infer(case, problem, build(case, problem).freeze(weights)))
    _rnncore.set_isa(before)
    for run in runs[1:]:
        assert_same_bits(run, runs[0])
    if case.bidirectional or case.ragged:
        return
    engine = build(case, problem).freeze(weights)
    expected = infer(case, problem, engine)
    state, pieces = state_of(problem.h0, problem.c0), []
    for x in np.array_split(problem.x, min(2, case.T)):
        y, state = engine(x, state)
        pieces.append(y)
    np.testing.assert_array_equal(np.concatenate(pieces), expected["y"])
    stream = engine.stream(batch=case.N)
    stream.state = state_of(problem.h0, problem.c0)
    streamed = np.stack([stream.step(x_t) for x_t in problem.x])
    np.testing.assert_array_equal(streamed, expected["y"])
    row = problem.but(x=problem.x[:, -1:], h0=problem.h0[:, -1:])
    row.c0 = None if problem.c0 is None else problem.c0[:, -1:]
    np.testing.assert_array_equal(infer(case, row, engine)["y"], expected["y"][:, -1:])


def test_vnni_changes_no_bit() -> None:
    code = """
import numpy as np, rnncore as rc
x = np.random.default_rng(0).standard_normal((9, 7, 45)).astype(np.float32)
for layer in rc.LSTM(45, 77, 2, proj_size=31, bidirectional=True, seed=1), rc.GRU(45, 130, seed=2):
    print(digest([layer.freeze("int8")(x)[0]]))
"""
    with_it = output_of(code)
    assert with_it == output_of(code, env={"RNNCORE_VNNI": "0"})
    assert len(set(with_it.split())) == 2


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_nan_reaches_its_own_row_alone(weights, isa) -> None:
    engine = rc.LSTM(20, 30, 2, seed=1).freeze(weights)
    x = np.random.default_rng(0).standard_normal((4, 7, 20)).astype(np.float32)
    clean, _ = engine(x)
    for bad in (np.nan, np.inf):
        dirty = x.copy()
        dirty[1, 3, 5] = bad
        y, _ = engine(dirty)
        others = [0, 1, 2, 4, 5, 6]
        np.testing.assert_array_equal(y[:, others], clean[:, others])
        np.testing.assert_array_equal(y[0, 3], clean[0, 3])
        if weights == "int8" or np.isnan(bad):
            assert np.isnan(y[1:, 3]).all()


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_zeros_and_the_smallest_numbers_are_no_special_case(weights, isa) -> None:
    layer = rc.GRU(3, 5, seed=1)
    silent = layer(np.zeros((2, 2, 3), np.float32))[0]
    engine = layer.freeze(weights)
    first = engine(np.full((1, 2, 3), 1e-38, np.float32))[0]
    np.testing.assert_allclose(first, silent[:1], atol=1e-6)
    for array in layer.params.values():
        array[...] = 0
    y, _ = layer.freeze(weights)(np.ones((3, 2, 3), np.float32))
    np.testing.assert_array_equal(y, 0)
    layer.params["weight_ih_l0"][...] = np.nan
    assert np.isnan(layer.freeze(weights)(np.ones((3, 2, 3), np.float32))[0]).all()


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_an_engine_says_what_it_holds(weights: str) -> None:
    layer = rc.Stack([rc.Bidirectional(rc.LSTM(64, 96, seed=1)), rc.GRU(192, 32, seed=2)])
    engine = layer.freeze(weights)
    assert (engine.dtype, engine.weight_dtype) == ("float32", weights)
    assert repr(engine) == f"Frozen({layer!r}, {weights!r})"
    x = np.random.default_rng(0).standard_normal((4, 2, 64)).astype(np.float32)
    y, _ = engine(x)
    assert copy.deepcopy(engine) is engine
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(engine))(x)[0], y)
    out = np.full_like(y, np.nan)
    assert engine(x, out=out)[0] is out
    np.testing.assert_array_equal(out, y)
    double = rc.LSTM(5, 6, dtype="float64", seed=1)
    assert double.freeze(weights)(np.ones((2, 1, 5), np.float32))[0].dtype == np.float32


def packed_bytes(weights: str, **sizes: int) -> int:
    spec = _rnncore.Spec("lstm", num_layers=1, num_directions=1, weights=weights, **sizes)
    H, D = sizes["hidden_size"], sizes["input_size"]
    shapes = [(4 * H, D), (4 * H, H), (4 * H,), (4 * H,)]
    return _rnncore.Packed(spec, [np.zeros(s, np.float32) for s in shapes], 1).nbytes


def test_reduced_weights_take_less_memory() -> None:
    sizes = {"input_size": 512, "hidden_size": 512}
    full = packed_bytes("full", **sizes)
    assert packed_bytes("bfloat16", **sizes) < 0.51 * full
    assert packed_bytes("int8", **sizes) < 0.27 * full


def test_reduced_weights_are_for_inference_alone() -> None:
    spec = _rnncore.Spec("gru", 3, 4, 1, 1, weights="int8")
    arrays = [np.zeros(s, np.float32) for s in ((12, 3), (12, 4), (12,), (12,))]
    packed = _rnncore.Packed(spec, arrays, 1)
    x, y, hn = (np.zeros((2, 1, n), np.float32) for n in (3, 4, 4))
    with pytest.raises(ValueError, match="reduced weights are for inference"):
        _rnncore.forward(packed, x, None, None, None, None, y, hn[:1], None, None, True, False, 1)
    with pytest.raises(ValueError, match="weights: expected 'full', 'bfloat16' or 'int8'"):
        _rnncore.Spec("gru", 3, 4, 1, 1, weights="float16")
    spec = _rnncore.Spec("gru", 3, 4, 1, 1, dtype="float64", weights="int8")
    with pytest.raises(ValueError, match="weights: expected float32"):
        _rnncore.Packed(spec, [a.astype("f8") for a in arrays], 1)


def test_sums_too_long_for_int8_are_refused() -> None:
    layer = rc.RNN((1 << 17) + 1, 1)
    with pytest.raises(ValueError, match="int8 sums up to 131072 products, got 131073"):
        layer.freeze("int8")
    layer.freeze("bfloat16")


def test_the_longest_int8_sum_is_exact(isa) -> None:
    layer = rc.RNN(1 << 17, 2, nonlinearity="relu", bias=False)
    for array in layer.params.values():
        array[...] = 1.0
    layer.params["weight_ih_l0"][1] = -1.0
    engine = layer.freeze("int8")
    y, _ = engine(np.ones((1, 1, 1 << 17), np.float32))
    np.testing.assert_allclose(y[0, 0], [1 << 17, 0], rtol=1e-6)
    y, _ = engine(-np.ones((1, 1, 1 << 17), np.float32))
    np.testing.assert_allclose(y[0, 0], [0, 1 << 17], rtol=1e-6)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_many_threads_share_an_engine(weights: str) -> None:
    engine = rc.LSTM(40, 120, 2, seed=1).freeze(weights)
    xs = np.random.default_rng(0).standard_normal((16, 20, 3, 40)).astype(np.float32)
    expected = [engine(x)[0] for x in xs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for y, wanted in zip(pool.map(lambda x: engine(x)[0], xs), expected, strict=True):
                np.testing.assert_array_equal(y, wanted)
