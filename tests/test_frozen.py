"""Frozen engines and streams: snapshots that only infer."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, both_backends, normal, parts

import rnncore as rc

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 6, 3, 4, 5

KINDS = {
    "rnn": lambda: rc.RNN(D, H, 2, seed=1),
    "lstm": lambda: rc.LSTM(D, H, 2, proj_size=3, bidirectional=True, dropout=0.5, seed=1),
    "gru": lambda: rc.GRU(D, H, batch_first=True, stateful=True, seed=1),
    "bidirectional": lambda: rc.Bidirectional(rc.GRU(D, H, 2, seed=1), merge="mul"),
    "stack": lambda: rc.Stack([rc.GRU(D, H, seed=1), rc.LSTM(H, 2, seed=2)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_gives_the_bits_of_its_layer(kind: str) -> None:
    layer, x = KINDS[kind](), normal(T, N, D)
    engine = layer.freeze()
    lengths = [3, 0, 2]
    y, end = engine(x, None, lengths[:1] * T if layer.batch_first else lengths)
    assert_same([y, end], layer(x, None, lengths[:1] * T if layer.batch_first else lengths))
    out = np.full_like(y, np.nan)
    same, _ = engine(x, None, lengths[:1] * T if layer.batch_first else lengths, out=out)
    assert same is out
    assert_same(out, y)
    assert engine.num_parameters == layer.num_parameters
    assert (engine.input_size, engine.output_size) == (D, layer.output_size)


@pytest.mark.host_only
@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_is_a_snapshot_that_nobody_can_change(kind: str) -> None:
    layer, x = KINDS[kind](), normal(T, N, D)
    engine = layer.freeze()
    expected = engine(x)
    for array in layer.params.values():
        array[...] = 0
    assert_same(engine(x), expected)
    for array in engine.params.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert repr(engine).startswith("Frozen(")
    assert copy.deepcopy(engine) is engine
    assert_same(pickle.loads(pickle.dumps(engine))(x), expected)


def test_out_may_have_any_strides_apart_from_overlap() -> None:
    engine, x = rc.GRU(D, H, seed=1).freeze(), normal(T, N, D)
    expected, _ = engine(x)
    for out in (
        np.zeros((N, T, H), "f4").transpose(1, 0, 2),
        np.zeros((H, T, N), "f4").transpose(1, 2, 0),
        np.zeros((T, N, 2 * H), "f4")[:, :, ::2],
        np.zeros((2 * T, N, H), "f4")[::-2],
    ):
        y, _ = engine(x, out=out)
        assert y is out
        assert_same(np.array(y), expected)
    alone, _ = engine(x[:, 1])
    out = np.zeros((T, H), "f4")
    assert_same(engine(x[:, 1], out=out)[0], alone)


@pytest.mark.host_only
def test_an_out_over_any_input_is_refused_before_anything_is_written() -> None:
    engine = rc.LSTM(D, D, seed=1).freeze()
    room = normal(T + 1, N, D)
    x, kept = room[:-1], room.copy()
    state = (room[-1:], normal(1, N, D))
    for out, over in ((x, "x"), (room[1:], "x"), (x[::-1], "x"), (room[1:], "x")):
        with pytest.raises(ValueError, match=f"out: .* overlaps {over}"):
            engine(x, state, out=out)
    with pytest.raises(ValueError, match=re.escape("overlaps state[0]")):
        engine(x.copy(), state, out=room[1:])
    assert np.array_equal(room, kept)
    interleaved = np.zeros((T, N, 2 * D), "f4")
    interleaved[:, :, ::2] = normal(T, N, D)
    y, _ = engine(interleaved[:, :, ::2], out=interleaved[:, :, 1::2])
    assert_same(np.array(y), engine(normal(T, N, D))[0])


@pytest.mark.host_only
@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        (lambda: [0], TypeError, "out: expected a NumPy array, got a list"),
        (lambda: np.zeros((T, N, H)), TypeError, "out: expected dtype float32, got <f8"),
        (lambda: np.zeros((N, T, H), "f4"), ValueError, "out: expected (6, 3, 5), got (3, 6, 5)"),
        (lambda: np.zeros((1, N, H), "f4"), ValueError, "out: expected (6, 3, 5), got (1, 3, 5)"),
        (lambda: np.broadcast_to(np.zeros(H, "f4"), (T, N, H)), ValueError, "out: expected a wri"),
        (
            lambda: np.ndarray((T, N, H), "f4", np.zeros(N * H, "f4"), 0, (0, 4 * H, 4)),
            ValueError,
            "out: expected elements apart in memory",
        ),
        (
            lambda: np.ndarray((T, N, H), "f4", np.zeros(99, "f4"), 0, (4 * H, 4 * H, 4)),
            ValueError,
            "out: expected elements apart in memory",
        ),
        (
            lambda: np.ndarray((T, N, H), "f4", np.zeros(400, "u1"), 1),
            ValueError,
            "out: expected an aligned array",
        ),
    ],
)
def test_an_out_that_cannot_take_the_result_is_refused(out, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        rc.GRU(D, H).freeze()(normal(T, N, D), out=out())


def test_a_float64_layer_can_be_frozen_in_float32() -> None:
    layer = rc.GRU(D, H, seed=1, dtype="float64")
    engine, single = layer.freeze("float32"), rc.GRU(D, H, seed=1)
    assert engine.dtype == "float32"
    assert_same(engine(normal(T, N, D)), single(normal(T, N, D)))
    assert layer.freeze("float64").dtype == "float64"
    with pytest.raises(ValueError, match="for a float32 layer"):
        single.freeze("float64")


@pytest.mark.host_only
@pytest.mark.parametrize("cell", CLASSES)
def test_a_stream_steps_through_what_a_call_runs_at_once(cell: str) -> None:
    engine, x = CLASSES[cell](D, H, 2, seed=1).freeze(), normal(T, N, D)
    y, end = engine(x)
    stream = engine.stream(batch=N)
    assert_same(np.stack([stream.step(x_t) for x_t in x]), y)
    assert_same(stream.state, end)
    stream.reset([1])
    assert all((part[:, 1] == 0).all() for part in parts(stream.state))
    stream.reset()
    out = np.zeros((N, H), "f4")
    stream.step(x[0], out=out)
    assert_same(out, y[0])
    stream.state = end
    assert_same(stream.step(x[0]), engine(x[:1], end)[0][0])


@pytest.mark.host_only
def test_a_stream_of_one_takes_and_gives_vectors() -> None:
    engine, x = rc.LSTM(D, H, seed=1).freeze(), normal(T, D)
    y, _ = engine(x)
    stream = engine.stream()
    assert_same(np.stack([stream.step(x_t) for x_t in x]), y)


@pytest.mark.host_only
def test_a_stack_streams_through_its_members() -> None:
    engine, x = KINDS["stack"]().freeze(), normal(T, N, D)
    y, end = engine(x)
    stream = engine.stream(N)
    assert_same(np.stack([stream.step(x_t) for x_t in x]), y)
    assert_same(stream.state, end)
    stream.reset()
    out = np.zeros((N, 2), "f4")
    stream.step(x[0], out)
    assert_same(out, y[0])
    stream.state = end
    assert_same(stream.step(x[0]), engine(x[:1], end)[0][0])


def test_two_directions_and_no_rows_do_not_stream() -> None:
    for layer in (rc.GRU(D, H, bidirectional=True), rc.Bidirectional(rc.GRU(D, H))):
        with pytest.raises(ValueError, match="stream: expected a layer of one direction"):
            layer.freeze().stream()
    engine = rc.GRU(D, H).freeze()
    with pytest.raises(ValueError, match="batch: expected an integer of at least 1"):
        engine.stream(0)
    with pytest.raises(TypeError, match="batch: expected an integer"):
        engine.stream(True)
