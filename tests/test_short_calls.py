"""The fast way of a frozen engine's short calls: the general way's results, or left to it."""

from __future__ import annotations

import numpy as np
import pytest
from both_backends import assert_same, normal, parts

import rnncore as rc
from rnncore._inference import ShortCalls

T, N, D, H = 4, 3, 5, 6

KINDS = {
    "rnn": lambda **more: rc.RNN(D, H, seed=1, **more),
    "gru": lambda **more: rc.GRU(D, H, 2, seed=1, **more),
    "lstm": lambda **more: rc.LSTM(D, H, 2, proj_size=4, seed=1, **more),
    "both ways": lambda **more: rc.LSTM(D, H, bidirectional=True, seed=1, **more),
}


def short_of(layer: rc.LSTM | rc.GRU | rc.RNN) -> ShortCalls:
    """Return the fast way alone: what it leaves to the general one is None."""
    engine = layer.freeze()
    short = engine._short_calls
    assert short is not None
    return short


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_way_has_the_bits_of_the_layer(kind: str, batch_first: bool, dtype: str) -> None:
    layer = KINDS[kind](batch_first=batch_first, dtype=dtype)
    short = short_of(layer)
    shape = (N, T, D) if batch_first else (T, N, D)
    x = normal(*shape, dtype=dtype)
    y, state = layer(x)
    assert_same(short.run(x, None, None), (y, state))
    later = normal(*shape, seed=1, dtype=dtype)
    assert_same(short.run(later, state, None), layer(later, state))
    out = np.full_like(y, np.nan)
    given = short.run(later, state, out)
    assert given[0] is out
    assert_same(given, layer(later, state))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x[::2, 1:],
        lambda x: x.transpose(1, 0, 2),
        lambda x: np.broadcast_to(x[:1], (T, N, D)),
        lambda x: x[:1, :1],
    ],
)
def test_any_rows_of_adjacent_values_are_taken(view) -> None:
    layer = KINDS["gru"]()
    x = view(normal(T, N, D))
    results = short_of(layer).run(x, None, None)
    assert results is not None
    assert_same(results, layer(np.ascontiguousarray(x)))


def test_what_needs_a_conversion_or_an_error_is_left_to_the_general_way() -> None:
    layer = KINDS["lstm"]()
    engine, x = layer.freeze(), normal(T, N, D)
    short = short_of(layer)
    _, (h, c) = layer(x)
    y = np.empty((T, N, 4), np.float32)
    wide = normal(T, N, 2 * D)
    x_in_y = y.reshape(-1)[: T * N * 4].reshape(T, N, 4)
    left = [
        (x[0], None, None),
        (x.astype("f8"), None, None),
        (x.tolist(), None, None),
        (x[:, :, :3], None, None),
        (wide[:, :, ::2], None, None),
        (x[:0], None, None),
        (x[:, :0], None, None),
        (x, h, None),
        (x, [h, c], None),
        (x, (h, None), None),
        (x, (c, h), None),
        (x, (h[:, :1], c[:, :1]), None),
        (x, (h[::-1], c), None),
        (x, (h.astype("f8"), c), None),
        (x, None, y[:-1]),
        (x, None, y.astype("f8")),
        (x, None, y[:, :, ::-1]),
        (x, None, np.broadcast_to(y[:1], y.shape)),
        (x_in_y.repeat(2, axis=2)[:, :, :D], None, y.transpose(1, 0, 2)),
        (x, (y[:2].reshape(2, N, 4), c), y),
    ]
    frozen = np.empty_like(y)
    frozen.flags.writeable = False
    left.append((x, None, frozen))
    big = np.zeros((T, N, D + 4), np.float32)
    left.append((big[:, :, :D], None, big[:, :, D:]))
    flat = np.zeros(T * N * (D + 4), np.float32)
    meets = flat[: T * N * D].reshape(T, N, D), flat[T * N * 4 : T * N * 8].reshape(T, N, 4)
    left.append((meets[0], None, meets[1]))
    for arguments in left:
        assert short.run(*arguments) is None
    with pytest.raises(TypeError, match="x: expected dtype float32"):
        engine(x.astype("f8"))
    with pytest.raises(ValueError, match="out: expected memory of its own"):
        engine(meets[0], out=meets[1])
    assert_same(engine(x, [h, c]), layer(x, (h, c)))


def test_long_work_goes_the_way_that_hears_signals() -> None:
    short = short_of(rc.LSTM(512, 512, seed=1))
    assert short.run(normal(1, 1, 512), None, None) is not None
    assert short.run(normal(400, 1, 512), None, None) is None


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(2**30, 2**28), (2**58, 1), (1, 2**58)])
def test_work_beyond_what_an_integer_counts_is_long_too(
    shape: tuple[int, int], batch_first: bool
) -> None:
    short = short_of(rc.GRU(D, H, seed=1, batch_first=batch_first))
    # Packed weights fill lines of 64 bytes: in 64 bits, 2^58 times any number of these is 0.
    assert short.run(np.broadcast_to(normal(D), (*shape, D)), None, None) is None


def test_joined_layers_have_the_general_way_alone() -> None:
    engine = rc.Stack([rc.GRU(D, H, seed=1)]).freeze()
    assert engine._short_calls is None
    assert len(parts(engine(normal(T, N, D))[1])) == 1
