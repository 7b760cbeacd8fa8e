"""The promise on bits with every option of the cells, in sizes around vectors, tiles and blocks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cases import (
    Case,
    Problem,
    Results,
    assert_results_close,
    assert_same_bits,
    draw,
    run_reference,
)
from engine import build, infer, parts, state_of, train_at_the_border
from variants import ALONE, case_of, random_case

import rnncore as rc
from rnncore import _rnncore

SIZES = (
    {"T": 9, "N": 7, "D": 5, "H": 17},
    {"T": 7, "N": 13, "D": 40, "H": 33, "layers": 1},
    {"T": 5, "N": 1, "D": 33, "H": 65, "bidirectional": False},
    {"T": 23, "N": 31, "D": 3, "H": 8, "layers": 1, "bidirectional": False},  # blocks to rebuild
    {"T": 3, "N": 19, "D": 16, "H": 48},
)
SEEDS = range(60)


def sized(seed: int, dtype: str = "float32") -> Case:
    """Return a random combination of options in one of the sizes."""
    return random_case(seed, **SIZES[seed // 3 % len(SIZES)]).but(dtype=dtype)


def one_way(seed: int) -> Case:
    """Return a random combination in one direction that draws no masks in training."""
    case = sized(seed).but(bidirectional=False, dropout=0.0, variational=False)
    return case.but(recurrent_dropout=0.0)


def rows_of(problem: Problem, rows: slice) -> Problem:
    """Return the problem with some of its rows."""
    taken = {
        name: None if (array := getattr(problem, name)) is None else array[:, rows]
        for name in ("x", "dy", "h0", "c0", "dhn", "dcn", "resets")
    }
    lengths = None if problem.lengths is None else problem.lengths[rows]
    return problem.but(lengths=lengths, masks=None, **taken)


def per_row(results: Results) -> Results:
    """Return those results that belong to single rows: no gradients of parameters."""
    return {name: value for name, value in results.items() if name[:2] != "d "}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_threads_and_recomputing_change_no_bit_and_the_reference_agrees(seed, dtype) -> None:
    case = sized(seed, dtype)
    problem = draw(case)
    if seed % 4 == 0:
        problem.masks = None  # zoneout by its expectation
    expected = train_at_the_border(case, problem)
    assert_results_close(expected, run_reference(case, problem), dtype)
    for threads, recompute in ((2, False), (5, False), (1, True), (3, True)):
        actual = train_at_the_border(case, problem, threads=threads, recompute=recompute)
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_avx2_and_avx512_have_the_same_bits(seed: int) -> None:
    if not {"avx2", "avx512"} <= set(_rnncore.supported_isas()):
        pytest.skip("this machine does not have both")
    case = sized(seed, ("float32", "float64")[seed % 2])
    problem = draw(case)
    before, runs = _rnncore.isa(), []
    try:
        for name in ("avx2", "avx512"):
            _rnncore.set_isa(name)
            runs.append(train_at_the_border(case, problem, recompute=seed % 4 == 0))
    finally:
        _rnncore.set_isa(before)
    assert_same_bits(runs[1], runs[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_portable_build_agrees_with_the_reference(seed: int) -> None:
    case = sized(seed, "float64")
    problem = draw(case)
    before = _rnncore.isa()
    try:
        _rnncore.set_isa("baseline")
        actual = train_at_the_border(case, problem, recompute=seed % 2 == 0)
    finally:
        _rnncore.set_isa(before)
    assert_results_close(actual, run_reference(case, problem), "float64")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(seed: int) -> None:
    case = sized(seed)
    problem = rows_of(draw(case), slice(None))
    whole = per_row(train_at_the_border(case, problem))
    for row in {0, case.N // 2, case.N - 1}:
        alone = slice(row, row + 1)
        one = per_row(train_at_the_border(case.but(N=1), rows_of(problem, alone)))
        assert_same_bits(one, {name: value[:, alone] for name, value in whole.items()})


def steps_of(problem: Problem, steps: slice, **state: np.ndarray | None) -> Problem:
    """Return some steps of a problem, with other states and gradients at its ends."""
    resets = None if problem.resets is None else problem.resets[steps]
    parts = {"x": problem.x[steps], "dy": problem.dy[steps], "resets": resets}
    return dataclasses.replace(problem, lengths=None, masks=None, **parts, **state)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sequence_in_two_calls_has_the_bits_of_one(seed: int) -> None:
    case = one_way(seed)
    problem = steps_of(draw(case), slice(None))
    expected, cut = per_row(train_at_the_border(case, problem)), case.T // 2
    early, late = slice(0, cut), slice(cut, None)
    middle = train_at_the_border(case.but(T=cut), steps_of(problem, early))
    second = steps_of(problem, late, h0=middle["hn"], c0=middle.get("cn"))
    end = train_at_the_border(case.but(T=case.T - cut), second)
    first = steps_of(problem, early, dhn=end["dh0"], dcn=end.get("dc0"))
    start = train_at_the_border(case.but(T=cut), first)
    joined = {name: np.concatenate([start[name], end[name]]) for name in ("y", "dx")}
    joined |= {name: end[name] for name in ("hn", "cn") if name in end}
    joined |= {name: start[name] for name in ("dh0", "dc0") if name in start}
    assert_same_bits(joined, {name: expected[name] for name in joined})


@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("seed", SEEDS)
def test_frozen_engines_and_streams_have_the_bits_of_a_call(seed, weights, isa) -> None:
    case = one_way(seed)
    problem = draw(case)
    problem.lengths = problem.resets = None
    layer = build(case, problem)
    engine = layer.freeze(weights)
    expected = infer(case, problem, engine)
    if weights is None:
        assert_same_bits(infer(case, problem, layer), expected)
    stream = engine.stream(batch=case.N)
    stream.state = state_of(problem.h0, problem.c0)
    y = np.stack([stream.step(x_t) for x_t in problem.x])
    hn, cn = parts(stream.state)
    assert_same_bits({"y": y, "hn": hn} | ({} if cn is None else {"cn": cn}), expected)


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_nan_before_a_reset_stays_before_it(cell: str, option: str) -> None:
    case = case_of(cell, option, T=6, H=9, bidirectional=False, dtype="float32")
    problem = draw(case)
    problem.lengths, problem.masks = None, None
    problem.resets = np.zeros((case.T, case.N), bool)
    problem.resets[3] = True
    clean = train_at_the_border(case, problem)
    problem.x[:3, 1] = np.nan
    dirty = train_at_the_border(case, problem)
    assert np.isnan(dirty["y"][:3, 1]).any()
    assert_same_bits({"y": dirty["y"][3:]}, {"y": clean["y"][3:]})
    assert_same_bits({"dx": dirty["dx"][3:]}, {"dx": clean["dx"][3:]})


def test_a_tape_of_states_alone_is_small() -> None:
    x = np.zeros((400, 8, 32), np.float32)
    for layer in (rc.LSTM(32, 64), rc.GRU(32, 64), rc.LSTM(32, 64, layer_norm=True)):
        kept = layer.record(x)[2].nbytes
        assert layer.record(x, recompute=True)[2].nbytes <= 0.25 * kept
