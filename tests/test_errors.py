"""What bad arguments get: the error's type, its words, and a layer that is as it was."""

from __future__ import annotations

import array
import re

import numpy as np
import pytest
from both_backends import assert_same, normal, snapshot

import rnncore as rc

T, N, D, H = 5, 3, 4, 6

CONSTRUCTION = [
    (rc.LSTM, {"input_size": 0}, ValueError, "input_size: expected an integer of at least 1"),
    (rc.LSTM, {"hidden_size": -3}, ValueError, "hidden_size: expected an integer of at least 1"),
    (rc.GRU, {"num_layers": 0}, ValueError, "num_layers: expected an integer of at least 1"),
    (rc.RNN, {"hidden_size": 2**62}, ValueError, "hidden_size, num_layers: expected parameters of"),
    (rc.GRU, {"input_size": 2**60}, ValueError, "input_size, hidden_size, num_layers: expected"),
    (rc.GRU, {"input_size": 2**70}, ValueError, "input_size: expected an integer below 2**63"),
    (rc.GRU, {"num_layers": 2**50}, ValueError, "hidden_size, num_layers: expected parameters of"),
    (rc.GRU, {"hidden_size": 2.0}, TypeError, "hidden_size: expected an integer, got 2.0"),
    (rc.GRU, {"input_size": True}, TypeError, "input_size: expected an integer, got True"),
    (rc.GRU, {"num_layers": np.True_}, TypeError, "num_layers: expected an integer"),
    (rc.RNN, {"input_size": "4"}, TypeError, "input_size: expected an integer, got '4'"),
    (rc.RNN, {"bias": 1}, TypeError, "bias: expected True or False, got 1"),
    (rc.RNN, {"batch_first": None}, TypeError, "batch_first: expected True or False"),
    (rc.RNN, {"nonlinearity": "sigmoid"}, ValueError, "nonlinearity: expected one of 'tanh'"),
    (rc.RNN, {"nonlinearity": None}, TypeError, "nonlinearity: expected one of"),
    (rc.LSTM, {"proj_size": 6}, ValueError, "proj_size: expected less than hidden_size=6, got 6"),
    (rc.LSTM, {"proj_size": -1}, ValueError, "proj_size: expected an integer of at least 0"),
    (rc.LSTM, {"dropout": 1.0}, ValueError, "dropout: expected a probability"),
    (rc.LSTM, {"dropout": -0.1}, ValueError, "dropout: expected a probability"),
    (rc.LSTM, {"dropout": float("nan")}, ValueError, "dropout: expected a finite number"),
    (rc.LSTM, {"dropout": "0.5"}, TypeError, "dropout: expected a number"),
    (rc.LSTM, {"dropout": True}, TypeError, "dropout: expected a number"),
    (rc.LSTM, {"forget_bias": float("inf")}, ValueError, "forget_bias: expected a finite number"),
    (rc.LSTM, {"forget_bias": 1.0, "bias": False}, ValueError, "forget_bias: has no meaning"),
    (rc.LSTM, {"forget_bias": 1.0, "coupled": True}, ValueError, "forget_bias: has no meaning"),
    (rc.LSTM, {"stateful": True, "bidirectional": True}, ValueError, "stateful: has no meaning"),
    (rc.GRU, {"zoneout": (0.1, 0.2)}, ValueError, "zoneout: expected one probability"),
    (rc.LSTM, {"zoneout": (0.1, 1.2)}, ValueError, "zoneout[1]: expected a probability"),
    (rc.LSTM, {"zoneout": (0.1,)}, ValueError, "zoneout: expected a pair"),
    (rc.GRU, {"activations": ["Tanh"]}, ValueError, "activations: expected 2 names, got 1"),
    (rc.GRU, {"activations": ["Tanh", "Cosh"]}, ValueError, "activations[1]: expected one of"),
    (rc.GRU, {"activations": "Tanh"}, TypeError, "activations: expected a sequence"),
    (rc.GRU, {"clip": 0.0}, ValueError, "clip: expected a number above 0"),
    (rc.GRU, {"dtype": "int8"}, ValueError, "dtype: expected 'float32' or 'float64'"),
    (rc.GRU, {"dtype": None}, TypeError, "dtype: expected 'float32' or 'float64'"),
    (rc.GRU, {"device": "tpu"}, ValueError, "device: expected 'cpu' or 'cuda', got 'tpu'"),
    (rc.GRU, {"device": 0}, TypeError, "device: expected 'cpu' or 'cuda', got 0"),
    (rc.GRU, {"seed": -1}, ValueError, "seed: expected an integer of at least 0"),
    (rc.GRU, {"seed": 1.5}, TypeError, "seed: expected an integer"),
    (rc.GRU, {"hiden_size": 3}, TypeError, "hiden_size"),
    (rc.GRU, {"proj_size": 3}, TypeError, "proj_size"),
    (rc.LSTM, {"peephole": 1}, TypeError, "peephole: expected True or False, got 1"),
    (rc.LSTM, {"coupled": None}, TypeError, "coupled: expected True or False, got None"),
    (rc.GRU, {"reset_after": "no"}, TypeError, "reset_after: expected True or False, got 'no'"),
    (rc.GRU, {"coupled": True}, TypeError, "coupled"),
    (rc.LSTM, {"reset_after": False}, TypeError, "reset_after"),
    (rc.RNN, {"peephole": True}, TypeError, "peephole"),
    (rc.RNN, {"layer_norm": 1}, TypeError, "layer_norm: expected True or False, got 1"),
    (rc.GRU, {"recurrent_dropout": 1.0}, ValueError, "recurrent_dropout: expected a probability"),
    (rc.GRU, {"recurrent_dropout": "0"}, TypeError, "recurrent_dropout: expected a number"),
    (rc.RNN, {"zoneout": 1.0}, ValueError, "zoneout: expected a probability of at least 0"),
    (rc.RNN, {"zoneout": [0.1, 0.0]}, ValueError, "zoneout: expected one probability"),
    (rc.LSTM, {"zoneout": (0.1, 0.2, 0.3)}, ValueError, "zoneout: expected a pair (p_h, p_c)"),
    (rc.LSTM, {"zoneout": (0.1, "0")}, TypeError, "zoneout[1]: expected a number"),
    (rc.RNN, {"clip": -1}, ValueError, "clip: expected a number above 0, got -1.0"),
    (rc.RNN, {"clip": float("inf")}, ValueError, "clip: expected a finite number"),
    (rc.RNN, {"clip": "5"}, TypeError, "clip: expected a number"),
    (rc.RNN, {"activations": []}, ValueError, "activations: expected 1 names, got 0"),
    (rc.LSTM, {"activations": ["Tanh"] * 4}, ValueError, "activations: expected 3 names, got 4"),
    (rc.RNN, {"activations": ["tanh"]}, ValueError, "activations[0]: expected one of 'Affine'"),
    (rc.RNN, {"activations": [5]}, TypeError, "activations[0]: expected one of 'Affine'"),
    (rc.RNN, {"activations": [()]}, TypeError, "activations[0]: expected one of 'Affine'"),
    (
        rc.RNN,
        {"activations": [("Tanh", 1.0)]},
        ValueError,
        "activations[0]: Tanh takes no numbers, got 1",
    ),
    (
        rc.GRU,
        {"activations": ["Sigmoid", ("LeakyRelu", 0.1, 0.2)]},
        ValueError,
        "activations[1]: LeakyRelu takes at most 1 numbers, got 2",
    ),
    (
        rc.RNN,
        {"activations": [("LeakyRelu", float("nan"))]},
        ValueError,
        "activations[0]: expected a finite number",
    ),
    (
        rc.RNN,
        {"activations": ["Tanh"], "nonlinearity": "relu"},
        ValueError,
        "activations: expected nonlinearity='tanh' beside it",
    ),
    (rc.RNN, {"device": "cuda:x"}, ValueError, "device: expected 'cpu' or 'cuda'"),
    (rc.RNN, {"dtype": "float16"}, NotImplementedError, "dtype: float16"),
]


