"""The same training step with the engine, in NumPy and in PyTorch, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rnncore import nn, train
from rnncore.demo.model import CharacterModel
from rnncore.demo.numpy_step import numpy_step
from rnncore.demo.settings import Settings
from rnncore.demo.text import Indices, Text
from rnncore.demo.torch_step import torch_step

Step = Callable[[Indices, Indices], float]

_PAUSE = 0.02
"""Seconds before each contender's turn."""


@dataclass(frozen=True)
class Measured:
    """How fast one contender is."""

    name: str
    seconds: float
    """Median of a step."""
    fastest: float
    slowest: float
    rate: float
    """Characters per second."""
    loss: float
    """Of the first step: equal weights, so equal but for rounding."""


def engine_step(model: CharacterModel, settings: Settings) -> Step:
    """Return a function that does one update of a model with the engine."""
    loss = nn.SoftmaxCrossEntropy()
    optimizer = train.Adam(model, settings.rate, (0.9, settings.beta2))

    def step(inputs: Indices, targets: Indices) -> float:
        model.reset_state()
        value = float(loss.forward(model.forward(inputs), targets))
        optimizer.zero_grad()
        model.backward(loss.backward())
        train.clip_grad_norm(model, settings.max_norm)
        optimizer.step()
        return value

    return step


def compare(text: Text, settings: Settings, rounds: int = 7) -> list[Measured]:
    """Time the training step of every contender in turn, round after round.

    All start from the same weights, on the same batches, without dropout. Before a step is timed
    the threads of the contender before it get time to fall asleep (they spin for milliseconds after
    their last work, on CPUs that the next one needs), and an untimed step wakes its own.

    Parameters
    ----------
    text : Text
        Source of the batches.
    settings : Settings
        Sizes of the model and of a batch.
    rounds : int
        Times each contender is measured.

    Returns
    -------
    list of Measured
        The engine first; PyTorch only where it is installed.
    """
    settings = replace(settings, dropout=0.0)
    model = CharacterModel(len(text.alphabet), settings)
    params = model.state_dict()
    contenders: dict[str, Step] = {"rnncore": engine_step(model, settings)}
    try:
        version, step = torch_step(params, settings)
        contenders[f"PyTorch {version}"] = step
    except ImportError:
        pass
    contenders[f"NumPy {np.__version__}"] = numpy_step(params, settings)
    batches = train.TextBatches(text.training, settings.batch, settings.steps, settings.seed)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    losses: dict[str, float] = {}
    for turn in range(rounds):
        inputs, targets = batches[turn][:2]
        for name, step in contenders.items():
            time.sleep(_PAUSE)
            losses.setdefault(name, step(inputs, targets))
            started = time.perf_counter()
            step(inputs, targets)
            times[name].append(time.perf_counter() - started)
    characters = settings.batch * settings.steps
    return [
        Measured(name, middle, min(seen), max(seen), characters / middle, losses[name])
        for name, seen in times.items()
        for middle in [statistics.median(seen)]
    ]
