"""What the models promise beyond gradients: inference apart, saving, refusals, learning."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from attentions import Dot

import rnncore as rc
from rnncore import models, nn, train

X = np.random.default_rng(0).integers(0, 6, (5, 3))
LENGTHS = [5, 2, 3]


def one_of_each(dropout: float = 0.0) -> dict[str, tuple[Any, tuple, dict]]:
    """Return every model with what it takes."""
    lengths, options = {"lengths": LENGTHS}, {"dropout": dropout, "seed": 1}
    vectors = np.random.default_rng(1).standard_normal((5, 3, 4)).astype("float32")
    return {
        "classifier": (
            models.Classifier(rc.GRU(4, 5, bidirectional=True, seed=0), 3, vocabulary=6, **options),
            (X,), lengths,
        ),
        "tagger": (models.Tagger(rc.LSTM(4, 5, seed=0), 3, vocabulary=6, **options), (X,), lengths),
        "forecaster": (models.Forecaster(rc.GRU(4, 5, seed=0), 2, 3, **options), (vectors,), {}),
        "language model": (models.LanguageModel(6, rc.GRU(4, 5, seed=0), **options), (X,), {}),
        "encoder decoder": (
            models.EncoderDecoder(6, 7, rc.GRU(4, 5, seed=0), rc.GRU(8, 5, seed=1), peeky=True,
                                  **options),
            (X, X[:4]), lengths,
        ),
        "one to many": (
            models.OneToMany(4, 7, rc.LSTM(3, 5, seed=0), **options), (vectors[0], X), {},
        ),
    }  # fmt: skip


NAMES = list(one_of_each())


def prediction_of(result: Any) -> np.ndarray:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", NAMES)
def test_without_dropout_training_and_inference_give_the_same_bits(name: str) -> None:
    model, given, named = one_of_each()[name]
    inference = prediction_of(model(*given, **named))
    np.testing.assert_array_equal(model.forward(*given, **named), inference)
    np.testing.assert_array_equal(prediction_of(copy.deepcopy(model)(*given, **named)), inference)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_between_forward_and_backward_changes_nothing(name: str) -> None:
    gradients = []
    for between in (False, True):
        model, given, named = one_of_each(dropout=0.5)[name]
        prediction = model.forward(*given, **named)
        if between:
            shorter = tuple(array[..., :2, :] if array.dtype == np.float32 and array.ndim == 3
                            else array[..., :2] if array.ndim == 2 and array.dtype != np.float32
                            else array[:2] for array in given)  # fmt: skip
            model(*shorter, **({"lengths": [1, 5]} if named else {}))
        model.backward(np.ones_like(prediction))
        gradients.append({key: grad.tobytes() for key, grad in model.grads.items()})
    assert gradients[0] == gradients[1]


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name: str) -> None:
    model, given, named = one_of_each(dropout=0.5)[name]
    first, second = model.forward(*given, **named), model.forward(*given, **named)
    assert not np.array_equal(first, second)
    one, other = model(*given, **named), model(*given, **named)
    np.testing.assert_array_equal(prediction_of(one), prediction_of(other))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_carries_a_model_over(name: str) -> None:
    model, given, named = one_of_each()[name]
    other = copy.deepcopy(model)
    for value in other.params.values():
        value += 1
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(
        prediction_of(other(*given, **named)), prediction_of(model(*given, **named))
    )


@pytest.mark.parametrize("name", NAMES)
def test_backward_needs_a_forward(name: str) -> None:
    model, given, named = one_of_each()[name]
    prediction = prediction_of(model(*given, **named))
    with pytest.raises(RuntimeError, match="expected a forward"):
        model.backward(np.zeros_like(prediction))


@pytest.mark.parametrize("name", ["classifier", "tagger", "encoder decoder"])
def test_a_row_is_what_it_is_alone(name: str) -> None:
    model, given, named = one_of_each()[name]
    together = model(*given, **named)
    for n, length in enumerate(LENGTHS):
        alone = model(given[0][:length, n : n + 1], *(a[:, n : n + 1] for a in given[1:]))
        rows = together[n : n + 1] if name == "classifier" else together[:, n : n + 1]
        np.testing.assert_allclose(rows[: len(alone)], alone, rtol=1e-5, atol=1e-6)


def test_a_row_of_length_zero_is_the_output_maps_bias() -> None:
    for reduce in ("last", "mean", "max"):
        model = models.Classifier(
            rc.GRU(4, 5, bidirectional=True, seed=0), 3, reduce=reduce, seed=1
        )
        x = np.ones((2, 2, 4), np.float32)
        logits = model.forward(x, lengths=[0, 2])
        np.testing.assert_array_equal(logits[0], model.output.params["bias"])
        assert not model.backward(np.ones_like(logits))[:, 0].any()


def test_a_language_models_call_leaves_the_carried_state_alone() -> None:
    layer = rc.LSTM(4, 5, stateful=True, seed=0)
    model = models.LanguageModel(6, layer, seed=1)
    model.forward(X)
    before = layer.state
    model(X)
    model.mean_loss(X[:, 0])
    for ours, kept in zip(layer.state, before, strict=True):
        np.testing.assert_array_equal(ours, kept)


def test_a_language_models_mean_loss_is_that_of_the_whole_text() -> None:
    model = models.LanguageModel(6, rc.LSTM(4, 5, dtype="float64", seed=0), seed=1)
    text = np.random.default_rng(0).integers(0, 6, 41)
    logits, _ = model(text[:-1, None])
    whole = nn.SoftmaxCrossEntropy()(logits[:, 0], text[1:])
    for steps in (1, 7, 40, 100):
        assert model.mean_loss(text, steps=steps) == pytest.approx(whole, rel=1e-12)
    tracks = [text[:21], text[20:]]
    apart = np.mean([model.mean_loss(track) for track in tracks])
    assert model.mean_loss(text, batch=2) == pytest.approx(apart, rel=1e-12)
    with pytest.raises(ValueError, match="steps: expected an integer of at least 1, got 0"):
        model.mean_loss(text, steps=0)
    with pytest.raises(ValueError, match="batch: expected an integer of at least 1, got 0"):
        model.mean_loss(text, batch=0)
    with pytest.raises(ValueError, match="expected at least 4"):
        model.mean_loss(text[:3], batch=3)


def test_tied_weights_are_one_array_through_training_and_copies() -> None:
    model = models.LanguageModel(6, rc.GRU(4, 4, seed=0), tied=True, seed=1)
    table = model.embedding.params["weight"]
    assert model.output.weight is table
    optimizer = train.Adam(model, lr=0.1)
    assert not [key for key in optimizer.state_dict() if "output.weight" in key]
    model.backward(np.ones_like(model.forward(X)))
    optimizer.step()
    twin = copy.deepcopy(model)
    assert twin.output.weight is twin.embedding.params["weight"]
    assert twin.output.weight is not table
    np.testing.assert_array_equal(twin.output.weight, table)
    with pytest.raises(ValueError, match=r"tied: expected an embedding as wide .* \(6, 5\)"):
        models.LanguageModel(6, rc.GRU(4, 5, seed=0), tied=True, seed=1)


def test_an_encoder_decoder_steps_as_it_reads_whole_targets() -> None:
    for peeky, attention in ((False, None), (True, None), (True, Dot())):
        both = attention is None
        pair = [rc.LSTM(4, 5, bidirectional=both, seed=0), rc.LSTM(4 + 5 * peeky, 5, seed=1)]
        model = models.EncoderDecoder(6, 7, *pair, peeky=peeky, attention=attention, seed=2)
        whole = model(X, X[:4], lengths=LENGTHS)
        step, state = model.stepper(), model.encode(X, lengths=LENGTHS)
        for t in range(4):
            logits, state = step(X[t], state)
            np.testing.assert_allclose(logits, whole[t], rtol=1e-5, atol=1e-6)
        one = models.beam_search(step, [0], 3, width=2, state=model.encode(X[:5, :1], [5]))
        three = models.beam_search(step, [0, 0, 0], 3, width=2, state=model.encode(X, LENGTHS))
        assert [best.symbols for best in three[0]] == [best.symbols for best in one[0]]


def test_an_encoder_decoder_learns_to_turn_words_around() -> None:
    draw = np.random.default_rng(0)
    words = [draw.integers(2, 6, n) for n in draw.integers(1, 4, 60)]
    batches = train.PairBatches(words, [word[::-1] for word in words], 20, 0, 1, seed=1)
    model = models.EncoderDecoder(6, 6, rc.GRU(8, 32, seed=0), rc.GRU(8, 32, seed=1), seed=2)
    optimizer = train.Adam(model, lr=0.01)
    loss = nn.SoftmaxCrossEntropy()
    train.Trainer(model, loss, optimizer, batches, max_norm=1.0, progress=False).run(200)
    (source, _), _, lengths = next(batches.epoch())
    found = models.beam_search(
        model.stepper(), np.zeros(len(lengths), int), 6, width=3, end=1,
        state=model.encode(source, lengths),
    )  # fmt: skip
    wanted = [[*source[:n, i][::-1].tolist(), 1] for i, n in enumerate(lengths)]
    right = [best[0].symbols == word for best, word in zip(found, wanted, strict=True)]
    assert np.mean(right) >= 0.9


def test_a_classifier_takes_each_direction_where_it_ends_inside_of_stacks_too() -> None:
    def make(depth: int) -> models.Classifier:
        layer: Any = rc.LSTM(4, 5, bidirectional=True, dtype="float64", seed=0)
        for _ in range(depth):
            layer = rc.Stack([layer])
        return models.Classifier(layer, 3, seed=1)

    x = np.random.default_rng(0).standard_normal((6, 3, 4))
    expected = make(0)(x, LENGTHS)
    for depth in (1, 2):
        np.testing.assert_array_equal(make(depth)(x, LENGTHS), expected)


@pytest.mark.parametrize(("make", "match"), [
    (lambda: models.Classifier(nn.Linear(2, 2, seed=0), 3), "layer: expected a recurrent layer"),
    (lambda: models.Tagger(rc.GRU(2, 3, batch_first=True), 3), "expected time first"),
    (lambda: models.Forecaster(rc.GRU(2, 3, stateful=True)), "not stateful"),
    (lambda: models.Classifier(rc.Bidirectional(rc.GRU(2, 3), merge="sum"), 3), "merge='concat'"),
    (lambda: models.EncoderDecoder(5, 5, rc.GRU(2, 3), rc.LSTM(2, 3)), "the encoder's cell, 'gru'"),
    (lambda: models.EncoderDecoder(5, 5, rc.GRU(2, 3), rc.GRU(2, 4)), "hidden_size, 3, got 4"),
    (lambda: models.EncoderDecoder(5, 5, rc.GRU(2, 3), rc.GRU(3, 3), peeky=True), "input_size"),
    (lambda: models.EncoderDecoder(5, 5, rc.GRU(2, 3), rc.GRU(2, 3, bidirectional=True)),
     "decoder: expected one direction"),
    (lambda: models.OneToMany(5, 5, rc.GRU(2, 3, bidirectional=True)),
     "layer: expected one direction"),
    (lambda: models.EncoderDecoder(5, 5, rc.Stack([rc.GRU(2, 3)]), rc.GRU(2, 3)),
     "encoder: expected an RNN, LSTM or GRU, got Stack"),
    (lambda: models.Classifier(rc.GRU(2, 3), 3, reduce="first"), "reduce"),
    (lambda: models.LanguageModel(5, rc.GRU(2, 3, bidirectional=True)), "layer: expected one dir"),
    (lambda: models.LanguageModel(5, rc.Bidirectional(rc.GRU(2, 3))), "layer: expected one dir"),
    (lambda: models.LanguageModel(5, rc.Stack([rc.GRU(2, 3, bidirectional=True), rc.GRU(6, 3)])),
     "layer: expected one direction, got Stack"),
])  # fmt: skip
def test_models_refuse_layers_that_they_cannot_run(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()


@pytest.mark.parametrize(("text", "told"), [
    ([0, 1, -1], r"indices: expected 0 \.\. 4, got -1"),
    ([0, 1, 5], r"indices: expected 0 \.\. 4, got 5"),
    ([[0, 1], [2, 3]], r"indices: expected integers \(length,\), got int64 \(2, 2\)"),
    ([0.5, 1.5], r"indices: expected integers \(length,\), got float64 \(2,\)"),
    (None, r"indices: expected integers \(length,\), got object \(\)"),
])  # fmt: skip
def test_a_text_that_is_not_of_the_vocabulary_has_no_mean_loss(text: Any, told: str) -> None:
    model = models.LanguageModel(5, rc.GRU(2, 3, seed=0), seed=0)
    with pytest.raises((TypeError, ValueError), match=told):
        model.mean_loss(text)
