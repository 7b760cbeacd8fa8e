"""The CUDA backend, its kernels' own text included, against the float64 reference on the CPU."""

from __future__ import annotations

import functools
from typing import Any

import emulated_cuda as emulated
import numpy as np
import pytest
import variants
from cases import (
    Case,
    assert_results_close,
    assert_same_bits,
    draw,
    largest_given,
    run_reference,
)
from emulation.build import compiler

from rnncore import _rnncore

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation"),
    pytest.mark.host_only,
]

# A product rounds its factors once, sums and states are float32: a few roundings of the largest
# entry, whose share grows a little from layer to layer and through a norm's small deviations.
ROUNDINGS = {"float16": 40 * 2.0**-11, "bfloat16": 40 * 2.0**-8}


def sizes_of(seed: int) -> dict[str, int]:
    """Draw sizes: none, one, and some that are no multiples of anything."""
    rng = np.random.default_rng([7, seed])
    return {
        "T": int(rng.integers(0, 6)),
        "N": int(rng.integers(0, 10)),
        "H": int(rng.choice([1, 3, 7, 16, 31, 33])),
        "D": int(rng.integers(1, 9)),
    }


def random_case(seed: int, dtype: str, **changes: Any) -> Case:
    case = variants.random_case(seed, **sizes_of(seed), dtype=dtype)
    case = case.but(proj_size=min(case.proj_size, case.H), batch_first=False)
    return case.but(**changes)


def check(case: Case, **how: Any) -> None:
    problem = draw(case)
    results = emulated.train(case, problem, **how)
    assert_results_close(results, run_reference(case, problem), case.dtype, problem)


def persistent(case: Case) -> Case:
    """Return the case without what has more than one product a step, in one block's width."""
    return case.but(layer_norm=False, proj_size=0, reset_after=True, H=min(case.H, 32))


@pytest.mark.parametrize("persists", [False, True], ids=["steps", "persistent"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_cell(cell: str, dtype: str, persists: bool) -> None:
    case = Case(cell=cell, dtype=dtype, layers=2, bidirectional=True, T=6, N=5, H=9, D=4)
    check(case, persists=persists)


@pytest.mark.parametrize(("cell", "option"), variants.ALONE)
def test_every_option_alone(cell: str, option: str) -> None:
    check(variants.case_of(cell, option))


@pytest.mark.parametrize(("cell", "option"), variants.ALONE)
def test_every_option_in_persistent_blocks(cell: str, option: str) -> None:
    check(persistent(variants.case_of(cell, option, N=6)), persists=True)


@pytest.mark.parametrize("seed", range(12))
def test_random_combinations(seed: int) -> None:
    check(random_case(seed, "float64"), lengths_on_device=bool(seed % 2), retain=seed % 3 == 0)
    check(persistent(random_case(seed, "float64")), persists=True, lengths_on_device=seed % 2 == 0)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(12, 300))
def test_many_random_combinations(seed: int) -> None:
    test_random_combinations(seed)


# Seeds whose dx cancels to 1e-6 .. 1e-4 of its terms, and whether in persistent blocks.
@pytest.mark.parametrize(
    ("seed", "persists"), [(28, True), (134, False), (136, False), (191, False)]
)
def test_a_gradient_that_cancels_is_held_to_roundings_of_what_was_given(
    seed: int, persists: bool
) -> None:
    case = random_case(seed, "float64")
    case = persistent(case) if persists else case
    problem = draw(case)
    results, expected = (
        emulated.train(case, problem, persists=persists),
        run_reference(case, problem),
    )
    terms = largest_given(problem)
    assert 0 < np.abs(expected["dx"]).max() < 1e-4 * terms
    assert_results_close(results, expected, "float64", problem)
    wrong = results | {"dx": results["dx"] + 1e-9 * terms}
    with pytest.raises(AssertionError, match="dx: off by"):
        assert_results_close(wrong, expected, "float64", problem)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(6))