@pytest.mark.parametrize(("kind", "changes", "error", "words"), CONSTRUCTION)
def test_senseless_and_missing_options_are_refused_by_name(kind, changes, error, words) -> None:
    with pytest.raises(error, match=re.escape(words)):
        kind(**{"input_size": D, "hidden_size": H, **changes})


def test_numpy_integers_and_dtypes_are_as_good_as_pythons() -> None:
    layer = rc.GRU(np.int64(D), np.uint8(H), np.int32(2), dtype=np.float64, seed=np.uint64(3))
    assert repr(layer) == "GRU(4, 6, num_layers=2, dtype='float64')"
    assert layer._config()["seed"] == 3
    assert type(layer._config()["input_size"]) is int


def test_dropout_on_a_single_layer_warns_that_it_does_nothing() -> None:
    with pytest.warns(UserWarning, match="dropout: acts on the output of every layer but the last"):
        rc.GRU(D, H, dropout=0.5)


CALLS = [
    ({"x": normal(T, N, D + 1)}, ValueError, "x: expected (T, N, 4), got (5, 3, 5)"),
    ({"x": normal(T, D + 1)}, ValueError, "x: expected (T, 4), got (5, 5)"),
    ({"x": normal(D)}, ValueError, "x: expected (T, N, 4) or (T, 4), got (4,)"),
    ({"x": normal(1, T, N, D)}, ValueError, "x: expected (T, N, 4) or (T, 4), got (1, 5, 3, 4)"),
    (
        {"x": normal(T, N, D).tolist()},
        TypeError,
        "x: expected a NumPy array of float32, got a l",
    ),
    ({"x": None}, TypeError, "x: expected a NumPy array of float32, got None"),
    ({"x": 1.0}, TypeError, "x: expected a NumPy array of float32, got 1.0"),
    ({"x": np.float32(1)}, TypeError, "x: expected a NumPy array of float32"),
    ({"x": array.array("d", [1, 2])}, TypeError, "x: expected dtype float32, got float64"),
    ({"x": array.array("f", [1, 2])}, ValueError, "got (2,)"),
    ({"x": np.ma.masked_array(normal(T, N, D))}, TypeError, "got a MaskedArray"),
    ({"x": normal(T, D).view(np.matrix)}, TypeError, "got a matrix"),
    ({"x": normal(T, N, D).astype("f8")}, TypeError, "x: expected dtype float32, got float64"),
    ({"x": normal(T, N, D).astype("f2")}, TypeError, "x: expected dtype float32, got float16"),
    ({"x": normal(T, N, D).astype("i4")}, TypeError, "x: expected dtype float32, got int32"),
    ({"x": normal(T, N, D).astype("?")}, TypeError, "x: expected dtype float32, got bool"),
    ({"x": normal(T, N, D).astype("c8")}, TypeError, "x: expected dtype float32, got complex64"),
    ({"x": normal(T, N, D).astype("O")}, TypeError, "x: expected dtype float32, got object"),
    ({"x": normal(T, N, D).astype(">f4")}, TypeError, "got >f4 (foreign byte order)"),
    ({"state": normal(2, N, H)}, ValueError, "state: expected a pair (h, c), got ndarray"),
    ({"state": (normal(2, N, H),)}, ValueError, "state: expected a pair (h, c), got 1 parts"),
    ({"state": (normal(2, N, H), None)}, TypeError, "state[1]: expected a NumPy array of float32"),
    (
        {"state": (normal(2, N, H), normal(2, 1, H))},
        ValueError,
        "state[1]: expected (2, 3, 6), got (2, 1, 6)",
    ),
    (
        {"state": (normal(1, 1, 2, N, H), normal(2, N, H))},
        ValueError,
        "state[0]: expected (2, 3, 6), got (1, 1, 2, 3, 6)",
    ),
    ({"state": (normal(2, N, H).astype("f8"),) * 2}, TypeError, "state[0]: expected dtype float32"),
    ({"lengths": [5, 6, 0]}, ValueError, "lengths[1]: expected 0 to 5, got 6"),
    ({"lengths": np.array([5, 0, -1])}, ValueError, "lengths[2]: expected 0 to 5, got -1"),
    ({"lengths": np.array([5, 0, 2**63], "u8")}, ValueError, "lengths[2]: expected 0 to 5"),
    ({"lengths": [5, 0, 2**80]}, ValueError, "lengths[2]: expected 0 to 5"),
    ({"lengths": [5, 0]}, ValueError, "lengths: expected shape (3,), got (2,)"),
    ({"lengths": np.zeros((3, 1), "i8")}, ValueError, "lengths: expected shape (3,), got (3, 1)"),
    ({"lengths": np.array([5.0, 0.0, 1.0])}, TypeError, "lengths: expected integers, got dtype"),
    ({"lengths": [5, 0, 1.0]}, TypeError, "lengths[2]: expected an integer, got 1.0"),
    ({"lengths": [5, 0, True]}, TypeError, "lengths[2]: expected an integer, got True"),
    ({"lengths": np.array([True, False, True])}, TypeError, "lengths: expected integers"),
    ({"lengths": 5}, TypeError, "lengths: expected an array or a list of integers, got 5"),
    ({"lengths": "500"}, TypeError, "lengths: expected an array or a list of integers"),
    ({"x": normal(T, D), "lengths": [5]}, ValueError, "lengths: expected one integer"),
    ({"x": normal(T, D), "lengths": 6}, ValueError, "lengths: expected 0 to 5, got 6"),
    ({"x": normal(T, D), "lengths": 5.0}, TypeError, "lengths: expected an integer, got 5.0"),
    ({"resets": np.zeros((T, N), "i8")}, TypeError, "resets: expected dtype bool, got int64"),
    ({"resets": np.zeros((N, T), "?")}, ValueError, "resets: expected (5, 3), got (3, 5)"),
    ({"resets": np.zeros((T, N, 1), "?")}, ValueError, "resets: expected (5, 3), got (5, 3, 1)"),
    ({"resets": [[False] * N] * T}, TypeError, "resets: expected an array of bool, got a list"),
    ({"resets": True}, TypeError, "resets: expected an array of bool, got True"),
    ({"resets": normal(T, N)}, TypeError, "resets: expected dtype bool, got float32"),
    (
        {"x": normal(T, D), "resets": np.zeros((T, 1), "?")},
        ValueError,
        "resets: expected (5,), got (5, 1)",
    ),
]


