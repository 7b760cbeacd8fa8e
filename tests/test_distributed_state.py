"""A model that trains in parallel has the model's state, under the model's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncore as rc
from rnncore import distributed, models, nn, train


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


def make_dropping(seed: int) -> models.LanguageModel:
    layer = rc.GRU(3, 4, 2, dropout=0.5, stateful=True, seed=seed)
    return models.LanguageModel(5, layer, dropout=0.5, seed=seed)


@pytest.mark.parametrize("into_bare", [True, False])
@pytest.mark.parametrize("make", [make_dropping, lambda seed: make_dropping(seed).layer])
def test_its_checkpoint_is_the_models(make: Any, into_bare: bool, tmp_path: Path) -> None:
    first, second = make(1), make(2)
    parallel = make_parallel(first)
    saved, loaded = (parallel, second) if into_bare else (first, make_parallel(second))
    x = np.ones((6, 4), int)
    if isinstance(first, rc.GRU):
        x = np.ones((6, 4, 3), np.float32)
    first.forward(x)
    train.save_checkpoint(tmp_path / "file", saved)
    train.load_checkpoint(tmp_path / "file", loaded)
    expected, got = first.forward(x), second.forward(x)
    np.testing.assert_array_equal(got[0], expected[0])


def make_parallel(model: Any) -> distributed.DataParallel:
    return distributed.DataParallel(model, distributed.SingleProcess())


def test_a_checkpoint_of_dropout_in_other_places_is_refused(tmp_path: Path) -> None:
    class Dropping(nn.Module):
        def __init__(self, where: str, seed: int) -> None:
            super().__init__()
            self.output = nn.Linear(2, 3, seed=seed)
            setattr(self, where, nn.Dropout(0.5, seed=seed))

    train.save_checkpoint(tmp_path / "file", Dropping("before", seed=0))
    model = Dropping("after", seed=1)
    before = model.state_dict()
    with pytest.raises(
        ValueError, match=r"model: expected generators in \['before'\], .*got \['after'\]"
    ):
        train.load_checkpoint(tmp_path / "file", model)
    assert all((model.params[name] == value).all() for name, value in before.items())
