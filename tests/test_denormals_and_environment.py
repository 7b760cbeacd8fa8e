"""Subnormal numbers, NaN and infinity, and the caller's floating-point environment."""

from __future__ import annotations

import ctypes
import platform
import time

import numpy as np
import pytest
from cases import (
    CELLS,
    Case,
    Problem,
    assert_array_same_bits,
    assert_same_bits,
    draw,
    run_reference,
)
from engine import build, infer, train
from processes import output_of

import rnncore as rc
from rnncore import reference
from rnncore.cells import CellSpec

KINDS = [*CELLS, ("lstm", "projected")]
SUBNORMAL = np.float32(1e-40)
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads and sets MXCSR")


def case_of(cell: str, kind: str, **options: object) -> Case:
    if kind == "projected":
        return Case(cell=cell, proj_size=5, **options)
    return Case(cell=cell, nonlinearity=kind, **options)


def seconds(case: Case, problem: Problem) -> float:
    """Return the least of seven times of forward and backward."""
    layer, times = build(case, problem), []
    for _ in range(7):
        start = time.perf_counter()
        train(case, problem, layer)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_subnormal_numbers_cost_no_more_than_others(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind, T=40, N=8, D=32, H=64)
    plain, tiny = draw(case), draw(case)
    for name in ("x", "h0", "c0", "dy", "dhn", "dcn"):
        if getattr(tiny, name) is not None:
            getattr(tiny, name)[...] *= SUBNORMAL
    for value in tiny.params.values():
        value *= SUBNORMAL
    assert 0 < np.abs(tiny.x).max() < np.finfo("f4").smallest_normal
    with rc.threads(1):
        assert seconds(case, tiny) <= 3.0 * seconds(case, plain)


@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_subnormal_numbers_count_as_zero_within_the_published_bound(cell, kind, isa) -> None:
    case = case_of(cell, kind, T=6, N=3, D=9, H=11)
    problem = draw(case)
    problem.x[:, 1] *= SUBNORMAL
    for name in ("weight_ih_l0", "weight_hh_l0"):
        problem.params[name][3] *= SUBNORMAL
    y, expected = infer(case, problem)["y"], run_reference(case, problem)["y"]
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