@pytest.mark.parametrize(("changes", "error", "words"), CALLS)
def test_bad_calls_name_argument_expectation_and_what_came(changes, error, words) -> None:
    layer = rc.LSTM(D, H, num_layers=2, seed=1)
    before, random = snapshot(layer), layer.rng_state
    arguments = {"x": normal(T, N, D), **changes}
    for call in (layer, layer.forward, layer.record, layer.freeze()):
        with pytest.raises(error, match=re.escape(words)):
            call(**arguments)
    assert_same(snapshot(layer), before)
    assert layer.rng_state == random
    with pytest.raises(RuntimeError, match="expected a forward call"):
        layer.backward(normal(T, N, H))


def test_shapes_are_told_in_the_callers_layout() -> None:
    layer = rc.GRU(128, H, batch_first=True)
    with pytest.raises(ValueError, match=re.escape("x: expected (N, T, 128), got (35, 20, 64)")):
        layer(normal(35, 20, 64))
    with pytest.raises(ValueError, match=re.escape("resets: expected (20, 35), got (35, 20)")):
        layer(normal(20, 35, 128), resets=np.zeros((35, 20), "?"))
    layer.forward(normal(20, 35, 128))
    with pytest.raises(ValueError, match=re.escape("dy: expected (20, 35, 6), got (35, 20, 6)")):
        layer.backward(normal(35, 20, H))
    with pytest.raises(ValueError, match=re.escape("dstate: expected (1, 20, 6), got (20, 1, 6)")):
        layer.backward(None, normal(20, 1, H))


