"""Stacks with modules of rnncore.nn among their layers."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from modules import differences, drawn
from tolerances import FINITE_DIFFERENCE

import rnncore as rc
from rnncore import FormatError, io, nn

T, N, D = 5, 3, 4
LENGTHS = [5, 0, 2]


def make(dtype: str = "float64", batch_first: bool = False) -> rc.Stack:
    options = {"dtype": dtype, "batch_first": batch_first}
    return rc.Stack(
        [
            nn.LayerNorm(D, dtype=dtype),
            rc.GRU(D, 6, seed=1, **options),
            nn.Dropout(0.0, dtype=dtype),
            rc.RNN(6, 3, seed=2, **options),
            nn.Linear(3, 2, dtype=dtype, seed=3),
        ]
    )


def test_the_vanilla_network_is_its_three_matrices() -> None:
    network = rc.Stack([rc.RNN(D, 3, dtype="float64", seed=1),
                        nn.Linear(3, 2, dtype="float64", seed=2)])  # fmt: skip
    x, p = drawn(T, N, D), network.params
    y, (last, none) = network(x)
    assert none is None
    h = np.zeros((N, 3))
    for t in range(T):
        bias = p["0.bias_ih_l0"] + p["0.bias_hh_l0"]
        h = np.tanh(x[t] @ p["0.weight_ih_l0"].T + h @ p["0.weight_hh_l0"].T + bias)
        np.testing.assert_allclose(y[t], h @ p["1.weight"].T + p["1.bias"], rtol=1e-12)
    np.testing.assert_allclose(last[0], h, rtol=1e-12)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients_match_differences(lengths) -> None:
    stack, x, dy = make(), drawn(T, N, D), drawn(T, N, 2, seed=1)
    _, ends = stack.forward(x, None, lengths)
    dstate = [None if end is None else drawn(*end.shape, seed=7) for end in ends]
    dx, _ = stack.backward(dy, dstate)

    def value() -> float:
        y, ends = stack(x, None, lengths)
        extra = sum((e * d).sum() for e, d in zip(ends, dstate, strict=True) if d is not None)
        return float((y * dy).sum() + extra)

    np.testing.assert_allclose(dx, differences(value, x), **FINITE_DIFFERENCE)
    for name, param in stack.params.items():
        expected = differences(value, param)
        np.testing.assert_allclose(stack.grads[name], expected, **FINITE_DIFFERENCE, err_msg=name)


def test_past_a_sequences_end_all_is_zero_whatever_came() -> None:
    stack, x = make(), drawn(T, N, D)
    expected, _ = stack(x, None, LENGTHS)
    assert not expected[:, 1].any()
    assert not expected[2:, 2].any()
    assert expected[1, 2].any()
    x[:, 1], x[2:, 2] = np.nan, np.inf
    y, _ = stack.forward(x, None, LENGTHS)
    np.testing.assert_array_equal(y, expected)
    dx, _ = stack.backward(np.full_like(y, np.nan_to_num(1.0)))
    assert not dx[:, 1].any()
    assert np.isfinite(dx).all()
    assert all(np.isfinite(grad).all() for grad in stack.grads.values())


def test_layouts_and_single_sequences_are_one_computation() -> None:
    x = drawn(T, N, D)
    y, _ = make()(x, None, LENGTHS)
    turned, _ = make(batch_first=True)(x.swapaxes(0, 1), None, LENGTHS)
    np.testing.assert_array_equal(turned.swapaxes(0, 1), y)
    alone, (_, h, *_) = make()(x[:, 2], None, 2)
    np.testing.assert_array_equal(alone, y[:, 2])
    assert h.shape == (1, 6)


def test_forward_call_freeze_and_stream_give_the_same_bits() -> None:
    stack, x = make("float32"), drawn(T, N, D, dtype="float32")
    y, ends = stack.forward(x)
    np.testing.assert_array_equal(stack(x)[0], y)
    frozen = stack.freeze()
    np.testing.assert_array_equal(frozen(x)[0], y)
    out = np.empty_like(y)
    frozen(x, out=out)
    np.testing.assert_array_equal(out, y)
    stream = frozen.stream(batch=N)
    for t in range(T):
        np.testing.assert_array_equal(stream.step(x[t]), y[t])
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0], out=out[0]), y[0])
    np.testing.assert_array_equal(stream.state[1], stack(x[:1])[1][1])
    first, middle = stack(x[:2])
    second, last = stack(x[2:], middle)
    np.testing.assert_array_equal(np.concatenate([first, second]), y)
    np.testing.assert_array_equal(last[1], ends[1])
    stack.params["4.weight"][...] = 0
    np.testing.assert_array_equal(frozen(x)[0], y)
    assert stack.freeze("int8")(x)[0].shape == y.shape


def test_tapes_recorded_before_a_gradient_do_not_disturb_each_other() -> None:
    stack, dy = make(), drawn(T, N, 2, seed=3)
    alone = []
    for seed in (0, 1):
        stack.forward(drawn(T, N, D, seed=seed))
        alone.append(stack.backward(dy)[0])
    tapes = [stack.record(drawn(T, N, D, seed=seed))[2] for seed in (0, 1)]
    stack.zero_grad()
    for tape, expected in zip(tapes, alone, strict=True):
        np.testing.assert_array_equal(stack.backward(dy, tape=tape, retain=True)[0], expected)
        np.testing.assert_array_equal(stack.backward(dy, tape=tape)[0], expected)
        with pytest.raises(RuntimeError, match="already spent"):
            stack.backward(dy, tape=tape)
    zero, _ = stack.backward(None, tape=stack.record(drawn(T, N, D))[2])
    assert not zero.any()


def test_a_stack_leaves_a_modules_own_call_alone() -> None:
    linear = nn.Linear(3, 2, dtype="float64", seed=0)
    stack = rc.Stack([rc.RNN(D, 3, dtype="float64", seed=1), linear])
    x = drawn(7, 3)
    linear.forward(x)
    stack.forward(drawn(T, N, D))
    stack.backward(drawn(T, N, 2))
    assert linear.backward(np.ones((7, 2))).shape == x.shape


def test_dropout_in_a_stack_repeats_from_its_state() -> None:
    stack = rc.Stack([nn.Dropout(0.5, seed=0), rc.GRU(D, 6, seed=1), nn.Dropout(0.5, seed=2)])
    x = np.ones((T, N, D), np.float32)
    assert (stack(x)[0] != 0).all()
    before = stack.rng_state
    y, _ = stack.forward(x)
    assert (y == 0).any()
    dx, _ = stack.backward(y)
    assert (dx == 0).any()
    twin = copy.deepcopy(stack)
    second, _ = stack.forward(x)
    assert (second != y).any()
    np.testing.assert_array_equal(twin.forward(x)[0], second)
    stack.rng_state = before
    np.testing.assert_array_equal(stack.forward(x)[0], y)
    with pytest.raises(ValueError, match="rng_state"):
        stack.rng_state = [[], before[1], before[2]]


def test_inference_does_not_hand_back_the_input_itself() -> None:
    stack = rc.Stack([nn.Dropout(0.5), nn.LayerNorm(D)])
    only = rc.Stack([nn.Dropout(0.5, dtype="float64"), nn.Dropout(0.5, dtype="float64"),
                     nn.Linear(D, D, dtype="float64")])  # fmt: skip
    x = drawn(T, N, D)
    assert only.input_size == D
    assert not np.shares_memory(only(x)[0], x)
    frozen = rc.Stack([nn.LayerNorm(D), nn.Dropout(0.5)]).freeze()
    y = np.ones((T, N, D), np.float32)
    assert not np.shares_memory(frozen(y)[0], y)
    assert stack(y)[0].shape == y.shape


def test_variational_dropout_follows_the_layout() -> None:
    drop = nn.Dropout(0.5, variational=True, batch_first=True, seed=0)
    stack = rc.Stack([rc.GRU(D, 6, batch_first=True, seed=1), drop])
    y, _ = stack.forward(np.ones((N, T, D), np.float32))
    assert ((y == 0) == (y[:, :1] == 0)).all()
    with pytest.raises(ValueError, match=re.escape("layers[1]: expected batch_first=False")):
        rc.Stack([rc.GRU(D, 6), drop])


def test_files_hold_stacks_with_modules(tmp_path: Path) -> None:
    stack, x = make("float32"), drawn(T, N, D, dtype="float32")
    rc.save(tmp_path / "stack", stack)
    loaded = rc.load(tmp_path / "stack")
    np.testing.assert_array_equal(loaded(x)[0], stack(x)[0])
    assert repr(loaded) == repr(stack)
    other = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(other(x)[0], stack(x)[0])


@pytest.mark.parametrize(
    "config",
    [
        {"type": "Linear", "in_features": 10**9, "out_features": 10**9},
        {"type": "LayerNorm", "features": 10**12},
        {"type": "LayerNorm", "features": "many"},
        {"type": "Linear"},
        {"type": "Module"},
        {"type": "Linear", "in_features": [], "out_features": {}},
    ],
    ids=str,
)
def test_hostile_descriptions_of_modules_are_format_errors(tmp_path: Path, config: dict) -> None:
    description = {"config": {"type": "Stack", "layers": [config]}, "rng_state": [[]]}
    words = {"rnncore.version": rc.__version__, "rnncore.layer": json.dumps(description)}
    io.save_tensors(tmp_path / "stack", {"0.weight": np.zeros(3, np.float32)}, words)
    with pytest.raises(FormatError):
        rc.load(tmp_path / "stack")


class Doubled(nn.Module):
    """A user's module of parts that maps each step by itself."""

    features = (3, 3)

    def __init__(self) -> None:
        super().__init__("float64")
        self.inner = nn.Linear(3, 3, dtype="float64", seed=4)
        self.drop = nn.Dropout(0.5, dtype="float64", seed=5)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return 2 * self.inner(x)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return 2 * self.drop.forward(self.inner.forward(x))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return self.inner.backward(self.drop.backward(2 * dy))


