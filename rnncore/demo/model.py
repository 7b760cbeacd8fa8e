"""The character language model: embedding, two LSTM layers, softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import rnncore as rc
from rnncore import nn
from rnncore.checks import Array
from rnncore.demo.settings import Settings
from rnncore.demo.text import Indices, Text
from rnncore.diagnose import gradient_flow

WARMUP = 200
ROW_LENGTH = 1500
MOST_ROWS = 64
CHUNK = 256


class CharacterModel(nn.Module):
    """Predict each character from those before it.

    Parameters
    ----------
    symbols : int
        Size of the alphabet.
    settings : Settings
        Sizes, dropout and seed.
    """

    def __init__(self, symbols: int, settings: Settings) -> None:
        super().__init__()
        seeds = [int(seed) for seed in np.random.SeedSequence(settings.seed).generate_state(4)]
        self.embedding = nn.Embedding(symbols, settings.embedding, seed=seeds[0])
        self.lstm = rc.LSTM(
            settings.embedding,
            settings.hidden,
            num_layers=2,
            dropout=settings.dropout,
            forget_bias=1.0,
            stateful=True,
            seed=seeds[1],
        )
        self.dropout = nn.Dropout(settings.dropout, seed=seeds[2])
        self.output = nn.Linear(settings.hidden, symbols, seed=seeds[3])

    def forward(self, indices: Indices) -> Array:
        """Return the logits ``(T, N, symbols)`` of what follows ``indices (T, N)``."""
        y, _ = self.lstm.forward(self.embedding.forward(indices))
        return self.output.forward(self.dropout.forward(y))

    def __call__(self, indices: Indices, state: Any = None) -> tuple[Array, Any]:
        """Return logits as ``forward`` does, without dropout, and the state after them.

        The state that training carries is neither read nor changed.
        """
        y, state = self.lstm.freeze()(self.embedding(indices), state)
        return self.output(y), state

    def backward(self, dlogits: Array) -> None:
        """Add the gradients of all parameters, back to the start of the batch."""
        dx, _ = self.lstm.backward(self.dropout.backward(self.output.backward(dlogits)))
        self.embedding.backward(dx)


def mean_loss(model: CharacterModel, text: Text, weights: str | None = None) -> float:
    """Return the loss per character, in nats, on the last tenth of a text.

    It is read in rows side by side, each of which first reads the 200 characters before it without
    being judged: a prediction has what it needs, and a processor too.

    Parameters
    ----------
    model : CharacterModel
        What is judged.
    text : Text
        What it is judged on.
    weights : {None, "float32", "bfloat16", "int8"}, optional
        How the frozen LSTM holds its weights.
    """
    engine = model.lstm.freeze(weights)
    loss = nn.SoftmaxCrossEntropy(reduction="sum")
    count = len(text.indices) - text.cut
    rows = min(MOST_ROWS, math.ceil(count / ROW_LENGTH))
    length = math.ceil(count / rows)
    starts = text.cut + length * np.arange(rows)
    places = starts + np.arange(-WARMUP, length)[:, None]
    judged = (places >= starts) & (places < len(text.indices))
    inputs = text.indices[np.clip(places - 1, 0, len(text.indices) - 1)]
    targets = np.where(judged, text.indices[np.minimum(places, len(text.indices) - 1)], -1)
    total, state = 0.0, None
    for t in range(0, len(places), CHUNK):
        y, state = engine(model.embedding(inputs[t : t + CHUNK]), state)
        total += loss(model.output(y), targets[t : t + CHUNK])
    return total / count


def sample(model: CharacterModel, text: Text, length: int, seed: int, heat: float = 0.8) -> str:
    """Write on from the end of the training text, character by character.

    Parameters
    ----------
    model : CharacterModel
        The writer.
    text : Text
        Its last 200 training characters are read first.
    length : int
        Characters to write.
    seed : int
        Of the draws.
    heat : float
        Divides the logits: below 1 the probable becomes more so.
    """
    stream, draw = model.lstm.freeze().stream(batch=1), np.random.default_rng(seed)
    for index in text.training[-WARMUP:]:
        y = stream.step(model.embedding(index))
    written: list[int] = []
    for share in draw.random(length):
        logits = model.output(y)[:-1].astype(np.float64) / heat  # all but the unknown character
        shares = np.cumsum(np.exp(logits - logits.max()))
        written.append(int(np.searchsorted(shares, share * shares[-1], side="right")))
        y = stream.step(model.embedding(written[-1]))
    return text.decode(written)


def reach(model: CharacterModel, indices: Indices, steps: int = 100, rows: int = 32) -> Array:
    """Measure how much of one prediction's gradient is left at each step before it.

    Parameters
    ----------
    model : CharacterModel
        Nothing of it changes.
    indices : ndarray (length,)
        The text that the rows are taken from, evenly.
    steps, rows : int
        ``T`` and ``N``.

    Returns
    -------
    ndarray (T, 2) of float64
        Norm of dL/dh of both layers at the start of each step, mean over the rows, where L is the
        loss of the prediction after the last step.
    """
    steps = min(steps, (len(indices) - 1) // 2)
    starts = np.linspace(0, len(indices) - steps - 1, rows).astype(np.int64)
    window = indices[starts + np.arange(steps + 1)[:, None]]
    x = model.embedding(window[:-1])
    y, _ = model.lstm.freeze()(x)
    loss: Any = nn.SoftmaxCrossEntropy(reduction="sum")
    loss.forward(model.output(y[-1]), window[-1])
    dy = np.zeros_like(y)
    dy[-1] = loss.backward() @ model.output.params["weight"]
    return gradient_flow(model.lstm, x, dy)["h"]
