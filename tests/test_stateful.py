"""Layers that carry their state from call to call."""

from __future__ import annotations

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, backend_of, both_backends, normal, parts

import rnncore as rc

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 4, 3, 5, 6


def pair(cell: str) -> tuple:
    """Return a stateful layer and its plain twin."""
    make = CLASSES[cell]
    return make(D, H, 2, stateful=True, seed=1), make(D, H, 2, seed=1)


@pytest.mark.parametrize("cell", CLASSES)
def test_each_call_starts_where_the_last_one_ended(cell: str) -> None:
    layer, plain = pair(cell)
    assert layer.state is None
    x = [normal(T, N, D, seed=seed) for seed in range(3)]
    _, end = plain(x[0])
    layer(x[0])
    assert_same(layer.state, end)
    y, end = plain(x[1], end)
    assert_same(layer.forward(x[1])[0], y)
    y, end = plain(x[2], end)
    stateful_y, _, _ = layer.record(x[2])
    assert_same(stateful_y, y)
    assert_same(layer.state, end)


def test_an_explicit_state_wins_and_is_what_the_next_call_continues() -> None:
    layer, plain = pair("lstm")
    layer(normal(T, N, D))
    given = (normal(2, N, H, seed=1), normal(2, N, H, seed=2))
    expected = plain(normal(T, N, D, seed=3), given)
    assert_same(layer(normal(T, N, D, seed=3), given), expected)
    assert_same(layer.state, expected[1])


def test_gradients_stop_at_the_calls_start_and_the_states_is_returned() -> None:
    layer, plain = pair("gru")
    first, second, dy = normal(T, N, D), normal(T, N, D, seed=1), normal(T, N, H, seed=2)
    layer.forward(first)
    _, middle = plain(first)
    layer.forward(second)
    dx, dstart = layer.backward(dy)
    plain.forward(second, middle)
    assert_same([dx, dstart], plain.backward(dy))
    assert_same(list(layer.grads.values()), list(plain.grads.values()))


def test_another_batch_is_an_error_until_the_state_is_reset() -> None:
    layer, plain = pair("lstm")
    layer(normal(T, N, D))
    before = layer.state
    with pytest.raises(ValueError, match=r"x: expected N=3, .* got N=2; reset_state"):
        layer(normal(T, 2, D))
    assert_same(layer.state, before)
    layer.reset_state()
    assert layer.state is None
    assert_same(layer(normal(T, 2, D)), plain(normal(T, 2, D)))


@pytest.mark.parametrize("rows", [[1], np.array([1]), np.array([False, True, False]), 1])
def test_some_rows_can_start_anew(rows: object) -> None:
    layer, _ = pair("lstm")
    layer(normal(T, N, D))
    before = layer.state
    layer.reset_state(rows)
    for old, new in zip(before, layer.state, strict=True):
        assert (new[:, 1] == 0).all()
        assert np.array_equal(new[:, [0, 2]], old[:, [0, 2]])
        assert np.abs(new[:, [0, 2]]).min() > 0


def test_rows_that_are_not_there_are_errors_and_reset_nothing() -> None:
    layer, _ = pair("gru")
    layer(normal(T, N, D))
    before = layer.state
    for rows in ([0, 3], [-1], np.array([True, False])):
        with pytest.raises(ValueError, match="rows: expected"):
            layer.reset_state(rows)
    with pytest.raises(TypeError, match="rows: expected integers"):
        layer.reset_state([0.5])
    layer.reset_state([])
    assert_same(layer.state, before)


def test_resetting_rows_does_not_touch_a_recorded_call() -> None:
    layer, plain = pair("gru")
    first, second, dy = normal(T, N, D), normal(T, N, D, seed=1), normal(T, N, H, seed=2)
    layer(first)
    *_, tape = layer.record(second)
    _, middle = plain(first)
    plain.forward(second, middle)
    layer.reset_state([0, 2])
    assert_same(layer.backward(dy, tape=tape), plain.backward(dy))


@pytest.mark.parametrize("cell", CLASSES)
def test_a_state_can_be_set_read_and_forgotten(cell: str) -> None:
    layer, plain = pair(cell)
    _, state = plain(normal(T, N, D))
    layer.set_state(state)
    kept = [part.copy() for part in parts(state)]
    parts(state)[0][...] = 9
    assert_same(layer.state, kept)
    parts(layer.state)[0][...] = 9
    assert_same(layer.state, kept)
    with pytest.raises(ValueError, match="state"):
        layer.set_state(tuple(part[:1] for part in kept) if len(kept) == 2 else kept[0][:1])
    assert_same(layer.state, kept)
    layer.set_state(None)
    assert layer.state is None


def test_results_may_be_overwritten_without_touching_the_kept_state() -> None:
    layer, plain = pair("gru")
    x = normal(T, N, D)
    _, state = layer(x)
    state[...] = 9
    _, expected = plain(x)
    assert_same(layer.state, expected)


def test_unbatched_calls_keep_an_unbatched_state() -> None:
    layer, plain = pair("lstm")
    layer(normal(T, D))
    _, expected = plain(normal(T, D))
    assert_same(layer.state, expected)
    assert layer.state[0].shape == (2, H)
    y, _ = plain(normal(T, D, seed=1), expected)
    layer.set_state(layer.state)
    assert_same(layer(normal(T, D, seed=1))[0], y)


def test_a_call_that_fails_midway_commits_nothing(
    monkeypatch: pytest.MonkeyPatch, both_backends: str
) -> None:
    layer, plain = pair("lstm")
    layer(normal(T, N, D))
    before, random = layer.state, layer.rng_state

    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(backend_of(both_backends), "forward", fail)
        for call in (layer, layer.forward, layer.record):
            with pytest.raises(MemoryError):
                call(normal(T, N, D, seed=1))
    assert_same(layer.state, before)
    assert layer.rng_state == random
    assert_same(layer(normal(T, N, D, seed=1)), plain(normal(T, N, D, seed=1), before))


def test_lengths_end_each_row_where_it_ends() -> None:
    layer, plain = pair("gru")
    x, lengths = normal(T, N, D), [4, 0, 2]
    layer(x, lengths=lengths)
    _, end = plain(x, lengths=lengths)
    assert_same(layer(x)[0], plain(x, end)[0])


def test_a_layer_without_state_says_so() -> None:
    layer = rc.GRU(D, H)
    assert layer.state is None
    for call in (layer.reset_state, lambda: layer.set_state(normal(1, N, H))):
        with pytest.raises(RuntimeError, match="stateful=True"):
            call()


def test_a_frozen_engine_is_never_stateful() -> None:
    layer, plain = pair("gru")
    engine, x = layer.freeze(), normal(T, N, D)
    layer(x)
    assert_same(engine(x), plain(x))
    assert_same(engine(x), plain(x))
