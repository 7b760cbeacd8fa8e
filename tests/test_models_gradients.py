"""Every model's gradients beside finite differences, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from attentions import Dot
from modules import differences
from tolerances import FINITE_DIFFERENCE

import rnncore as rc
from rnncore import models, nn

DRAW = np.random.default_rng(0)
INDICES, VECTORS = DRAW.integers(0, 7, (5, 3)), DRAW.standard_normal((5, 3, 4))
TARGET, LENGTHS = DRAW.integers(0, 6, (4, 3)), [5, 2, 3]
F64: dict[str, Any] = {"dtype": "float64", "seed": 0}


def assert_gradients_match(
    model: Any, given: tuple, named: Mapping[str, Any] | None = None, x: np.ndarray | None = None
) -> None:
    """Move every parameter, and x if it has a gradient, by plus and minus eps."""
    named = named or {}
    prediction = model.forward(*given, **named)
    weights = np.random.default_rng(1).standard_normal(prediction.shape)
    model.zero_grad()
    dx = model.backward(weights)
    gradients = {name: (model.params[name], grad.copy()) for name, grad in model.grads.items()}
    if x is not None:
        gradients["x"] = (x, dx)

    def value() -> float:
        return float((model.forward(*given, **named) * weights).sum())

    for name, (array, gradient) in gradients.items():
        expected = differences(value, array)
        np.testing.assert_allclose(gradient, expected, **FINITE_DIFFERENCE, err_msg=name)
        assert np.abs(expected).max() > 1e-4, f"{name}: nothing depends on it"


@pytest.mark.parametrize("reduce", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_classifiers(reduce: str, bidirectional: bool, lengths: Any) -> None:
    layer = rc.GRU(4, 3, bidirectional=bidirectional, **F64)
    model = models.Classifier(layer, 2, reduce=reduce, seed=1)
    assert_gradients_match(model, (x := VECTORS.copy(),), {"lengths": lengths}, x)


def test_a_classifiers_of_indices_over_a_stack() -> None:
    stack = rc.Stack([rc.LSTM(3, 2, bidirectional=True, **F64), rc.RNN(4, 3, **F64)])
    model = models.Classifier(stack, 2, vocabulary=7, seed=1)
    assert_gradients_match(model, (INDICES,), {"lengths": LENGTHS})


def test_a_taggers() -> None:
    model = models.Tagger(rc.LSTM(3, 2, bidirectional=True, **F64), 4, vocabulary=7, seed=1)
    assert_gradients_match(model, (INDICES,), {"lengths": LENGTHS})
    model = models.Tagger(rc.GRU(4, 3, **F64), 2, seed=1)
    assert_gradients_match(model, (x := VECTORS.copy(),), x=x)


def test_a_forecasters() -> None:
    model = models.Forecaster(rc.LSTM(4, 3, **F64), columns=2, horizon=3, seed=1)
    assert_gradients_match(model, (x := VECTORS.copy(),), x=x)


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_models(tied: bool) -> None:
    layer = rc.LSTM(3, 3, 2, **F64)
    model = models.LanguageModel(7, layer, tied=tied, seed=1)
    assert_gradients_match(model, (INDICES,))


@pytest.mark.parametrize("make", [rc.RNN, rc.GRU, rc.LSTM])
@pytest.mark.parametrize("peeky", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_decoders(make: type, peeky: bool, bidirectional: bool) -> None:
    encoder = make(3, 3, bidirectional=bidirectional, **F64)
    decoder = make(2 + 3 * peeky, 3, **F64)
    model = models.EncoderDecoder(7, 6, encoder, decoder, peeky=peeky, seed=1)
    assert_gradients_match(model, (INDICES, TARGET), {"lengths": LENGTHS})


def test_an_encoder_decoders_of_two_layers() -> None:
    pair = [rc.LSTM(3, 2, 2, bidirectional=True, **F64), rc.LSTM(4, 2, 2, **F64)]
    model = models.EncoderDecoder(7, 6, *pair, peeky=True, seed=1)
    assert_gradients_match(model, (INDICES, TARGET), {"lengths": LENGTHS})


@pytest.mark.parametrize("peeky", [False, True])
@pytest.mark.parametrize("make", [rc.GRU, rc.LSTM])
def test_an_encoder_decoders_with_attention(make: type, peeky: bool) -> None:
    pair = [make(3, 3, **F64), make(2 + 3 * peeky, 3, **F64)]
    model = models.EncoderDecoder(7, 6, *pair, peeky=peeky, attention=Dot(dtype="float64"), seed=1)
    assert_gradients_match(model, (INDICES, TARGET), {"lengths": LENGTHS})


@pytest.mark.parametrize("kind", ["general", "additive"])
def test_an_encoder_decoders_with_attention_over_two_directions(kind: str) -> None:
    pair = [rc.LSTM(3, 2, bidirectional=True, **F64), rc.LSTM(3, 2, **F64)]
    attention = nn.Attention(kind, query_size=2, key_size=4, **F64)
    model = models.EncoderDecoder(7, 6, *pair, attention=attention, seed=1)
    assert_gradients_match(model, (INDICES, TARGET), {"lengths": LENGTHS})


@pytest.mark.parametrize("make", [rc.GRU, rc.LSTM])
def test_a_one_to_manys(make: type) -> None:
    model = models.OneToMany(5, 6, make(3, 2, 2, **F64), seed=1)
    x = np.random.default_rng(2).standard_normal((3, 5))
    assert_gradients_match(model, (x, TARGET), x=x)