def test_a_state_that_decays_through_the_subnormals_ends_at_zero(isa: str) -> None:
    case = Case(cell="rnn", nonlinearity="relu", T=400, N=2, D=1, H=5, bias=False)
    problem = draw(case)
    problem.x[:] = 0
    problem.params["weight_hh_l0"][:] = 0.5 * np.eye(5)
    problem.h0 = np.abs(problem.h0)
    y = infer(case, problem)["y"]
    exact = problem.h0 * 0.5 ** np.arange(1.0, 401.0)[:, None, None]
    flushed = np.where(exact < np.finfo("f4").smallest_normal, 0.0, exact)
    assert_array_same_bits(y, flushed.astype("f4"))
    assert (y[100] > 0).all()


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_nan_in_a_row_stays_in_that_row_and_after_its_step(cell: str, kind: str, isa: str) -> None:
    case = case_of(cell, kind, T=7, N=21, D=9, H=19, layers=2)
    clean, dirty = draw(case), draw(case)
    dirty.x[3, 10, 4] = np.nan
    good, bad, expected = train(case, clean), train(case, dirty), run_reference(case, dirty)
    others = np.arange(case.N) != 10
    for name in ("y", "hn", "cn", "dx", "dh0", "dc0"):
        if name in good:
            assert_array_same_bits(bad[name][:, others], good[name][:, others], name)
    assert_array_same_bits(bad["y"][:3], good["y"][:3])
    for name in ("y", "hn"):
        assert np.array_equal(np.isnan(bad[name]), np.isnan(expected[name])), name
    assert np.isnan(bad["y"][3:, 10]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_nan_and_infinity_anywhere_give_the_references_nan_and_infinity(
    cell, kind, value, isa
) -> None:
    """float64, where the engine and the reference overflow and saturate at the same values."""
    case = case_of(cell, kind, T=4, N=3, D=9, H=11, bidirectional=True, dtype="float64")
    names = ["x", "h0", *draw(case).params] + (["c0"] if cell == "lstm" else [])
    for name in names:
        problem = draw(case)
        array = problem.params[name] if name in problem.params else getattr(problem, name)
        array[(1,) * array.ndim] = value
        actual, expected = infer(case, problem), run_reference(case, problem)
        for output, result in actual.items():
            place = f"{output} with {value} in {name}"
            right = expected[output]
            assert np.array_equal(np.isnan(result), np.isnan(right)), place
            assert np.array_equal(np.isposinf(result), np.isposinf(right)), place
            assert np.array_equal(np.isneginf(result), np.isneginf(right)), place
            finite = np.isfinite(right)
            np.testing.assert_allclose(result[finite], right[finite], rtol=1e-11, atol=1e-12)


def test_nan_in_a_recurrent_weight_shows_even_where_h_is_zero(isa: str) -> None:
    for cell, kind in CELLS:
        case = case_of(cell, kind, T=2, N=2, D=3, H=9, states=False)
        problem = draw(case)
        problem.params["weight_hh_l0"][4, 7] = np.nan
        right = np.isnan(run_reference(case, problem)["y"])
        assert right[0, :, 4].all()
        for y in (infer(case, problem)["y"], train(case, problem)["y"]):
            assert np.array_equal(np.isnan(y), right)
        engine = build(case, problem).freeze("bfloat16")
        assert np.isnan(engine(problem.x.astype("f4"))[0][0, :, 4]).all()


@pytest.mark.parametrize("size", [np.inf, 3e38])
def test_huge_inputs_saturate_the_gates(size: float, isa: str) -> None:
    for cell, kind in (("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh")):
        case = case_of(cell, kind, T=4, N=2, D=1, H=9)
        problem = draw(case)
        problem.x[1, 0], problem.x[1, 1] = size, -size
        problem.params["weight_ih_l0"] *= 0.5
        y, expected = infer(case, problem)["y"], run_reference(case, problem)["y"]
        assert np.isfinite(expected).all()
        assert np.abs(y - expected).max() <= 2e-6


def test_a_forget_gate_of_one_keeps_c_for_ten_thousand_steps(isa: str) -> None:
    case = Case(T=10_000, N=1, D=1, H=9, states=True)
    problem = draw(case)
    for value in problem.params.values():
        value[...] = 0
    problem.params["bias_ih_l0"][:] = np.repeat([100.0, 100.0, 0.0, 100.0], 9)
    problem.x[:] = 0
    results = train(case, problem)
    assert_array_same_bits(results["cn"], problem.c0)
    assert np.abs(results["y"] - np.tanh(problem.c0.astype("f8"))).max() < 2e-7
    assert (results["d bias_ih_l0"][np.r_[0:18, 27:36]] == 0).all()
    assert np.isfinite(results["d bias_ih_l0"]).all()
    assert np.isfinite(results["dc0"]).all()


LIBM = ctypes.CDLL("libm.so.6") if platform.system() == "Linux" else None
ROUND_UP, ROUND_DOWN, ROUND_TO_ZERO = 0x800, 0x400, 0xC00
FLUSH, DENORMALS_ARE_ZERO = 1 << 15, 1 << 6


class Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64; MXCSR is its last word."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


def environment() -> Environment:
    now = Environment()
    assert LIBM.fegetenv(ctypes.byref(now)) == 0
    return now


EVERYTHING = Case(T=9, N=11, D=13, H=150, layers=2)


@x86
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mode", [ROUND_UP, ROUND_DOWN, ROUND_TO_ZERO])
def test_the_callers_rounding_mode_changes_nothing_and_is_kept(mode, threads, isa) -> None:
    problem = draw(EVERYTHING)
    layer = build(EVERYTHING, problem)
    with rc.threads(threads):
        expected = train(EVERYTHING, problem, layer)
        LIBM.fesetround(mode)
        try:
            actual, after = train(EVERYTHING, problem, layer), LIBM.fegetround()
        finally:
            LIBM.fesetround(0)
    assert after == mode
    assert_same_bits(actual, expected)


@x86
@pytest.mark.parametrize("threads", [1, 3])
def test_the_callers_flushing_of_subnormals_changes_nothing_and_is_kept(threads, isa) -> None:
    problem = draw(EVERYTHING)
    problem.x[:, 1] *= SUBNORMAL
    layer = build(EVERYTHING, problem)
    with rc.threads(threads):
        expected, before = train(EVERYTHING, problem, layer), environment()
        assert before.mxcsr & (FLUSH | DENORMALS_ARE_ZERO) == 0
        flushing = environment()
        flushing.mxcsr |= FLUSH | DENORMALS_ARE_ZERO
        LIBM.fesetenv(ctypes.byref(flushing))
        try:
            actual, after = train(EVERYTHING, problem, layer), environment()
        finally:
            LIBM.fesetenv(ctypes.byref(before))
    assert after.mxcsr & (FLUSH | DENORMALS_ARE_ZERO) == FLUSH | DENORMALS_ARE_ZERO
    assert_same_bits(actual, expected)


@x86
def test_import_and_calls_leave_the_environment_as_it_was() -> None:
    assert (
        output_of("""
        tiny = float("5e-324")
        from cases import Case
        train(Case(T=5, N=3, D=9, H=150), 3)
        print(tiny * 1.0 != 0.0, float("1e-310") / 2 != 0.0, np.float32(1e-40) * np.float32(1) > 0)
    """)
        == "True True True"
    )


@x86
def test_unmasked_floating_point_exceptions_do_not_kill_the_process() -> None:
    assert output_of("""
        import ctypes
        from cases import Case, draw
        from engine import build
        libm = ctypes.CDLL("libm.so.6")
        INVALID, DIVIDE, OVERFLOW, UNDERFLOW, INEXACT = 1, 4, 8, 16, 32
        case = Case(T=5, N=3, D=9, H=150)
        p = draw(case)
        p.x[1, 1] = np.nan
        p.x[2, 0] = 3e38
        layer = build(case, p)
        for threads in (1, 3):
            with rc.threads(threads):
                layer.forward(p.x); layer.backward(p.dy)
                libm.feenableexcept(INVALID | DIVIDE | OVERFLOW)
                layer.forward(p.x); layer.backward(p.dy)
                enabled = libm.fegetexcept()
                libm.fedisableexcept(63)
                print(enabled == INVALID | DIVIDE | OVERFLOW)
    """).split() == ["True", "True"]


def test_no_floating_point_error_is_raised_by_or_after_a_call() -> None:
    case = Case(T=5, N=3, D=9, H=20)
    problem = draw(case)
    problem.x[2, 1] = 3e38
    with np.errstate(all="raise"):
        layer = build(case, problem)
        infer(case, problem, layer)
        assert np.add(1.5, 2.5) == 4.0
        assert np.multiply(np.float32([1.5]), np.float32([2.0]))[0] == 3.0


def test_bits_do_not_depend_on_what_ran_before() -> None:
    case, other = Case(T=4, N=5, D=9, H=33), Case(cell="gru", T=9, N=31, D=5, H=90)
    problem = draw(case)
    expected = train(case, problem)
    noisy = draw(other)
    noisy.x[:] = np.nan
    noisy.dy[:] = np.nan
    for threads in (1, 3):
        with rc.threads(threads):
            train(other, noisy)
            assert_same_bits(train(case, problem), expected)


@pytest.mark.parametrize("size", [1, 5])
def test_infinite_gradients_go_through_a_projection_as_ieee_arithmetic_has_them(
    size: int, isa: str
) -> None:
    layer = rc.LSTM(3, 20, proj_size=size, seed=1)
    x = np.random.default_rng(0).standard_normal((4, 2, 3)).astype("f4")
    dy = np.ones((4, 2, size), "f4")
    dy[2, 0, 0] = np.inf
    layer.forward(x)
    dx, _ = layer.backward(dy)
    spec = CellSpec("lstm", 3, 20, proj_size=size)
    *_, tape = reference.forward(spec, layer.params, x)
    expected = reference.backward(spec, layer.params, tape, dy)[0]
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(expected))
    np.testing.assert_array_equal(np.isfinite(dx), np.isfinite(expected))
