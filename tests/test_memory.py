"""Memory: failed allocations, leaks, and memory that nobody wrote."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cases import CELLS, Case, Results, assert_same_bits, draw
from engine import build, infer, state_of, train
from processes import output_of

import rnncore as rc
from rnncore import _rnncore


def entry_points(case: Case, problem, layer, engine) -> dict:
    """Return every way into the core as a function that gives arrays to compare."""
    state = state_of(problem.h0, problem.c0)

    def record() -> list:
        y, _, tape = layer.record(problem.x, state)
        dx, _ = layer.backward(problem.dy, tape=tape)
        return [y, dx]

    def stream() -> list:
        stream = engine.stream(batch=case.N)
        return [stream.step(x_t) for x_t in problem.x]

    return {
        "inference": lambda: [layer(problem.x, state)[0]],
        "training": lambda: list(train(case, problem, layer).values()),
        "record": record,
        "freeze": lambda: [layer.freeze()(problem.x, state)[0]],
        "stream": stream,
    }


def fail_everywhere(call: Callable[[], list], expected: Results, blocks: int) -> int:
    """Fail the first, the second, ... allocation until the call succeeds; return how many failed.

    After each failure the same call must succeed, give its bits, and leave no block behind.
    """
    for failures in range(1000):
        _rnncore._debug.fail_after(failures)
        try:
            assert_same_bits(dict(enumerate(call())), expected)
            return failures
        except MemoryError:
            pass
        finally:
            _rnncore._debug.fail_after(-1)
        assert_same_bits(dict(enumerate(call())), expected)
        assert _rnncore._debug.live_blocks() == blocks, f"after failure {failures}"
    raise AssertionError("never succeeds")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_every_allocation_may_fail_and_nothing_breaks_or_leaks(cell, kind, threads) -> None:
    case = Case(cell=cell, nonlinearity=kind, T=4, N=5, D=6, H=150, layers=2)
    problem = draw(case)
    layer = build(case, problem)
    engine = layer.freeze()
    with rc.threads(threads):
        for name, call in entry_points(case, problem, layer, engine).items():
            expected = {n: value.copy() for n, value in enumerate(call())}
            blocks = _rnncore._debug.live_blocks()
            assert fail_everywhere(call, expected, blocks) >= 2, f"{name} allocates nothing"
            assert _rnncore._debug.live_blocks() == blocks, name


def test_a_failed_backward_leaves_params_and_grads_as_they_were() -> None:
    case = Case(T=4, N=5, D=6, H=30, layers=2)
    problem = draw(case)
    layer = build(case, problem)
    train(case, problem, layer)
    grads = {name: value.copy() for name, value in layer.grads.items()}
    failed = 0
    for n in range(1, 100):
        layer.forward(problem.x)
        _rnncore._debug.fail_after(n)
        try:
            layer.backward(problem.dy)
            break
        except MemoryError:
            failed += 1
        finally:
            _rnncore._debug.fail_after(-1)
        assert_same_bits(dict(layer.grads), grads)
        assert_same_bits(dict(layer.params), problem.params)
    assert failed >= 1
    assert not np.array_equal(layer.grads["weight_hh_l0"], grads["weight_hh_l0"])


def test_dropped_tapes_streams_and_layers_free_their_memory() -> None:
    case = Case(T=4, N=5, D=6, H=30, layers=2)
    problem = draw(case)
    base = _rnncore._debug.live_blocks()
    layer = build(case, problem)
    tapes = [layer.record(problem.x)[2] for _ in range(5)]
    stream = layer.freeze().stream(batch=2)
    stream.step(problem.x[0, :2])
    assert _rnncore._debug.live_blocks() > base
    del tapes, stream, layer
    assert _rnncore._debug.live_blocks() == base


def test_a_stream_allocates_nothing_while_it_runs() -> None:
    for cell, kind in CELLS:
        case = Case(cell=cell, nonlinearity=kind, T=1, N=1, D=6, H=30, layers=2)
        problem = draw(case)
        stream = build(case, problem).freeze().stream(batch=1)
        out, x_t = np.empty(30, "f4"), problem.x[0, 0].copy()
        stream.step(x_t, out=out)
        blocks = _rnncore._debug.live_blocks()
        _rnncore._debug.fail_after(1)
        try:
            for _ in range(1000):
                stream.step(x_t, out=out)
        finally:
            _rnncore._debug.fail_after(-1)
        assert _rnncore._debug.live_blocks() == blocks
        assert np.isfinite(out).all()


def test_a_request_beyond_memory_is_a_memory_error() -> None:
    assert (
        output_of("""
        import resource
        layer = rc.LSTM(8, 512)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        x = np.broadcast_to(np.float32(0.5), (3_000_000, 8, 8))
        try:
            layer.record(x)
        except MemoryError:
            y, _ = layer(np.array(x[:3]))
            print("MemoryError", np.isfinite(y).all())
    """)
        == "MemoryError True"
    )


@pytest.mark.parametrize("kind", [*CELLS, ("lstm", "projected")], ids=str)
def test_scratch_full_of_nan_changes_no_bits(kind: tuple[str, str], isa: str) -> None:
    options = {"proj_size": 5} if kind[1] == "projected" else {"nonlinearity": kind[1]}
    for sizes in ({"H": 13, "N": 3}, {"H": 33, "N": 17}, {"H": 64, "N": 1}):
        for threads, ragged in ((1, False), (1, True), (3, True)):
            case = Case(cell=kind[0], T=5, D=9, layers=2, bidirectional=sizes["N"] > 1,
                        ragged=ragged, **sizes, **options)  # fmt: skip
            problem = draw(case)
            with rc.threads(threads):
                expected = train(case, problem)
                _rnncore._debug.fill_with_nan(True)
                try:
                    assert_same_bits(train(case, problem), expected)
                    y = infer(case, problem)["y"]
                finally:
                    _rnncore._debug.fill_with_nan(False)
            assert_same_bits({"y": y}, {"y": expected["y"]})


def test_scratch_that_was_never_written_changes_no_bits() -> None:
    """Fill all memory that malloc hands out with other bytes: the results must not see it."""
    code = """
        from cases import CELLS, Case
        for cell, kind in CELLS:
            for sizes in ({"H": 13, "N": 3}, {"H": 33, "N": 17}):
                case = Case(cell=cell, nonlinearity=kind, T=5, D=9, layers=2, bidirectional=True,
                            ragged=True, **sizes)
                print(train(case, 1), train(case, 3))
        print(train(Case(T=5, N=3, D=9, H=13, proj_size=5, ragged=True), 2))
    """
    plain = output_of(code)
    assert len(set(plain.split())) == 9
    for byte in ("1", "85"):  # memory is filled with the byte's complement: -1.7e38, -1.2e-13
        assert output_of(code, env={"MALLOC_PERTURB_": byte}) == plain
