"""The promise on bits, sentence by sentence: outputs and gradients byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from cases import (
    CELLS,
    Case,
    Problem,
    Results,
    assert_array_same_bits,
    assert_same_bits,
    draw,
)
from engine import build, infer, parts, state_of, train
from processes import output_of

import rnncore as rc
from rnncore import _rnncore

SIZES = {
    "small": {"T": 5, "N": 3, "D": 7, "H": 13, "layers": 2},
    "one row": {"T": 6, "N": 1, "D": 31, "H": 151},
    "wide": {"T": 5, "N": 19, "D": 33, "H": 200},
    "tall": {"T": 5, "N": 70, "D": 17, "H": 61},
    "stacked": {"T": 6, "N": 11, "D": 29, "H": 67, "layers": 2, "bidirectional": True},
    "ragged": {"T": 9, "N": 37, "D": 23, "H": 53, "bidirectional": True, "ragged": True},
}
KINDS = [*CELLS, ("lstm", "projected")]
ALL = [(cell, kind, size) for cell, kind in KINDS for size in SIZES]


def case_of(cell: str, kind: str, size: str, **changes: object) -> Case:
    """Return a case; a projected LSTM puts out 5 numbers, or 41 from a wide layer."""
    options = SIZES[size] | changes
    if kind == "projected":
        return Case(cell=cell, proj_size=41 if options["H"] > 60 else 5, **options)
    return Case(cell=cell, nonlinearity=kind, **options)


def rows_of(problem: Problem, rows: np.ndarray | slice) -> Problem:
    """Return the problem with some of its rows, in the order given."""
    taken = {
        name: None if (array := getattr(problem, name)) is None else array[:, rows]
        for name in ("x", "dy", "h0", "c0", "dhn", "dcn")
    }
    lengths = None if problem.lengths is None else problem.lengths[rows]
    return problem.but(lengths=lengths, **taken)


def per_row(results: Results, rows: np.ndarray | slice = slice(None)) -> Results:
    """Return those results that belong to single rows: no gradients of parameters."""
    return {name: value[:, rows] for name, value in results.items() if name[:2] != "d "}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_bits_do_not_depend_on_the_number_of_threads(cell, kind, size, dtype) -> None:
    case = case_of(cell, kind, size, dtype=dtype)
    problem = draw(case)
    layer = build(case, problem)
    with rc.threads(1):
        expected = train(case, problem, layer)
        inferred = infer(case, problem, layer)
    for threads in (2, 3, 5):
        with rc.threads(threads):
            assert_same_bits(train(case, problem, layer), expected)
            assert_same_bits(infer(case, problem, layer), inferred)


@pytest.mark.parametrize("size", [size for size in SIZES if size != "small"])
def test_all_but_the_small_size_really_run_on_several_threads(size: str) -> None:
    started = output_of(f"""
        from test_bits import case_of
        train(case_of("gru", "tanh", {size!r}), 3)
        print(_rnncore._debug.team_threads())
    """)
    assert started == "2"


@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_a_row_has_the_bits_it_has_alone(cell, kind, size, isa) -> None:
    case = case_of(cell, kind, size)
    problem = draw(case)
    whole = train(case, problem)
    for row in sorted({0, case.N // 2, case.N - 1}):
        one = slice(row, row + 1)
        alone = train(case.but(N=1), rows_of(problem, one))
        assert_same_bits(per_row(alone), per_row(whole, one))


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_permuted_and_divided_batches_have_the_bits_of_the_whole(cell, kind, isa) -> None:
    for size in ("tall", "ragged"):
        case = case_of(cell, kind, size)
        problem = draw(case)
        whole = train(case, problem)
        order = np.random.default_rng(8).permutation(case.N)
        assert_same_bits(per_row(train(case, rows_of(problem, order))), per_row(whole, order))
        for rows in (slice(0, 7), slice(7, 16), slice(16, case.N)):
            part = case.but(N=len(range(case.N)[rows]))
            assert_same_bits(per_row(train(part, rows_of(problem, rows))), per_row(whole, rows))


@pytest.mark.parametrize("anchor", range(14))
def test_a_row_has_the_same_bits_at_every_place_of_a_batch(anchor: int, isa: str) -> None:
    case = Case(cell="gru", T=3, N=14, D=9, H=19)
    problem = draw(case)
    first = rows_of(problem, slice(0, 1))
    order = np.roll(np.arange(14), anchor)
    moved = train(case, rows_of(problem, order))
    at = slice(anchor, anchor + 1)
    assert_same_bits(per_row(moved, at), per_row(train(case.but(N=1), first)))


def run_in_chunks(case: Case, problem: Problem, chunks: list[int]) -> Results:
    """Run forward chunk by chunk with the state carried on, backward with dstate handed back."""
    layer = build(case, problem)
    state, tapes, ys, start = state_of(problem.h0, problem.c0), [], [], 0
    for steps in chunks:
        piece = slice(start, start + steps)
        y, state, tape = layer.record(problem.x[piece], state)
        tapes.append((piece, tape))
        ys.append(y)
        start += steps
    assert start == case.T
    dstate, dxs = state_of(problem.dhn, problem.dcn), []
    for piece, tape in reversed(tapes):
        dx, dstate = layer.backward(problem.dy[piece], dstate, tape=tape)
        dxs.append(dx)
    (hn, cn), (dh0, dc0) = parts(state), parts(dstate)
    results = {"y": np.concatenate(ys), "hn": hn, "dx": np.concatenate(dxs[::-1]), "dh0": dh0}
    return results if cn is None else results | {"cn": cn, "dc0": dc0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_a_state_of_zeros_that_is_not_multiplied_has_the_bits_of_one_that_is(
    cell: str, kind: str, dtype: str, isa: str
) -> None:
    case = case_of(cell, kind, "wide", dtype=dtype, layers=2)
    problem = draw(case)
    problem.h0[:, 0] = 0
    among_others = per_row(train(case, problem), slice(0, 1))
    alone = rows_of(problem, slice(0, 1))
    assert_same_bits(per_row(train(case, alone)), among_others)
    inferred = {name: value for name, value in among_others.items() if name[:1] != "d"}
    assert_same_bits(infer(case, alone), inferred)
    stream = build(case, problem).freeze().stream(batch=1)
    stream.state = state_of(alone.h0, alone.c0)
    steps = [stream.step(x_t) for x_t in alone.x]
    np.testing.assert_array_equal(np.stack(steps), inferred["y"])
    if alone.c0 is not None:
        alone.c0[:] = 0
    zeros = per_row(train(case, alone))
    assert_same_bits(per_row(train(case, alone.but(h0=None, c0=None))), zeros)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in alone.x]), zeros["y"])


@pytest.mark.parametrize("sizes", [{"N": 3, "D": 9, "H": 21}, {"N": 33, "D": 20, "H": 90}])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_a_sequence_in_chunks_has_the_bits_of_one_call(cell, kind, layers, sizes, isa) -> None:
    case = Case(cell=cell, nonlinearity=kind, T=100, layers=layers, **sizes)
    problem = draw(case)
    expected = per_row(train(case, problem))
    assert_same_bits(run_in_chunks(case, problem, [1, 7, 64, 28]), expected)
    with rc.threads(2):
        assert_same_bits(run_in_chunks(case, problem, [50, 49, 1]), expected)


@pytest.mark.parametrize("batch", [1, 2, 19])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_a_stream_has_the_bits_of_one_call(cell, kind, layers, batch, isa) -> None:
    case = case_of(cell, kind, "small", T=20, N=batch, H=37, layers=layers)
    problem = draw(case)
    expected = {name: value for name, value in train(case, problem).items() if name[:1] != "d"}
    stream = build(case, problem).freeze().stream(batch=batch)
    stream.state = state_of(problem.h0, problem.c0)
    out = np.full((batch, expected["y"].shape[2]), np.nan, "f4")
    ys = []
    for t, x_t in enumerate(problem.x):
        ys.append(stream.step(x_t) if t % 2 else stream.step(x_t, out=out).copy())
    hn, cn = parts(stream.state)
    results = {"y": np.stack(ys), "hn": hn} | ({} if cn is None else {"cn": cn})
    assert_same_bits(results, expected)


@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_inference_and_frozen_have_the_bits_of_training(cell, kind, size, isa) -> None:
    case = case_of(cell, kind, size)
    problem = draw(case)
    layer = build(case, problem)
    trained = train(case, problem, layer)
    expected = {name: trained[name] for name in infer(case, problem, layer)}
    assert "y" in expected
    assert_same_bits(infer(case, problem, layer), expected)
    assert_same_bits(infer(case, problem, layer.freeze()), expected)
    with layer.hold():
        assert_same_bits(train(case, problem, layer), trained)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("kind", "layers"), [(rc.LSTM, 2), (rc.GRU, 3)])
def test_layers_that_take_turns_have_the_bits_of_whole_ones(kind, layers, ragged) -> None:
    # 24 MB between two layers, more than a quarter of most L3 caches, so inference takes turns of
    # some steps; recording takes a layer whole.
    steps, batch, inputs, units = 91, 253, 24, 260
    rng = np.random.default_rng(7)
    layer = kind(inputs, units, layers, seed=7)
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    lengths = rng.integers(0, steps + 1, batch) if ragged else None
    expected, state, _ = layer.record(x, lengths=lengths)
    results, last = layer(x, lengths=lengths)
    assert_array_same_bits(results, expected)
    for ours, theirs in zip(parts(last), parts(state), strict=True):
        if theirs is not None:
            assert_array_same_bits(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind", "size"), ALL)
def test_avx2_and_avx512_have_the_same_bits(cell, kind, size, dtype) -> None:
    if not {"avx2", "avx512"} <= set(_rnncore.supported_isas()):
        pytest.skip("this machine does not have both")
    case = case_of(cell, kind, size, dtype=dtype)
    problem = draw(case)
    before, runs = _rnncore.isa(), []
    try:
        for name in ("avx2", "avx512"):
            _rnncore.set_isa(name)
            runs.append(train(case, problem))
    finally:
        _rnncore.set_isa(before)
    assert_same_bits(runs[1], runs[0])


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_a_retained_tape_gives_the_same_bits_twice(cell, kind, isa) -> None:
    for size in ("small", "ragged"):
        case = case_of(cell, kind, size)
        p = draw(case)
        layer = build(case, p)
        expected = train(case, p, layer)
        _, _, tape = layer.record(p.x, state_of(p.h0, p.c0), lengths=p.lengths)
        for retain in (True, True, False):
            layer.zero_grad()
            dx, dstate = layer.backward(p.dy, state_of(p.dhn, p.dcn), tape=tape, retain=retain)
            dh0, dc0 = parts(dstate)
            actual = {"dx": dx, "dh0": dh0} | ({} if dc0 is None else {"dc0": dc0})
            actual |= {f"d {name}": value for name, value in layer.grads.items()}
            assert_same_bits(actual, {name: expected[name] for name in actual})
        with pytest.raises(RuntimeError):
            layer.backward(p.dy, state_of(p.dhn, p.dcn), tape=tape)


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_bits_are_the_same_from_run_to_run(cell, kind) -> None:
    case = case_of(cell, kind, "stacked", T=11, N=13, D=37, H=101)
    problem = draw(case)
    with rc.threads(3):
        expected = train(case, problem)
        for _ in range(5):
            assert_same_bits(train(case, problem), expected)


def test_twice_the_outer_gradient_gives_exactly_twice_every_gradient() -> None:
    for cell, kind in CELLS:
        case = Case(cell=cell, nonlinearity=kind, **SIZES["small"])
        problem = draw(case)
        once = train(case, problem)
        doubled = {name: 2 * getattr(problem, name) for name in ("dy", "dhn")}
        if problem.dcn is not None:
            doubled["dcn"] = 2 * problem.dcn
        twice = train(case, problem.but(**doubled))
        for name in once:
            if name[0] == "d":
                assert_same_bits({name: twice[name]}, {name: 2 * once[name]})
