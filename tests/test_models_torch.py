"""Models beside the same ones in PyTorch: losses and ten steps of training, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attentions import Dot

import rnncore as rc
from rnncore import models, nn, train

torch = pytest.importorskip("torch")
F64: dict[str, Any] = {"dtype": "float64", "seed": 0}
STEPS = 10


class SquaredError:
    """The mean of squares, as a loss."""

    def forward(self, prediction: np.ndarray, target: np.ndarray) -> float:
        self.difference = prediction - target
        return float((self.difference**2).mean())

    def backward(self) -> np.ndarray:
        return 2 * self.difference / self.difference.size


def tensor(array: Any) -> Any:
    return torch.tensor(np.ascontiguousarray(array))


class Twin(torch.nn.Module):
    """The parts of a model of ours, with its weights, under the names of our parts."""

    def __init__(self, model: nn.Module, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part.double())
        state = {name: tensor(value) for name, value in model.state_dict().items()}
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in state.items():
                if name in own:
                    own[name].copy_(value)
        assert set(own) - set(state) <= set(model.tied)


def cross_entropy(logits: Any, target: np.ndarray) -> Any:
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), tensor(target).reshape(-1), ignore_index=-1
    )


def packed(x: Any, lengths: Any) -> Any:
    return torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)


def padded(y: Any, steps: int) -> Any:
    return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=steps)[0]


def assert_training_is_the_same(model: Any, loss: Any, batches: Any, twin: Any, run: Any) -> None:
    """Train both by Adam on the same batches; ``run`` returns the twin's loss of a batch."""
    theirs, wanted = torch.optim.Adam(twin.parameters(), lr=0.01), []
    for position in range(STEPS):
        theirs.zero_grad()
        value = run(twin, batches[position])
        value.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1e9)
        theirs.step()
        wanted.append(value.item())
    optimizer = train.Adam(model, lr=0.01)
    trainer = train.Trainer(model, loss, optimizer, batches, max_norm=1e9, progress=False)
    trainer.run(STEPS)
    np.testing.assert_allclose(trainer.history.losses, wanted, rtol=1e-9)
    assert min(wanted[1:]) < wanted[0]
    for name, value in twin.named_parameters():
        got = model.params[name]
        np.testing.assert_allclose(got, value.detach().numpy(), rtol=1e-7, atol=1e-9, err_msg=name)


def ragged(count: int, symbols: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, symbols, n) for n in draw.integers(1, 9, count)]


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_with_its_state_carried_on(tied: bool) -> None:
    layer = rc.LSTM(6, 6, 2, stateful=True, **F64)
    model = models.LanguageModel(9, layer, tied=tied, seed=1)
    twin = Twin(
        model, embedding=torch.nn.Embedding(9, 6), layer=torch.nn.LSTM(6, 6, 2),
        output=torch.nn.Linear(6, 9),
    )  # fmt: skip
    if tied:
        twin.output.weight = twin.embedding.weight
    carried = [None]

    def run(twin: Any, batch: train.TextBatch) -> Any:
        state = None if batch.first else tuple(part.detach() for part in carried[0])
        y, carried[0] = twin.layer(twin.embedding(tensor(batch.inputs)), state)
        return cross_entropy(twin.output(y), batch.targets)

    batches = train.TextBatches(
        np.arange(200) % 7 + np.random.default_rng(0).integers(0, 3, 200), 3, 8, seed=2
    )
    assert_training_is_the_same(model, nn.SoftmaxCrossEntropy(), batches, twin, run)


@pytest.mark.parametrize("reduce", ["last", "mean", "max"])
def test_a_classifier(reduce: str) -> None:
    layer = rc.GRU(5, 6, bidirectional=True, **F64)
    model = models.Classifier(layer, 3, reduce=reduce, vocabulary=9, seed=1)
    twin = Twin(
        model, embedding=torch.nn.Embedding(9, 5),
        layer=torch.nn.GRU(5, 6, bidirectional=True), output=torch.nn.Linear(12, 3),
    )  # fmt: skip

    def run(twin: Any, batch: train.PaddedBatch) -> Any:
        lengths = tensor(batch.lengths)
        vectors = twin.embedding(tensor(batch.inputs))
        y, h = twin.layer(packed(vectors, lengths))
        y = padded(y, len(vectors))
        if reduce == "last":
            features = torch.cat([h[0], h[1]], dim=1)
        elif reduce == "mean":
            features = y.sum(dim=0) / lengths[:, None]
        else:
            past = torch.arange(len(y))[:, None] >= lengths
            features = y.masked_fill(past[..., None], -torch.inf).max(dim=0).values
        return cross_entropy(twin.output(features), batch.targets)

    inputs = ragged(30, 9)
    targets = [int(row[0]) % 3 for row in inputs]
    batches = train.PaddedBatches(inputs, targets, 8, seed=1)
    assert_training_is_the_same(model, nn.SoftmaxCrossEntropy(), batches, twin, run)


