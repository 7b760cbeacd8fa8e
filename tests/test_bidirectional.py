"""Bidirectional: one layer forwards, its twin backwards over the whole depth, and their merge."""

from __future__ import annotations

import re

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, both_backends, exact_dtype, normal, parts, snapshot

import rnncore as rc

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 6, 3, 4, 5
LENGTHS = [None, [6, 0, 3]]


def make(cell: str, merge: str = "concat", num_layers: int = 1, **options: object) -> object:
    layer = CLASSES[cell](D, H, num_layers, seed=3, **options)
    return rc.Bidirectional(layer, merge=merge)


def start(layer: object, batch: int = N) -> object:
    shapes = layer.spec.state_shapes(batch)
    arrays = [normal(*shape, seed=i, dtype=layer.dtype) for i, shape in enumerate(shapes)]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("cell", CLASSES)
def test_one_layer_concatenated_equals_bidirectional_true_to_the_bit(
    cell: str, lengths: list | None, batch_first: bool, both_backends: str
) -> None:
    options = {"batch_first": batch_first, "dtype": exact_dtype(both_backends)}
    layer = make(cell, **options)
    joined = CLASSES[cell](D, H, bidirectional=True, **options)
    joined.load_state_dict(layer.state_dict())
    assert list(joined.params) == list(layer.params)
    shape = (N, T) if batch_first else (T, N)
    x, dy = (normal(*shape, size, dtype=layer.dtype) for size in (D, 2 * H))
    y, end = layer.forward(x, start(joined), lengths)
    expected_y, expected_end = joined.forward(x, start(joined), lengths)
    assert_same([y, end], [expected_y, expected_end])
    dx, dstart = layer.backward(dy, end)
    expected_dx, expected_start = joined.backward(dy, end)
    assert_same(dstart, expected_start)
    assert_same(snapshot(layer), snapshot(joined))
    assert_same(dx, expected_dx)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_both_directions_run_over_the_whole_depth(merge: str, lengths: list | None) -> None:
    layer = make("lstm", merge, num_layers=2, dtype="float64")
    ahead, back = (rc.LSTM(D, H, 2, dtype="float64") for _ in range(2))
    for own, theirs in ((ahead, ""), (back, "_reverse")):
        own.load_state_dict({name: layer.params[name + theirs] for name in own.params})
    x = normal(T, N, D, dtype="float64")
    state = start(layer)
    y, end = layer(x, state, lengths)
    for n in range(N):
        length = T if lengths is None else lengths[n]
        row = x[:length, n : n + 1]
        first, first_end = ahead(row, tuple(part[0::2, n : n + 1] for part in state))
        second, second_end = back(row[::-1], tuple(part[1::2, n : n + 1] for part in state))
        second = second[::-1]
        expected = {
            "concat": np.concatenate([first, second], axis=2),
            "sum": first + second,
            "mul": first * second,
            "average": (first + second) / 2,
        }[merge]
        assert np.allclose(y[:length, n], expected[:, 0], rtol=1e-12, atol=1e-13)
        assert (y[length:, n] == 0).all()
        for part, one, other in zip(end, first_end, second_end, strict=True):
            assert np.allclose(part[0::2, n], one[:, 0], rtol=1e-12)
            assert np.allclose(part[1::2, n], other[:, 0], rtol=1e-12)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gradients_equal_central_differences(cell: str, merge: str, lengths: list | None) -> None:
    layer = make(cell, merge, num_layers=2, dtype="float64")
    x, state = normal(T, N, D, dtype="float64"), start(layer)
    dy = normal(T, N, layer.output_size, seed=1, dtype="float64")
    end = [normal(*part.shape, seed=5 + i, dtype="float64") for i, part in enumerate(parts(state))]
    dend = tuple(end) if len(end) == 2 else end[0]

    def loss() -> float:
        y, final = layer(x, state, lengths)
        pairs = zip(parts(final), end, strict=True)
        return float((y * dy).sum() + sum((one * other).sum() for one, other in pairs))

    layer.forward(x, state, lengths)
    dx, dstart = layer.backward(dy, dend)
    checked = [(x, dx), *zip(parts(state), parts(dstart), strict=True)]
    checked += [(layer.params[name], layer.grads[name]) for name in layer.params]
    rng, step = np.random.default_rng(0), 1e-6
    for array, gradient in checked:
        place = tuple(rng.integers(0, size) for size in array.shape)
        kept = array[place]
        array[place] = kept + step
        above = loss()
        array[place] = kept - step
        slope = (above - loss()) / (2 * step)
        array[place] = kept
        assert np.isclose(gradient[place], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
def test_what_stands_past_a_length_has_no_effect(merge: str) -> None:
    layer, x, lengths = make("gru", merge), normal(T, N, D), [6, 0, 3]
    dy = normal(T, N, layer.output_size, seed=1)
    runs = []
    for poison in (0, np.nan):
        for array in (x, dy):
            array[3:, 2] = array[:, 1] = poison
        layer.zero_grad()
        y, _ = layer.forward(x, None, lengths)
        dx, dstart = layer.backward(dy)
        assert (y[3:, 2] == 0).all()
        assert (dx[3:, 2] == 0).all()
        runs.append([y, dx, dstart, snapshot(layer)])
    assert_same(runs[1], runs[0])


@pytest.mark.host_only
def test_the_reverse_direction_draws_its_own_parameters_and_the_same_ones_again() -> None:
    layer, again = make("gru", num_layers=2), make("gru", num_layers=2)
    assert_same(list(layer.params.values()), list(again.params.values()))
    for name in layer.layers[0].params:
        assert not np.array_equal(layer.params[name], layer.params[f"{name}_reverse"])
    joined = rc.GRU(D, H, 2, bidirectional=True)
    assert list(layer.params) == list(joined.params)
    assert layer.params["bias_ih_l1"] is layer.layers[0].params["bias_ih_l1"]
    assert layer.num_parameters == 2 * layer.layers[0].num_parameters


def test_dropout_in_both_directions_repeats_with_the_random_state() -> None:
    layer, x = make("gru", num_layers=2, dropout=0.5), normal(T, N, D)
    before = layer.rng_state
    first = layer.forward(x)
    assert [part["calls"] for part in layer.rng_state] == [1, 1]
    assert not np.array_equal(layer.forward(x)[0], first[0])
    layer.rng_state = before
    assert_same(layer.forward(x), first)
    with pytest.raises(ValueError, match="rng_state"):
        layer.rng_state = [before[0], {"seed": 1}]
    assert [part["calls"] for part in layer.rng_state] == [1, 1]


def test_a_tape_is_retained_and_spent_as_a_layers_is() -> None:
    layer, x = make("lstm", "mul"), normal(T, N, D)
    dy = normal(T, N, H, seed=1)
    *_, tape = layer.record(x, None, [6, 0, 3])
    dx, _ = layer.backward(dy, tape=tape, retain=True)
    assert_same(layer.backward(dy, tape=tape)[0], dx)
    with pytest.raises(RuntimeError, match="already spent"):
        layer.backward(dy, tape=tape)


def test_unbatched_sequences_run_too() -> None:
    layer, x = make("lstm", "average", num_layers=2), normal(T, 1, D)
    y, end = layer(x, start(layer, 1), [4])
    alone, alone_end = layer(x[:, 0], tuple(part[:, 0] for part in start(layer, 1)), 4)
    assert_same([alone, alone_end], [y[:, 0], tuple(part[:, 0] for part in end)])


@pytest.mark.parametrize(
    ("layer", "merge", "error", "words"),
    [
        (lambda: len, "sum", TypeError, "layer: expected an RNN, LSTM or GRU"),
        (lambda: rc.GRU(2, 3, bidirectional=True), "sum", ValueError, "layer: expected one dir"),
        (lambda: rc.GRU(2, 3, stateful=True), "sum", ValueError, "layer: expected one that is not"),
        (lambda: rc.GRU(2, 3), "max", ValueError, "merge: expected one of 'concat', 'sum'"),
        (lambda: rc.GRU(2, 3), None, TypeError, "merge: expected one of 'concat', 'sum'"),
        (lambda: rc.Stack([rc.GRU(2, 3)]), "sum", TypeError, "layer: expected an RNN"),
    ],
)
def test_layers_without_a_twin_are_refused(layer, merge, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        rc.Bidirectional(layer(), merge)


def test_states_of_another_shape_are_refused() -> None:
    layer = make("lstm", num_layers=2)
    with pytest.raises(ValueError, match=re.escape("state[0]: expected (4, 3, 5), got (2, 3, 5)")):
        layer(normal(T, N, D), (normal(2, N, H), normal(4, N, H)))
