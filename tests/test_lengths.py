"""Ragged batches: every row as if it were alone and exactly as long as it is."""

from __future__ import annotations

import numpy as np
import pytest
from cases import (
    CELLS,
    Case,
    Problem,
    assert_array_same_bits,
    assert_results_close,
    assert_same_bits,
    draw,
    run_reference,
)
from engine import build, infer, state_of, train

KINDS = [*CELLS, ("lstm", "projected")]
LENGTHS = np.array([4, 0, 9, 1, 7, 7, 0, 3])
SIZES = {"T": 9, "N": 8, "D": 10, "H": 19, "layers": 2, "bidirectional": True}


def case_of(cell: str, kind: str, **changes: object) -> Case:
    options = SIZES | changes
    if kind == "projected":
        return Case(cell=cell, proj_size=6, **options)
    return Case(cell=cell, nonlinearity=kind, **options)


def ragged(case: Case) -> Problem:
    return draw(case).but(lengths=LENGTHS.copy())


def past_the_ends(T: int, lengths: np.ndarray) -> np.ndarray:
    """Return a (T, N) mask of the steps that are padding."""
    return np.arange(T)[:, None] >= lengths


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_full_lengths_give_the_bits_of_no_lengths(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind)
    problem = draw(case)
    full = problem.but(lengths=np.full(case.N, case.T))
    assert_same_bits(train(case, full), train(case, problem))
    assert_same_bits(infer(case, full), infer(case, problem))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_unsorted_lengths_with_empty_rows_equal_the_reference(cell, kind, dtype, isa) -> None:
    case = case_of(cell, kind, dtype=dtype)
    problem = ragged(case)
    assert_results_close(train(case, problem), run_reference(case, problem), dtype)


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_each_row_has_the_bits_of_its_sequence_alone(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind)
    problem = ragged(case)
    whole = train(case, problem)
    for row, length in enumerate(LENGTHS):
        one = slice(row, row + 1)
        taken = {
            name: None if getattr(problem, name) is None else getattr(problem, name)[:, one]
            for name in ("h0", "c0", "dhn", "dcn")
        }
        alone = problem.but(
            x=problem.x[:length, one], dy=problem.dy[:length, one], lengths=None, **taken
        )
        single = train(case.but(T=int(length), N=1), alone)
        for name, value in single.items():
            if name[:2] != "d ":
                own = whole[name][: len(value), one]
                assert_array_same_bits(own, value, f"{name} of row {row}")


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_an_empty_row_keeps_its_state_and_hands_its_gradient_back(cell, kind, isa) -> None:
    case = case_of(cell, kind)
    problem = ragged(case)
    results, empty = train(case, problem), LENGTHS == 0
    assert empty.sum() == 2
    assert_array_same_bits(results["hn"][:, empty], problem.h0[:, empty])
    assert_array_same_bits(results["dh0"][:, empty], problem.dhn[:, empty])
    if case.cell == "lstm":
        assert_array_same_bits(results["cn"][:, empty], problem.c0[:, empty])
        assert_array_same_bits(results["dc0"][:, empty], problem.dcn[:, empty])


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_a_batch_of_empty_rows_gives_zeros_and_its_states(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind)
    problem = draw(case).but(lengths=np.zeros(case.N, int))
    results = train(case, problem)
    assert_array_same_bits(results["hn"], problem.h0)
    assert_array_same_bits(results["dh0"], problem.dhn)
    zeros = {name: v for name, v in results.items() if name in ("y", "dx") or name[:2] == "d "}
    assert len(zeros) > 10
    assert_same_bits(zeros, {name: np.zeros_like(value) for name, value in zeros.items()})


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_past_the_ends_y_and_dx_are_positive_zeros(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind)
    problem = ragged(case)
    problem.lengths = np.minimum(problem.lengths, case.T - 2)
    results = train(case, problem)
    padding = past_the_ends(case.T, problem.lengths)
    for name in ("y", "dx"):
        beyond = results[name][padding]
        assert beyond.size > 100
        assert_array_same_bits(beyond, np.zeros_like(beyond), name)
        assert (results[name][~padding] != 0).mean() > 0.3
    out = np.full_like(results["y"], np.nan)
    build(case, problem).freeze()(
        problem.x, state_of(problem.h0, problem.c0), lengths=problem.lengths, out=out
    )
    assert_array_same_bits(out, results["y"], "out")


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_what_stands_in_the_padding_has_no_effect(cell, kind, poison, isa) -> None:
    case = case_of(cell, kind)
    clean, dirty = ragged(case), ragged(case)
    padding = past_the_ends(case.T, LENGTHS)
    dirty.x[padding] = poison
    dirty.dy[padding] = poison
    assert not np.array_equal(dirty.x, clean.x)
    assert_same_bits(train(case, dirty), train(case, clean))


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_the_reverse_direction_is_the_forward_one_on_reversed_rows(cell, kind, isa) -> None:
    case = case_of(cell, kind, layers=1)
    problem = ragged(case)
    both = infer(case, problem)
    one = case.but(bidirectional=False)
    turned = problem.x.copy()
    for row, length in enumerate(LENGTHS):
        turned[:length, row] = turned[:length, row][::-1]
    params = {
        name.removesuffix("_reverse"): value
        for name, value in problem.params.items()
        if name.endswith("_reverse")
    }
    c0 = None if problem.c0 is None else problem.c0[1:]
    back = infer(one, problem.but(x=turned, params=params, h0=problem.h0[1:], c0=c0))
    for row, length in enumerate(LENGTHS):
        expected = np.ascontiguousarray(back["y"][:length, row][::-1])
        assert_array_same_bits(both["y"][:length, row, case.H :], expected, f"row {row}")
    assert_array_same_bits(both["hn"][1:], back["hn"])


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        ([4, 0, 9, 1, 10, 7, 0, 3], "10"),
        ([4, 0, 9, -1, 7, 7, 0, 3], "-1"),
        ([4, 0, 9], "8"),
        ([[4, 0, 9, 1, 7, 7, 0, 3]], "8"),
        (np.array([2**63, 0, 9, 1, 7, 7, 0, 3], "u8"), str(2**63)),
    ],
)
def test_impossible_lengths_are_value_errors_and_change_nothing(lengths, named: str) -> None:
    case = case_of("lstm", "tanh")
    problem = ragged(case)
    layer = build(case, problem)
    expected = train(case, problem, layer)
    for call in (layer, layer.forward, layer.record, layer.freeze()):
        with pytest.raises(ValueError, match="lengths") as error:
            call(problem.x, lengths=np.array(lengths))
        assert named in str(error.value)
    assert_same_bits(train(case, problem, layer), expected)