def test_a_tagger() -> None:
    layer = rc.LSTM(5, 4, 2, bidirectional=True, **F64)
    model = models.Tagger(layer, 3, vocabulary=9, seed=1)
    twin = Twin(
        model, embedding=torch.nn.Embedding(9, 5),
        layer=torch.nn.LSTM(5, 4, 2, bidirectional=True), output=torch.nn.Linear(8, 3),
    )  # fmt: skip

    def run(twin: Any, batch: train.PaddedBatch) -> Any:
        vectors = twin.embedding(tensor(batch.inputs))
        y, _ = twin.layer(packed(vectors, tensor(batch.lengths)))
        return cross_entropy(twin.output(padded(y, len(vectors))), batch.targets)

    inputs = ragged(30, 9)
    batches = train.PaddedBatches(inputs, [row % 3 for row in inputs], 8, seed=1)
    assert_training_is_the_same(model, nn.SoftmaxCrossEntropy(), batches, twin, run)


def test_a_forecaster() -> None:
    model = models.Forecaster(rc.LSTM(2, 6, **F64), columns=1, horizon=3, seed=1)
    twin = Twin(model, layer=torch.nn.LSTM(2, 6), output=torch.nn.Linear(6, 3))

    def run(twin: Any, batch: train.WindowBatch) -> Any:
        y, _ = twin.layer(tensor(batch.inputs))
        forecast = twin.output(y[-1]).T[:, :, None]
        return ((forecast - tensor(batch.targets)) ** 2).mean()

    time = np.arange(80) / 5
    series = np.stack([np.sin(time), np.cos(time)], axis=1)
    batches = train.WindowBatches(series, 8, steps=10, horizon=3, columns=[0], seed=1)
    assert_training_is_the_same(model, SquaredError(), batches, twin, run)


@pytest.mark.parametrize("attentive", [False, True])
@pytest.mark.parametrize("peeky", [False, True])
def test_an_encoder_decoder(peeky: bool, attentive: bool) -> None:
    wide = 4 + 6 * peeky
    attention = Dot(dtype="float64") if attentive else None
    layers = [rc.LSTM(5, 6, **F64), rc.LSTM(wide, 6, **F64)]
    model = models.EncoderDecoder(9, 8, *layers, peeky=peeky, attention=attention, seed=1)
    decoder = torch.nn.Module()
    decoder.embedding, decoder.layer = torch.nn.Embedding(8, 4), torch.nn.LSTM(wide, 6)
    decoder.output = torch.nn.Linear(6 + 6 * peeky + 6 * attentive, 8)
    twin = Twin(
        model, embedding=torch.nn.Embedding(9, 5), encoder=torch.nn.LSTM(5, 6), decoder=decoder
    )

    def run(twin: Any, batch: train.PaddedBatch) -> Any:
        source, read = batch.inputs
        vectors = twin.embedding(tensor(source))
        lengths = tensor(batch.lengths)
        keys, (h, c) = twin.encoder(packed(vectors, lengths))
        x = twin.decoder.embedding(tensor(read))
        seen = h.expand(len(x), -1, -1)
        y, _ = twin.decoder.layer(torch.cat([x, seen], dim=2) if peeky else x, (h, c))
        if attentive:
            keys = padded(keys, len(vectors))
            scores = torch.einsum("tnf,snf->tns", y, keys)
            past = torch.arange(len(keys)) >= lengths[:, None]
            shares = scores.masked_fill(past, -torch.inf).softmax(dim=2)
            y = torch.cat([y, torch.einsum("tns,snf->tnf", shares, keys)], dim=2)
        y = torch.cat([y, seen], dim=2) if peeky else y
        return cross_entropy(twin.decoder.output(y), batch.targets)

    sources = ragged(30, 9)
    targets = [2 + row[::-1] % 6 for row in sources]
    batches = train.PairBatches(sources, targets, 8, start=0, end=1, seed=1, reverse=True)
    assert_training_is_the_same(model, nn.SoftmaxCrossEntropy(), batches, twin, run)