def test_sequences_of_16_bits(seed: int, dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    # Without clipping: a gate that is rounded across its bound loses its whole gradient.
    case = random_case(seed, dtype, clip=None, T=4, N=3, H=16, activations=None)
    for persists in (False, True):
        chosen = persistent(case) if persists else case
        problem = draw(chosen)
        results = emulated.train(chosen, problem, persists=persists)
        for name, value in run_reference(chosen, problem).items():
            assert results[name].dtype == (dtype if name in ("y", "dx") else "float32"), name
            error = np.linalg.norm(results[name].astype(np.float64) - value)
            allowed = ROUNDINGS[dtype] * max(float(np.linalg.norm(value)), 1e-3)
            assert error <= allowed, f"{name}: {error / allowed:.2f} of what is allowed"


@pytest.mark.parametrize("persists", [False, True], ids=["steps", "persistent"])
def test_the_order_of_threads_changes_no_bit(persists: bool) -> None:
    case = persistent(variants.random_case(4, T=5, N=6, H=17, dtype="float32"))
    problem = draw(case)
    device = emulated.driver_of("float32", persists)
    runs = []
    for seed in range(5):
        device.emulation.seed(seed)
        runs.append(emulated.train(case, problem, persists=persists))
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


def test_a_tape_that_is_retained_gives_the_same_bits_twice() -> None:
    case = variants.random_case(1, T=4, N=3, H=9, dtype="float32")
    problem = draw(case)
    assert_same_bits(emulated.train(case, problem, retain=True), emulated.train(case, problem))


def test_nan_in_padding_and_before_a_reset_reaches_nothing() -> None:
    for on_device in (False, True):
        case = Case(cell="gru", T=5, N=3, H=6, D=4, dtype="float64", bidirectional=True, layers=2)
        clean = draw(case).but(lengths=np.array([3, 5, 1]))
        spoilt = clean.but(x=clean.x.copy(), dy=clean.dy.copy())
        for n, length in enumerate(clean.lengths):
            spoilt.x[length:, n] = spoilt.dy[length:, n] = np.nan
        how = {"lengths_on_device": on_device}
        assert_same_bits(emulated.train(case, spoilt, **how), emulated.train(case, clean, **how))
    resets = np.zeros((5, 3), np.bool_)
    resets[0] = True
    case = Case(cell="lstm", T=5, N=3, H=6, D=4, dtype="float64", resets=True)
    clean = draw(case).but(resets=resets)
    spoilt = clean.but(h0=np.full_like(clean.h0, np.nan), c0=np.full_like(clean.c0, np.nan))
    for persists in (False, True):
        got = emulated.train(case, spoilt, persists=persists)
        assert_same_bits(got, emulated.train(case, clean, persists=persists))


def test_lengths_on_the_device_are_clamped() -> None:
    case = Case(cell="lstm", T=4, N=4, H=5, D=3, dtype="float64")
    wild = draw(case).but(lengths=np.array([-3, 2, 99, 4]))
    tame = wild.but(lengths=np.array([0, 2, 4, 4]))
    how = {"lengths_on_device": True}
    assert_same_bits(emulated.train(case, wild, **how), emulated.train(case, tame, **how))


@functools.cache
def widest(dtype: str) -> emulated.EmulatedDriver:
    return emulated.EmulatedDriver(emulated.all_programs(dtype, True, 64), True)


@pytest.mark.nightly
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wider_persistent_blocks(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulated, "driver_of", lambda dtype, persists: widest(dtype))
    for units in (33, 48, 64):
        check(Case(cell=cell, T=5, N=5, H=units, dtype="float64", ragged=True), persists=True)


def test_a_failure_at_any_call_is_a_device_error_and_leaves_gradients_alone() -> None:
    case = Case(cell="lstm", T=2, N=2, H=3, D=2, dtype="float64", layers=2)
    problem, stages, touched = draw(case), [], []
    while "done" not in stages:
        with emulated.failing(case, len(stages) + 1) as attempt:
            attempt.run(problem)
        stages.append(attempt.stage)
        touched.append(any(grad.any() for grad in attempt.gradients()))
    order = ["pack", "forward", "backward", "done"]
    assert stages == sorted(stages, key=order.index)
    assert set(stages) == set(order)
    # The last launches add what is finished: four arrays to each of two layers.
    assert not any(touched[:-8])
    assert touched[-1]


def test_more_rows_than_kernels_count_are_refused() -> None:
    stack = _rnncore.CudaStack(_rnncore.Spec("rnn", 1, 1, 1, 1), "float32", [0] * 4)
    with pytest.raises(ValueError, match=r"x: expected fewer than 2\^31 steps .* N=2147483648"):
        _rnncore.CudaSequence(stack, 1, 2**31, None, 0, 0, (0, 1, 1), 0, 0, None)
