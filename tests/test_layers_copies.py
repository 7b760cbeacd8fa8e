"""Copies, pickles, configurations and what objects say of themselves."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from both_backends import assert_same, both_backends, normal, parts

import rnncore as rc
from rnncore.layers import from_config

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D = 5, 3, 4

KINDS = {
    "RNN(4, 5, nonlinearity='relu', batch_first=True)": lambda: rc.RNN(
        D, 5, nonlinearity="relu", batch_first=True, seed=1
    ),
    "LSTM(4, 5, num_layers=3, proj_size=2, forget_bias=1.0, dropout=0.25, variational=True)": (
        lambda: rc.LSTM(D, 5, 3, proj_size=2, forget_bias=1, dropout=0.25, variational=True, seed=1)
    ),
    "GRU(4, 5, bias=False, stateful=True, dtype='float64')": lambda: rc.GRU(
        D, 5, bias=False, stateful=True, dtype=np.float64, seed=1
    ),
    "Bidirectional(GRU(4, 5, num_layers=2), merge='average')": lambda: rc.Bidirectional(
        rc.GRU(D, 5, 2, seed=1), merge="average"
    ),
    "Stack([Bidirectional(LSTM(4, 5)), GRU(10, 3, stateful=True)])": lambda: rc.Stack(
        [rc.Bidirectional(rc.LSTM(D, 5, seed=1)), rc.GRU(10, 3, stateful=True, seed=2)]
    ),
}


def trained(text: str) -> object:
    """Return a layer with gradients, a random state and a carried state of its own."""
    layer = KINDS[text]()
    y, _ = layer.forward(normal(T, N, D, dtype=layer.dtype))
    layer.backward(np.ones_like(y))
    return layer


@pytest.mark.parametrize("text", KINDS)
def test_a_layer_says_how_to_make_it_again(text: str) -> None:
    layer = KINDS[text]()
    assert repr(layer) == text
    again = eval(text, vars(rc))
    assert repr(again) == text
    assert {k: v.shape for k, v in again.params.items()} == {
        k: v.shape for k, v in layer.params.items()
    }
    assert layer.num_parameters == sum(array.size for array in layer.params.values())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("text", KINDS)
def test_a_copy_is_equal_in_everything_and_shares_nothing(text: str, duplicate) -> None:
    layer = trained(text)
    twin = duplicate(layer)
    assert type(twin) is type(layer)
    assert repr(twin) == text
    assert twin.rng_state == layer.rng_state
    for ours, theirs in ((twin.params, layer.params), (twin.grads, layer.grads)):
        assert_same(list(ours.values()), list(theirs.values()))
        pairs = zip(ours.values(), theirs.values(), strict=True)
        assert not any(np.shares_memory(one, other) for one, other in pairs)
    if layer.stateful:
        assert_same(twin.state, layer.state)
        assert not np.shares_memory(parts(twin.state)[0], parts(layer.state)[0])
    x = normal(T, N, D, seed=4, dtype=layer.dtype)
    assert_same(twin.forward(x), layer.forward(x))
    with pytest.raises(RuntimeError, match=r"another layer|expected a forward call"):
        duplicate(layer).backward(None, tape=layer._tape)


@pytest.mark.host_only
@pytest.mark.parametrize("text", KINDS)
def test_a_configuration_is_json_and_builds_an_equal_layer(text: str) -> None:
    layer = trained(text)
    config = json.loads(json.dumps(layer._config()))
    twin = from_config(config)
    assert repr(twin) == text
    assert twin._config() == layer._config()
    twin.load_state_dict(layer.state_dict())
    twin.rng_state = layer.rng_state
    x = normal(T, N, D, seed=4, dtype=layer.dtype)
    state = layer.state if layer.stateful else None
    assert_same(twin.forward(x, state), layer.forward(x))


def test_a_configuration_goes_through_the_constructors_checks() -> None:
    config = rc.GRU(3, 4)._config()
    for change, error in (
        ({"type": "GRUU"}, ValueError),
        ({"hidden_size": 0}, ValueError),
        ({"hidden_size": "4"}, TypeError),
        ({"surprise": 1}, TypeError),
    ):
        with pytest.raises(error, match=r"type|hidden_size|surprise"):
            from_config({**config, **change})


@pytest.mark.host_only
def test_a_pickle_with_wrong_arrays_is_refused() -> None:
    rebuild, (kind, config, params, grads, memory) = rc.GRU(3, 4).__reduce__()
    bad = {**params, "weight_ih_l0": np.zeros((1, 1), "f4")}
    with pytest.raises(ValueError, match="weight_ih_l0: expected"):
        rebuild(kind, config, bad, grads, memory)


def test_a_subclass_stays_one() -> None:
    layer = Named(3, 4, seed=1)
    assert type(copy.deepcopy(layer)) is Named
    assert repr(layer) == "Named(3, 4)"


class Named(rc.GRU):
    """A user's own name for a layer."""
