"""How arrays lie in memory: strides, offsets, flags, overlaps, and nothing read past an end."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from cases import CELLS, Case, Problem, assert_same_bits, draw
from engine import build, infer, state_of, train
from processes import TESTS, run, run_python

CASE = Case(T=6, N=5, D=9, H=11, layers=2, bidirectional=True)


def spread(array: np.ndarray, steps: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """Return equal values with other strides: every steps-th of a larger array, axes permuted."""
    shape = [size * abs(step) + 1 for size, step in zip(array.shape, steps, strict=True)]
    room = np.full([shape[axis] for axis in order], np.nan, array.dtype)
    room = room.transpose(np.argsort(order))
    view = room[tuple(slice(None, size * abs(step), step) if step > 0
                      else slice(size * -step - 1, None, step)
                      for size, step in zip(array.shape, steps, strict=True))]  # fmt: skip
    view[...] = array
    return view


LAYOUTS = [
    (steps, order)
    for steps in itertools.product((1, 2, -1), repeat=3)
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0))
    if (steps, order) != ((1, 1, 1), (0, 1, 2))
]


@pytest.mark.parametrize(("steps", "order"), LAYOUTS, ids=str)
def test_strided_sequences_and_states_give_the_bits_of_contiguous_ones(steps, order) -> None:
    problem = draw(CASE)
    strided = problem.but(
        **{name: spread(getattr(problem, name), steps, order)
           for name in ("x", "dy", "h0", "c0", "dhn", "dcn")}
    )  # fmt: skip
    assert np.array_equal(strided.x, problem.x)
    assert not any(getattr(strided, name).flags.c_contiguous for name in ("x", "dy", "h0", "dcn"))
    assert_same_bits(train(CASE, strided), train(CASE, problem))
    assert_same_bits(infer(CASE, strided), infer(CASE, problem))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_broadcast_inputs_give_the_bits_of_their_copies(axis: int) -> None:
    problem = draw(CASE)
    changes = {}
    for name in ("x", "dy"):
        array = getattr(problem, name)
        view = np.broadcast_to(array.take([0], axis), array.shape)
        assert view.strides[axis] == 0
        changes[name] = view
    copies = {name: view.copy() for name, view in changes.items()}
    flat, full = problem.but(**changes), problem.but(**copies)
    assert_same_bits(train(CASE, flat), train(CASE, full))


@pytest.mark.parametrize("offset", [*range(0, 64, 4), 1, 2, 3, 33])
def test_arrays_at_any_offset_give_the_same_bits(offset: int) -> None:
    def shifted(array: np.ndarray) -> np.ndarray:
        room = np.empty(array.nbytes + 128, "u1")
        start = -room.ctypes.data % 64 + offset
        view = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        view[...] = array
        assert view.ctypes.data % 64 == offset
        return view

    problem = draw(CASE)
    moved = problem.but(
        **{name: shifted(getattr(problem, name)) for name in ("x", "dy", "h0", "c0", "dhn", "dcn")}
    )
    assert moved.x.flags.aligned == (offset % 4 == 0)
    assert_same_bits(train(CASE, moved), train(CASE, problem))


def test_odd_strides_on_an_axis_of_one_change_nothing() -> None:
    case = CASE.but(N=1)
    problem = draw(case)
    strides = (problem.x.strides[0], 4096, 4)
    odd = np.lib.stride_tricks.as_strided(problem.x, problem.x.shape, strides)
    assert odd.strides[1] == 4096
    assert_same_bits(train(case, problem.but(x=odd)), train(case, problem))


def test_read_only_inputs_are_taken_and_no_input_is_written() -> None:
    problem, untouched = draw(CASE), draw(CASE)
    for array in (problem.x, problem.dy, problem.h0, problem.c0, problem.dhn, problem.dcn):
        array.flags.writeable = False
    layer = build(CASE, problem)
    results = train(CASE, problem, layer)
    assert_same_bits(results, train(CASE, untouched))
    for name in ("x", "dy", "h0", "c0", "dhn", "dcn"):
        assert_same_bits({name: getattr(problem, name)}, {name: getattr(draw(CASE), name)})
    assert_same_bits(dict(layer.params), draw(CASE).params)


def test_results_are_new_arrays() -> None:
    problem = draw(CASE.but(T=0))
    layer = build(CASE, problem)
    _, (h, c) = layer(problem.x, (problem.h0, problem.c0))
    assert not np.shares_memory(h, problem.h0)
    assert not np.shares_memory(c, problem.c0)


def test_h0_and_c0_may_be_one_array() -> None:
    problem = draw(CASE)
    same, apart = problem.but(c0=problem.h0), problem.but(c0=problem.h0.copy())
    assert_same_bits(train(CASE, same), train(CASE, apart))


def frozen_case() -> tuple[object, Problem]:
    case = Case(cell="gru", T=4, N=3, D=8, H=8)
    problem = draw(case)
    return build(case, problem).freeze(), problem


def test_out_receives_y() -> None:
    engine, p = frozen_case()
    expected, _ = engine(p.x, p.h0)
    out = np.full_like(expected, np.nan)
    y, _ = engine(p.x, p.h0, out=out)
    assert y is out
    assert_same_bits({"y": out}, {"y": expected})
    wide = np.full((4, 3, 20), np.nan, "f4")
    engine(p.x, p.h0, out=wide[:, :, 5:13])
    assert_same_bits({"y": wide[:, :, 5:13]}, {"y": expected})
    assert np.isnan(wide[:, :, :5]).all()
    assert np.isnan(wide[:, :, 13:]).all()


def test_out_over_an_input_is_a_value_error_and_changes_nothing() -> None:
    engine, p = frozen_case()
    kept = p.x.copy()
    with pytest.raises(ValueError, match="out"):
        engine(p.x, p.h0, out=p.x)
    room = np.zeros((5, 3, 8), "f4")
    room[:4] = p.x
    with pytest.raises(ValueError, match="out"):
        engine(room[:4], p.h0, out=room[1:])
    big = np.zeros((4, 3, 8), "f4")
    with pytest.raises(ValueError, match="out"):
        engine(p.x, big[:1], out=big)
    assert np.array_equal(p.x, kept)
    assert (big == 0).all()


@pytest.mark.parametrize("what", ["read-only", "broadcast", "misshapen", "wrong dtype"])
def test_an_out_that_cannot_be_written_is_an_error(what: str) -> None:
    engine, p = frozen_case()
    out = {
        "read-only": np.zeros((4, 3, 8), "f4"),
        "broadcast": np.lib.stride_tricks.as_strided(np.zeros(8, "f4"), (4, 3, 8), (0, 0, 4)),
        "misshapen": np.zeros((4, 3, 9), "f4"),
        "wrong dtype": np.zeros((4, 3, 8), "f8"),
    }[what]
    if what == "read-only":
        out.flags.writeable = False
    with pytest.raises(TypeError if what == "wrong dtype" else ValueError, match="out"):
        engine(p.x, p.h0, out=out)
    assert (out == 0).all()


def test_a_guard_page_kills_who_reads_one_past_the_end() -> None:
    for at_end, offset in ((True, 3 * 4), (False, -4)):
        done = run_python(f"""
            import ctypes
            from guarded import guarded
            a = guarded(np.ones(3, "f4"), {at_end})
            assert a.sum() == 3
            print("before", flush=True)
            ctypes.string_at(a.ctypes.data + {offset}, 4)
        """)
        assert done.stdout.strip() == "before", done.stderr
        assert done.returncode < 0


def test_nothing_is_read_or_written_past_any_array(isa: str) -> None:
    done = run([sys.executable, "-X", "faulthandler", str(TESTS / "guarded.py"), isa], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split(":")[1]) > 800


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_weights_written_in_any_way_are_seen_by_the_next_call(cell: str, kind: str) -> None:
    case = Case(cell=cell, nonlinearity=kind, T=3, N=2, D=4, H=9)
    first, second = draw(case), draw(case.but(seed=1))
    layer = build(case, first)
    before = train(case, first, layer)
    for name, value in second.params.items():
        layer.params[name][...] = value
    changed = train(case, first, layer)
    assert_same_bits(changed, train(case, first.but(params=second.params)))
    assert not np.array_equal(changed["y"], before["y"])
    assert not np.array_equal(changed["dx"], before["dx"])
    frozen = layer.freeze()
    for name, value in first.params.items():
        layer.params[name][...] = value
    assert_same_bits(train(case, first, layer), before)
    y, _ = frozen(first.x, state_of(first.h0, first.c0))
    assert_same_bits({"y": y}, {"y": changed["y"]})
