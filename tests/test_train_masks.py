"""Padding of targets that are numbers: a trainer and an evaluation keep it out of the loss."""

from __future__ import annotations

import numpy as np
import pytest
from modules import drawn

import rnncore as rc
from rnncore import models, nn, train

LENGTHS = (5, 2, 4)
INPUTS = [drawn(n, 3, seed=n) for n in LENGTHS]
TARGETS = [(drawn(n, 2, seed=10 + n) > 0).astype(float) for n in LENGTHS]


def make_tagger() -> models.Tagger:
    return models.Tagger(rc.GRU(3, 4, dtype="float64", seed=0), 2, seed=1)


def mean_alone(model: models.Tagger) -> float:
    """The loss of every sequence by itself, where nothing is padding."""
    loss = nn.SigmoidCrossEntropy(reduction="sum")
    values = [loss(model(x[:, None]), y[:, None]) for x, y in zip(INPUTS, TARGETS, strict=True)]
    return sum(values) / sum(y.size for y in TARGETS)


@pytest.mark.parametrize("filler", [-1.0, 7.0, np.nan])
def test_the_trainer_does_not_learn_from_padded_numbers(filler: float) -> None:
    model = make_tagger()
    batches = train.PaddedBatches(INPUTS, TARGETS, 3, target_padding=filler)
    optimizer = train.SGD(model, lr=0.0)
    trainer = train.Trainer(model, nn.SigmoidCrossEntropy(), optimizer, batches, progress=False)
    assert trainer.step() == pytest.approx(mean_alone(model), rel=1e-12)

    alone, loss = make_tagger(), nn.SigmoidCrossEntropy(reduction="sum")
    for x, y in zip(INPUTS, TARGETS, strict=True):
        loss.forward(alone.forward(x[:, None]), y[:, None])
        alone.backward(loss.backward())
    for name, expected in alone.grads.items():
        np.testing.assert_allclose(
            model.grads[name], expected / sum(y.size for y in TARGETS), rtol=1e-10, atol=1e-14
        )


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_evaluating_weighs_every_number_the_same(batch: int) -> None:
    model, batches = make_tagger(), train.PaddedBatches(INPUTS, TARGETS, batch)
    value = train.evaluate(model, nn.SigmoidCrossEntropy(), batches.epoch())
    assert value == pytest.approx(mean_alone(model), rel=1e-12)


def test_a_batch_masks_its_steps_alone() -> None:
    steps = train.PaddedBatches(INPUTS, TARGETS, 3, shuffle=False)[0]
    assert steps.mask is not None
    assert steps.mask.T.tolist() == [[t < n for t in range(5)] for n in LENGTHS]
    assert train.PaddedBatches(INPUTS, [0, 1, 0], 3)[0].mask is None
    assert train.PairBatches([[2], [3]], [[4, 5], [4]], 2, 0, 1)[0].mask is None
