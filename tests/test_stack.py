"""Stacks: any layers one after another as one layer."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from both_backends import (
    assert_same,
    backend_of,
    both_backends,
    exact_dtype,
    normal,
    parts,
    snapshot,
)

import rnncore as rc

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D = 6, 3, 4


def members(**options: object) -> list:
    return [
        rc.LSTM(D, 5, 2, bidirectional=True, dropout=0.3, seed=1, **options),
        rc.Bidirectional(rc.GRU(10, 3, seed=2, **options), merge="sum"),
        rc.RNN(3, 7, nonlinearity="relu", seed=3, **options),
    ]


def test_a_stack_is_its_members_run_by_hand() -> None:
    stack, layers = rc.Stack(members()), members()
    x, dy, lengths = normal(T, N, D), normal(T, N, 7, seed=1), [6, 0, 3]
    y, ends = stack.forward(x, None, lengths)
    dx, starts = stack.backward(dy, ends)
    step, tapes, expected_ends = x, [], []
    for layer in layers:
        step, end, tape = layer.record(step, None, lengths)
        tapes.append(tape)
        expected_ends.append(end)
    assert_same([y, ends], [step, expected_ends])
    gradient, expected_starts = dy, []
    for layer, tape, end in zip(layers[::-1], tapes[::-1], expected_ends[::-1], strict=True):
        gradient, start = layer.backward(gradient, end, tape=tape)
        expected_starts.insert(0, start)
    assert_same([dx, starts], [gradient, expected_starts])
    for i, layer in enumerate(layers):
        for name, grad in layer.grads.items():
            assert_same(stack.grads[f"{i}.{name}"], grad)


def test_a_stack_of_single_layers_has_the_bits_of_one_deep_layer(both_backends: str) -> None:
    dtype = exact_dtype(both_backends)
    deep = rc.GRU(D, 5, 2, seed=1, dtype=dtype)
    stack = rc.Stack([rc.GRU(D, 5, dtype=dtype), rc.GRU(5, 5, dtype=dtype)])
    for name, array in deep.params.items():
        stem, layer = name.rsplit("_l", 1)
        stack.params[f"{layer}.{stem}_l0"][...] = array
    x, dy = normal(T, N, D, dtype=dtype), normal(T, N, 5, seed=1, dtype=dtype)
    y, h = deep.forward(x)
    stack_y, stack_h = stack.forward(x)
    assert_same([stack_y, np.concatenate(stack_h)], [y, h])
    dx, dh = deep.backward(dy, h)
    stack_dx, stack_dh = stack.backward(dy, stack_h)
    assert_same([stack_dx, np.concatenate(stack_dh)], [dx, dh])
    assert_same(stack.grads["0.weight_hh_l0"], deep.grads["weight_hh_l0"])


@pytest.mark.host_only
def test_names_are_prefixed_and_arrays_are_the_members_own() -> None:
    layers = members()
    stack = rc.Stack(layers)
    assert stack.layers == tuple(layers)
    assert "0.weight_ih_l1_reverse" in stack.params
    assert stack.params["2.bias_hh_l0"] is layers[2].params["bias_hh_l0"]
    assert stack.num_parameters == sum(layer.num_parameters for layer in layers)
    stack.forward(normal(T, N, D))
    stack.backward(normal(T, N, 7))
    assert np.abs(layers[0].grads["weight_hh_l1"]).max() > 0
    assert stack.grads["0.weight_hh_l1"] is layers[0].grads["weight_hh_l1"]
    stack.zero_grad()
    assert all((grad == 0).all() for layer in layers for grad in layer.grads.values())


@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts_reach_every_member(batch_first: bool) -> None:
    stack = rc.Stack(members(batch_first=batch_first))
    plain = rc.Stack(members())
    x = normal(T, N, D)
    y, ends = plain(x, None, [6, 0, 3])
    turned = x.swapaxes(0, 1) if batch_first else x
    turned_y, turned_ends = stack(turned, None, [6, 0, 3])
    assert_same([turned_y.swapaxes(0, 1) if batch_first else turned_y, turned_ends], [y, ends])
    assert turned_y.flags.c_contiguous
    alone_y, alone_ends = stack(x[:, 0], None, 6)
    assert_same([alone_y, alone_ends], [y[:, 0], [part[:, 0] for part in parts(ends)]])


def test_states_go_in_and_come_out_as_a_list(both_backends: str) -> None:
    dtype = exact_dtype(both_backends)
    x = normal(7, N, D, dtype=dtype)
    stack = rc.Stack([rc.LSTM(D, 5, seed=1, dtype=dtype), rc.GRU(5, 3, seed=2, dtype=dtype)])
    whole, end = stack(x)
    assert [len(parts(state)) for state in end] == [2, 1]
    first, middle = stack(x[:3])
    second, last = stack(x[3:], middle)
    assert_same([np.concatenate([first, second]), last], [whole, end])
    h = normal(1, N, 3, seed=4, dtype=dtype)
    zeros = (np.zeros((1, N, 5), dtype), np.zeros((1, N, 5), dtype))
    assert_same(stack(x, [None, h]), stack(x, [zeros, h]))
    with pytest.raises(ValueError, match="state: expected 2 entries, got 1"):
        stack(x, [h])
    with pytest.raises(ValueError, match=re.escape("state[1]: expected (1, 3, 3), got (1, 1, 3)")):
        stack(x, [None, h[:, :1]])
    with pytest.raises(TypeError, match="state: expected a list, got ndarray"):
        stack(x, h)


def test_tapes_of_stacks_are_tapes() -> None:
    stack, x, dy = rc.Stack(members()), normal(T, N, D), normal(T, N, 7, seed=1)
    *_, tape = stack.record(x)
    dx, _ = stack.backward(dy, tape=tape, retain=True)
    grads = snapshot(stack)
    stack.zero_grad()
    assert_same(stack.backward(dy, tape=tape)[0], dx)
    assert_same(snapshot(stack), grads)
    with pytest.raises(RuntimeError, match="already spent"):
        stack.backward(dy, tape=tape)
    *_, tape = stack.record(x)
    with pytest.raises(RuntimeError, match="another layer"):
        rc.Stack(members()).backward(dy, tape=tape)
    assert stack.backward(dy, need_dx=False, tape=tape)[0] is None


def pair(stateful: bool = True, dtype: str = "float32") -> rc.Stack:
    options = {"stateful": stateful, "dtype": dtype}
    return rc.Stack([rc.GRU(D, 5, seed=1, **options), rc.LSTM(5, 3, seed=2, **options)])


def test_stateful_members_keep_their_states(both_backends: str) -> None:
    dtype = exact_dtype(both_backends)
    stack, plain = pair(dtype=dtype), pair(stateful=False, dtype=dtype)
    x = normal(7, N, D, dtype=dtype)
    whole, end = plain(x)
    y = np.concatenate([stack(x[:3])[0], stack.forward(x[3:])[0]])
    assert_same([y, stack.state], [whole, end])
    stack.reset_state([1])
    assert all((part[:, 1] == 0).all() for part in parts(stack.state))
    stack.set_state(end)
    assert_same(stack(x)[0], plain(x, end)[0])
    with pytest.raises(ValueError, match="state"):
        stack.set_state([end[0] + 1, (end[1][0][:, :, 1:], end[1][1])])
    assert_same(stack(x)[0], plain(x, plain(x, end)[1])[0])
    stack.reset_state()
    assert_same(stack(x)[0], whole)
    with pytest.raises(RuntimeError, match="stateful=True"):
        plain.reset_state()


def test_a_member_that_fails_leaves_every_members_state(monkeypatch, both_backends) -> None:
    stack = pair()
    stack(normal(T, N, D))
    before, backend, calls = stack.state, backend_of(both_backends), []
    forward = backend.forward

    def fail_second(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "forward", fail_second)
        with pytest.raises(MemoryError):
            stack(normal(T, N, D, seed=1))
    assert_same(stack.state, before)


def test_a_gradient_that_fails_half_way_adds_nothing_and_spends_the_tape(
    monkeypatch, both_backends
) -> None:
    stack, dy = rc.Stack(members()), normal(T, N, 7)
    stack.forward(normal(T, N, D))
    stack.backward(dy)
    before, backend, calls = snapshot(stack), backend_of(both_backends), []
    stack.forward(normal(T, N, D))
    backward = backend.backward

    def fail_third(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        backward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "backward", fail_third)
        with pytest.raises(KeyboardInterrupt):
            stack.backward(dy)
    assert_same(snapshot(stack), before)
    with pytest.raises(RuntimeError, match="already spent"):
        stack.backward(dy)


def test_holding_a_stack_holds_every_member() -> None:
    stack, x = rc.Stack(members()), normal(T, N, D)
    expected = stack(x)
    with stack.hold():
        assert_same(stack(x), expected)
        assert all(layer._packed._held for layer in (stack.layers[0], stack.layers[2]))
    assert stack.layers[0]._packed._held is None


def test_random_states_are_a_list_and_copies_go_on_alike() -> None:
    stack, x = rc.Stack(members()), normal(T, N, D)
    before = stack.rng_state
    first = stack.forward(x)
    twin = copy.deepcopy(stack)
    second = stack.forward(x)
    assert_same(twin.forward(x), second)
    assert not np.array_equal(first[0], second[0])
    stack.rng_state = before
    assert_same(stack.forward(x), first)
    now = stack.rng_state
    with pytest.raises(ValueError, match="rng_state"):
        stack.rng_state = [{"seed": 9, "calls": 9}, *now[1:-1], {"seed": 1}]
    assert stack.rng_state == now


def test_stacks_nest() -> None:
    flat = rc.Stack([rc.GRU(D, 5, seed=1), rc.GRU(5, 6, seed=2), rc.LSTM(6, 2, seed=3)])
    inner = rc.Stack([rc.GRU(5, 6, seed=2), rc.LSTM(6, 2, seed=3)])
    nested = rc.Stack([rc.GRU(D, 5, seed=1), inner])
    x, dy = normal(T, N, D), normal(T, N, 2, seed=1)
    y, ends = flat.forward(x)
    nested_y, nested_ends = nested.forward(x)
    assert_same([nested_y, nested_ends], [y, ends])
    assert_same(nested.backward(dy)[0], flat.backward(dy)[0])
    assert "1.0.weight_ih_l0" in nested.params
    assert_same(list(nested.grads.values()), list(flat.grads.values()))


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (lambda: [], ValueError, "layers: expected at least one layer"),
        (lambda: rc.GRU(2, 3), TypeError, "layers: expected a list of layers, got GRU"),
        (lambda: [rc.GRU(2, 3), len], TypeError, "layers[1]: expected a layer"),
        (lambda: [rc.GRU(2, 3), rc.GRU(2, 3)], ValueError, "layers[1]: expected input_size=3"),
        (lambda: [rc.GRU(2, 2)] * 2, ValueError, "layers[1]: expected each layer once"),
        (
            lambda: [rc.GRU(2, 3), rc.GRU(3, 3, dtype="float64")],
            TypeError,
            "layers[1]: expected dtype float32, got float64",
        ),
        (
            lambda: [rc.GRU(2, 3), rc.GRU(3, 3, batch_first=True)],
            ValueError,
            "layers[1]: expected batch_first=False, got True",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        rc.Stack(layers())