def test_lengths_that_are_not_integers_are_type_errors() -> None:
    case = case_of("gru", "tanh")
    problem = ragged(case)
    layer = build(case, problem)
    for lengths in (LENGTHS.astype("f8"), LENGTHS > 1, LENGTHS.astype("c8"), "12345678"):
        with pytest.raises(TypeError, match="lengths"):
            layer(problem.x, lengths=lengths)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u4", "i8", "u8", ">i4"])
def test_lengths_of_every_integer_type_and_stride_are_taken(dtype: str) -> None:
    case = case_of("gru", "tanh")
    problem = ragged(case)
    expected = infer(case, problem)
    assert_same_bits(infer(case, problem.but(lengths=LENGTHS.astype(dtype))), expected)
    strided = np.repeat(LENGTHS.astype(dtype), 3)[::3]
    assert not strided.flags.c_contiguous
    assert_same_bits(infer(case, problem.but(lengths=strided)), expected)
    assert_same_bits(infer(case, problem.but(lengths=LENGTHS.tolist())), expected)


def test_lengths_are_copied_at_the_call() -> None:
    case = case_of("lstm", "tanh")
    p = ragged(case)
    layer = build(case, p)
    expected = train(case, p, layer)
    y, _ = layer.forward(p.x, (p.h0, p.c0), lengths=p.lengths)
    p.lengths[:] = 2
    dx, _ = layer.backward(p.dy, (p.dhn, p.dcn))
    assert_same_bits({"y": y, "dx": dx}, {"y": expected["y"], "dx": expected["dx"]})


def test_calls_with_and_without_lengths_may_alternate() -> None:
    case = case_of("gru", "tanh")
    full, short = draw(case), ragged(case)
    layer = build(case, full)
    expected = [train(case, p) for p in (full, short)]
    for turn in (0, 1, 1, 0, 1, 0):
        assert_same_bits(train(case, (full, short)[turn], layer), expected[turn])
