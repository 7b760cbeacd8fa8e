"""Several Python threads at once: streams beside calls, tapes that two want, threads of streams."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import output_of

import rnncore as rc
from rnncore import _rnncore


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_a_stream_of_two_layers_keeps_its_bits_while_others_have_the_team() -> None:
    with rc.threads(2):
        engine = rc.LSTM(40, 400, 2, seed=1).freeze()
        x = drawn(150, 1, 40)
        expected, _ = engine(x)
        stream = engine.stream(1)
        other, other_x = rc.GRU(64, 256, seed=2), drawn(40, 8, 64)
        done = threading.Event()

        def keep_the_team_busy() -> None:
            with rc.threads(2):
                while not done.is_set():
                    other(other_x)

        thread = threading.Thread(target=keep_the_team_busy)
        thread.start()
        try:
            got = np.stack([stream.step(step) for step in x])
        finally:
            done.set()
            thread.join()
    np.testing.assert_array_equal(got, expected)


def test_of_two_backward_passes_that_want_one_tape_one_is_refused() -> None:
    layer = rc.LSTM(16, 64, 2, seed=3)
    x, dy = drawn(60, 8, 16), drawn(60, 8, 64, seed=1)
    for _ in range(5):
        _, _, tape = layer.record(x)
        start = threading.Barrier(2)

        def attempt(tape: object = tape, start: threading.Barrier = start) -> str:
            start.wait()
            try:
                layer.backward(dy, tape=tape)
            except RuntimeError:
                return "refused"
            return "done"

        with ThreadPoolExecutor(2) as pool:
            answers = sorted(future.result() for future in [pool.submit(attempt) for _ in "ab"])
        assert answers == ["done", "refused"]


def test_the_core_refuses_a_tape_of_another_stack() -> None:
    def parts(hidden: int) -> tuple[object, list[np.ndarray], object, list[np.ndarray]]:
        spec = _rnncore.Spec("gru", 3, hidden, 1, 1)
        params = [drawn(3 * hidden, 3), drawn(3 * hidden, hidden)]
        params += [drawn(3 * hidden), drawn(3 * hidden)]
        packed = _rnncore.Packed(spec, params, 1)
        x, y = drawn(4, 2, 3), np.empty((4, 2, hidden), np.float32)
        hn = np.empty((1, 2, hidden), np.float32)
        tape = _rnncore.forward(
            packed, x, None, None, None, None, y, hn, None, None, True, False, 1
        )
        return packed, params, tape, [x, y, hn]

    _, _, tape, _ = parts(40)
    packed, params, _, (x, y, hn) = parts(5)
    grads = [np.zeros_like(param) for param in params]
    with pytest.raises(RuntimeError, match="another stack"):
        _rnncore.backward(
            packed, tape, x, y, None, None, None, y, None, None, None, hn, None, grads, False, 1
        )
    assert not tape.spent


def test_a_stream_uses_no_more_threads_than_asked_for() -> None:
    program = """
import numpy as np, rnncore as rc
from rnncore import _rnncore
rc.set_num_threads(1)
stream = rc.LSTM(64, 600, seed=0).freeze().stream(4)
for _ in range(3):
    stream.step(np.zeros((4, 64), np.float32))
print(_rnncore._debug.team_threads())
"""
    assert output_of(program).strip() == "0"


def test_the_number_that_the_core_was_given_by_others_is_the_number() -> None:
    before = rc.get_num_threads()
    try:
        _rnncore.set_num_threads(before + 1)
        assert rc.get_num_threads() == before + 1
    finally:
        rc.set_num_threads(before)


def test_a_call_while_the_interpreter_ends_does_not_hang() -> None:
    program = """
import sys
import numpy as np, rnncore as rc

class Late:
    def __init__(self):
        self.layer, self.x = rc.LSTM(3, 4, seed=0), np.ones((2, 1, 3), np.float32)

    def __del__(self):
        self.layer(self.x)

sys.late = Late()
print("ready")
"""
    assert output_of(program).strip() == "ready"


def test_columns_of_one_array_may_be_a_streams_input_and_output() -> None:
    engine = rc.GRU(4, 6, seed=0).freeze()
    x = drawn(2, 4)
    both = np.zeros((2, 10), np.float32)
    both[:, :4] = x
    engine.stream(2).step(both[:, :4], out=both[:, 4:])
    np.testing.assert_array_equal(both[:, 4:], engine.stream(2).step(x))
    with pytest.raises(ValueError, match="overlaps"):
        engine.stream(2).step(both[:, :4], out=both[:, 3:9])
