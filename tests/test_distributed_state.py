"""A model that trains in parallel has the model's state, under the model's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnncore as rc
from rnncore import distributed, nn, train


class Reader(nn.Module):
    """A model with all that a state holds: vectors that stay, a weight in two places, a layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.given = nn.Embedding.from_vectors(np.full((2, 3), seed, np.float32))
        self.first = nn.Linear(3, 3, seed=seed)
        self.again = nn.Linear(3, 3, weight=self.first, seed=seed)
        self.layer = rc.GRU(3, 2, seed=seed)


@pytest.mark.parametrize("make", [Reader, lambda seed: rc.GRU(3, 2, seed=seed)])
def test_its_state_is_the_models_under_the_models_names(make: Any) -> None:
    model, other = make(1), make(2)
    parallel = distributed.DataParallel(model, distributed.SingleProcess())
    state = parallel.state_dict()
    assert list(state) == list(model.state_dict())
    assert list(parallel.params) == list(parallel.grads) == list(model.params)
    assert dict(parallel.tied) == dict(getattr(model, "tied", {}))
    distributed.DataParallel(other, distributed.SingleProcess()).load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_a_trainer_puts_the_best_parameters_back_into_it() -> None:
    model = distributed.DataParallel(nn.Linear(2, 3, seed=0), distributed.SingleProcess())
    batches = iter([(np.ones((4, 2), np.float32), np.zeros(4, np.int64))] * 3)
    seen, losses = [], iter([2.0, 1.0, 3.0])

    def validate(model: Any) -> float:
        seen.append(model.state_dict())
        return next(losses)

    trainer = train.Trainer(
        model, nn.SoftmaxCrossEntropy(), train.SGD(model, lr=0.5), batches, validate=validate,
        validate_every=1, patience=3, progress=False,
    )  # fmt: skip
    assert trainer.run(3)
    for name, value in model.params.items():
        np.testing.assert_array_equal(value, seen[1][name], err_msg=name)
        assert (value != seen[2][name]).any()