def test_an_array_for_the_state_of_a_gru_is_no_tuple() -> None:
    layer = rc.GRU(D, H)
    with pytest.raises(TypeError, match="state: expected one array, got a tuple"):
        layer(normal(T, N, D), (normal(1, N, H),))


def test_recompute_and_other_devices_are_named() -> None:
    layer = rc.GRU(D, H)
    with pytest.raises(TypeError, match="recompute: expected True or False"):
        layer.record(normal(T, N, D), recompute=1)
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'disk'"):
        layer.to("disk")
    with pytest.raises(ValueError, match="dtype: expected one of"):
        layer.freeze("float16")


def test_subclasses_of_ndarray_are_taken_as_what_they_hold() -> None:
    class Lying(np.ndarray):
        @property
        def shape(self) -> tuple[int, ...]:
            return (10**6, 10**6, D)

    layer, x = rc.GRU(D, H, seed=1), normal(T, N, D)
    y, _ = layer.freeze()(x.view(Lying))
    assert_same(y, layer(x)[0])


def test_a_device_array_is_not_read() -> None:
    class Device:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, **options: object) -> object:
            raise AssertionError("nothing may ask for the memory")

    with pytest.raises(TypeError, match="x: expected a NumPy array of float32 in host memory"):
        rc.GRU(D, H)(Device())