def test_modules_of_ones_own_may_be_members() -> None:
    stack = rc.Stack([rc.RNN(D, 3, dtype="float64", seed=1), Doubled()])
    x, dy = drawn(T, N, D), drawn(T, N, 3, seed=1)
    before = stack.rng_state
    _, _, one = stack.record(x)
    stack.record(drawn(T, N, D, seed=8))
    dx, _ = stack.backward(dy, tape=one)

    def value() -> float:
        stack.rng_state = before
        return float((stack.forward(x)[0] * dy).sum())

    np.testing.assert_allclose(dx, differences(value, x), **FINITE_DIFFERENCE)
    assert set(stack.params) >= {"1.inner.weight", "1.inner.bias"}
    with pytest.raises(NotImplementedError, match="Doubled has no description"):
        rc.save("unused", stack)


def test_a_gradient_that_fails_adds_nothing(monkeypatch) -> None:
    stack = make()
    stack.forward(drawn(T, N, D))
    stack.backward(drawn(T, N, 2))
    before = {name: grad.copy() for name, grad in stack.grads.items()}
    stack.forward(drawn(T, N, D))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(nn.Dropout, "backward", fail)
    with pytest.raises(MemoryError):
        stack.backward(drawn(T, N, 2))
    for name, grad in stack.grads.items():
        np.testing.assert_array_equal(grad, before[name])
    with pytest.raises(RuntimeError, match="already spent"):
        stack.backward(drawn(T, N, 2))


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (lambda: [rc.GRU(2, 3), nn.Attention()], TypeError, "layers[1]: expected a module that"),
        (lambda: [rc.GRU(2, 3), nn.Linear(2, 3)], ValueError, "layers[1]: expected input_size=3"),
        (lambda: [nn.Dropout()], ValueError, "layers: expected a member whose sizes are known"),
        (lambda: [nn.Linear(2, 2)] * 2, ValueError, "layers[1]: expected each layer once"),
        (
            lambda: [rc.GRU(2, 3), nn.Linear(3, 3, dtype="float64")],
            TypeError,
            "layers[1]: expected dtype float32, got float64",
        ),
    ],
)
def test_modules_that_do_not_fit_are_refused(layers, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        rc.Stack(layers())


def test_a_module_takes_no_state() -> None:
    stack, x = make(), drawn(T, N, D)
    with pytest.raises(ValueError, match=re.escape("state[0]: expected None")):
        stack(x, [x, None, None, None, None])
