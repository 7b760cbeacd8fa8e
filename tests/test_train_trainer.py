"""The trainer: it learns, and stops and goes on to the same bits."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnncore as rc
from rnncore import models, nn, train
from rnncore.train.interrupt import StopRequest


class Tiny(nn.Module):
    """A character model with everything that a checkpoint has to hold."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4, seed=seed)
        self.lstm = rc.LSTM(4, 6, 2, dropout=0.2, stateful=True, seed=seed + 1)
        self.dropout = nn.Dropout(0.2, seed=seed + 2)
        self.output = nn.Linear(6, 5, seed=seed + 3)

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, _ = self.lstm.forward(self.embedding.forward(x))
        return self.output.forward(self.dropout.forward(y))

    def backward(self, dy: np.ndarray) -> None:
        dx, _ = self.lstm.backward(self.dropout.backward(self.output.backward(dy)))
        self.embedding.backward(dx)


def make(path: Path | None = None, **options: object) -> train.Trainer:
    model = Tiny()
    text = np.arange(150) // 2 % 5
    options = {"schedule": train.WarmupCosine(0.02, 40, 4), "max_norm": 1.0} | options
    return train.Trainer(
        model=model,
        loss=nn.SoftmaxCrossEntropy(),
        optimizer=train.Adam(model),
        batches=train.TextBatches(text, batch=3, steps=7, seed=1),
        validate=lambda model: float(model.output.params["weight"].sum()),
        validate_every=6,
        checkpoint=path,
        progress=False,
        **options,
    )


def bits(trainer: train.Trainer) -> dict[str, bytes]:
    arrays = {**trainer.model.params, **trainer.optimizer.state_dict()}
    return {name: value.tobytes() for name, value in arrays.items()}


def test_the_loss_falls() -> None:
    trainer = make()
    assert trainer.run(40)
    losses = trainer.history.losses
    assert len(losses) == trainer.updates == 40
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.1
    assert [update for update, _ in trainer.history.validation] == [6, 12, 18, 24, 30, 36, 40]


@pytest.mark.parametrize("at", [1, 5, 6, 13])
def test_resuming_gives_the_same_bits_as_no_stop(at: int, tmp_path: Path) -> None:
    whole = make()
    whole.run(20)

    path = tmp_path / "checkpoint"
    first = make(path)
    first.validate = None  # a shorter run ends with a validation that the whole one has not
    first.run(at)
    second = make(path)
    for value in second.model.params.values():
        value += 1
    second.load()
    assert second.updates == at
    assert second.run(20)
    assert bits(second) == bits(whole)
    assert second.history.losses == whole.history.losses
    assert second.history.norms == whole.history.norms


@pytest.mark.parametrize("at", [0, 5, 11])
def test_ctrl_c_ends_at_an_update_with_a_checkpoint_that_goes_on(at: int, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    schedule = train.WarmupCosine(0.02, 40, 4)

    def interrupted(update: int) -> float:
        if update == at:
            signal.raise_signal(signal.SIGINT)
        return schedule(update)

    stopped = make(path, schedule=interrupted)
    assert not stopped.run(20)
    assert stopped.updates == at + 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    resumed, whole = make(path), make()
    resumed.load()
    assert resumed.run(20)
    assert whole.run(20)
    assert bits(resumed) == bits(whole)
    assert resumed.history.validation == whole.history.validation


def test_a_second_ctrl_c_interrupts_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_signals_alone() -> None:
    trainer, before = make(), signal.getsignal(signal.SIGINT)
    worker = threading.Thread(target=trainer.run, args=(3,))
    worker.start()
    worker.join()
    assert trainer.updates == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_the_bits_do_not_depend_on_threads() -> None:
    results = []
    for threads in (1, 2):
        with rc.threads(threads):
            trainer = make()
            trainer.run(8)
        results.append((bits(trainer), trainer.history.losses))
    assert results[0] == results[1]


def test_a_loss_that_is_not_finite_is_an_error_before_the_step() -> None:
    trainer = make()
    trainer.run(2)
    trainer.model.params["output.bias"][0] = np.nan
    before = bits(trainer)
    with pytest.raises(FloatingPointError, match="got nan at update 3"):
        trainer.run(5)
    assert bits(trainer) == before


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    make(path).run(1)
    with pytest.raises(ValueError, match="embedding"):
        train.load_checkpoint(path, nn.Linear(3, 2, seed=0))
    rc.save(path, rc.GRU(2, 3, seed=0))
    with pytest.raises(rc.FormatError, match="kind"):
        make(path).load()
    with pytest.raises(ValueError, match="path"):
        make().load()


def test_progress_writes_a_plain_line_to_standard_error(capsys: pytest.CaptureFixture) -> None:
    trainer = make()
    trainer.progress = True
    trainer.run(6)
    out, err = capsys.readouterr()
    assert out == ""
    assert "6/6" in err
    assert "validation" in err


class Affine(nn.Linear):
    """A model of one map, whose calls are counted."""


def small(seed: int = 0, **options: object) -> train.Trainer:
    """Return a trainer of a linear classifier on fixed examples."""
    model = Affine(3, 2, dtype="float64", seed=seed)
    draw = np.random.default_rng(1)
    rows = list(draw.standard_normal((24, 3)))
    batches = Examples(rows, [int(row[0] > 0) for row in rows])
    optimizer = train.SGD(model, lr=0.5)
    loss = nn.SoftmaxCrossEntropy()
    options = {"progress": False} | options
    return train.Trainer(model, loss, optimizer, batches, **options)


class Examples:
    """Batches that keep their place in a state_dict of their own."""

    def __init__(self, rows: list[np.ndarray], targets: list[int], batch: int = 4) -> None:
        self.x, self.y, self.batch, self.at = np.stack(rows), np.array(targets), batch, 0

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        chosen = (self.batch * self.at + np.arange(self.batch)) % len(self.y)
        self.at += 1
        return self.x[chosen], self.y[chosen]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def test_accumulated_batches_are_one_large_batch() -> None:
    several, whole = small(accumulate=3), small()
    whole.batches.batch = 12
    several.run(5)
    whole.run(5)
    assert several.batches.at == 15
    np.testing.assert_allclose(several.history.losses, whole.history.losses, rtol=1e-12)
    np.testing.assert_allclose(several.history.norms, whole.history.norms, rtol=1e-12)
    for name, value in whole.model.params.items():
        np.testing.assert_allclose(several.model.params[name], value, rtol=1e-12)


def test_batches_with_a_state_dict_of_their_own_are_resumed(tmp_path: Path) -> None:
    path, whole = tmp_path / "checkpoint", small(accumulate=2)
    whole.run(7)
    small(checkpoint=path, accumulate=2).run(3)
    resumed = small(seed=5, checkpoint=path, accumulate=2)
    resumed.load()
    resumed.run(7)
    assert resumed.batches.at == 14
    assert bits(resumed) == bits(whole)


def validation(values: list[float]) -> object:
    """Return a validation that gives these losses one after another."""
    left = list(values)
    return lambda model: left.pop(0)


LOSSES = [3.0, 2.0, 2.5, 1.5, 1.6, 1.7, 1.8, 0.1]


def test_patience_ends_the_training_with_the_best_parameters() -> None:
    seen = {}
    trainer = small(
        validate=validation(LOSSES), validate_every=2, patience=3,
        callbacks=[lambda t: seen.setdefault(t.updates, t.model.state_dict())],
    )  # fmt: skip
    assert trainer.run(100)
    assert trainer.updates == 14
    assert trainer.exhausted
    assert trainer.history.best == (8, 1.5)
    for name, value in trainer.model.params.items():
        np.testing.assert_array_equal(value, seen[8][name])
        assert (value != seen[14][name]).any()


@pytest.mark.parametrize("at", [1, 3, 9, 12, 13])
def test_patience_and_plateau_go_on_as_if_never_stopped(at: int, tmp_path: Path) -> None:
    def make_one(losses: list[float], path: Path | None = None, seed: int = 0) -> train.Trainer:
        return small(
            seed, validate=validation(losses), validate_every=2, patience=3, checkpoint=path,
            schedule=train.Plateau(0.5, divisor=2.0),
        )  # fmt: skip

    whole, path = make_one(LOSSES), tmp_path / "checkpoint"
    whole.run(100)
    first = make_one(LOSSES, path)
    first.callbacks = [lambda trainer: trainer.stop() if trainer.updates == at else None]
    assert first.run(100)
    resumed = make_one(LOSSES[at // 2 :], path, seed=3)
    resumed.load()
    assert resumed.updates == at
    resumed.run(100)
    assert resumed.schedule == whole.schedule
    assert resumed.optimizer.lr == whole.optimizer.lr < 0.5
    assert bits(resumed) == bits(whole)
    assert resumed.history.validation == whole.history.validation


def test_a_run_after_the_best_parameters_goes_on_from_the_last_ones() -> None:
    def make_one() -> train.Trainer:
        return small(validate=validation([1.0, 2.0, 3.0, 4.0]), validate_every=2, patience=9)

    whole, apart = make_one(), make_one()
    whole.run(8)
    apart.run(4)
    apart.run(8)
    assert apart.history.losses == whole.history.losses
    assert bits(apart) == bits(whole)


def test_a_learning_rate_set_by_hand_is_resumed(tmp_path: Path) -> None:
    first = small(checkpoint=tmp_path / "checkpoint")
    first.run(2)
    first.optimizer.lr = 0.125
    first.save()
    second = small(checkpoint=tmp_path / "checkpoint")
    second.load()
    assert second.optimizer.lr == 0.125


def test_callbacks_see_every_update_with_its_validation() -> None:
    seen = []
    trainer = small(
        validate=validation([5.0, 4.0]), validate_every=2,
        callbacks=[lambda t: seen.append((t.updates, len(t.history.validation)))],
    )  # fmt: skip
    trainer.run(4)
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2)]


def test_a_gradient_that_is_not_finite_is_an_error_before_the_step() -> None:
    trainer = small()
    trainer.run(2)
    before = bits(trainer)
    backward = trainer.model.backward

    def spoilt(dy: np.ndarray) -> np.ndarray:
        dx = backward(dy)
        trainer.model.grads["bias"][0] = np.inf
        return dx

    trainer.model.backward = spoilt
    with pytest.raises(
        FloatingPointError, match="gradient norm: expected a finite number, got inf"
    ):
        trainer.run(5)
    assert bits(trainer) == before
    assert trainer.updates == 2


def test_lengths_and_pairs_reach_the_model() -> None:
    words = [[2, 3], [4], [3, 3, 2], [5, 2]]
    batches = train.PairBatches(words, words, 2, 0, 1, seed=1)
    pair = [rc.GRU(4, 6, seed=i) for i in range(2)]
    model = models.EncoderDecoder(6, 6, *pair, seed=2)
    trainer = train.Trainer(
        model, nn.SoftmaxCrossEntropy(), train.Adam(model, 0.05), batches, progress=False
    )
    trainer.run(80)
    value = train.evaluate(model, nn.SoftmaxCrossEntropy(), batches.epoch())
    assert value < trainer.history.losses[0] / 3


def test_evaluating_weighs_every_target_the_same() -> None:
    rows = [np.arange(n) % 5 for n in (1, 2, 9, 4, 4)]
    model = models.Tagger(rc.GRU(3, 4, dtype="float64", seed=0), 5, vocabulary=5, seed=1)
    loss = nn.SoftmaxCrossEntropy()
    whole = train.evaluate(model, loss, train.PaddedBatches(rows, rows, 5).epoch())
    apart = train.evaluate(model, loss, train.PaddedBatches(rows, rows, 2).epoch())
    assert apart == pytest.approx(whole, rel=1e-12)
    assert train.evaluate(model, loss, []) == 0.0


@pytest.mark.parametrize(("loss", "targets"), [
    (nn.SoftmaxCrossEntropy(ignore_index=0), np.array([2, 0, 0, 0, 1, 1, 2])),
    (nn.MeanSquaredError(), np.arange(-7, 14).reshape(7, 3)),
])  # fmt: skip
def test_evaluating_weighs_a_batch_by_the_targets_that_its_loss_is_the_mean_of(
    loss: nn.SoftmaxCrossEntropy | nn.MeanSquaredError, targets: np.ndarray
) -> None:
    model = nn.Linear(4, 3, dtype="float64", seed=0)
    x = np.random.default_rng(0).standard_normal((7, 4))
    batches = [(x[:4], targets[:4]), (x[4:], targets[4:])]
    whole = loss(model(x), targets)
    assert train.evaluate(model, loss, batches) == pytest.approx(whole, rel=1e-12)


def test_a_checkpoint_holds_the_states_of_a_stack(tmp_path: Path) -> None:
    def make_one(seed: int) -> models.LanguageModel:
        parts = [rc.LSTM(4, 5, stateful=True, seed=seed), rc.GRU(5, 3, stateful=True, seed=seed)]
        return models.LanguageModel(6, rc.Stack(parts), dropout=0.3, seed=seed)

    first, second = make_one(0), make_one(5)
    text = np.random.default_rng(0).integers(0, 6, (7, 2))
    first.forward(text)
    train.save_checkpoint(tmp_path / "checkpoint", first)
    train.load_checkpoint(tmp_path / "checkpoint", second)
    np.testing.assert_array_equal(second.forward(text), first.forward(text))


@pytest.mark.parametrize(("options", "match"), [
    ({"accumulate": 0}, "accumulate"),
    ({"patience": 2}, "patience: expected validate"),
    ({"max_norm": 0.0}, "max_norm: expected more than 0, got 0.0"),
    ({"max_norm": float("nan")}, "max_norm: expected more than 0, got nan"),
    ({"patience": 0, "validate": len}, "patience"),
    ({"validate_every": -1}, "validate_every"),
])  # fmt: skip
def test_a_trainer_refuses_senseless_numbers(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(**options)


@pytest.mark.parametrize(("make", "told"), [
    (lambda: models.LanguageModel(5, rc.GRU(2, 3, seed=0), seed=0),
     r"got a tuple of 2 from LanguageModel; LanguageModel\.mean_loss\(indices\) does it"),
    (lambda: rc.GRU(5, 3, seed=0), "model: expected a call that returns a prediction alone, .*GRU"),
])  # fmt: skip
def test_evaluating_what_returns_more_than_a_prediction_is_an_error_that_says_so(
    make: Any, told: str
) -> None:
    model = make()
    shape = (4, 2, 5) if isinstance(model, rc.GRU) else (4, 2)
    x, targets = np.ones(shape, "f4" if len(shape) == 3 else int), np.zeros((4, 2), int)
    with pytest.raises(TypeError, match=told):
        train.evaluate(model, nn.SoftmaxCrossEntropy(), [(x, targets)])


@pytest.mark.parametrize("text", ["", "[", "null", "[1]", "[" * 5000, None])
@pytest.mark.parametrize("name", ["notes", "generators", "states"])
def test_a_checkpoint_whose_words_are_damaged_is_refused_before_anything_changes(
    name: str, text: str | None, tmp_path: Path
) -> None:
    saved, model = nn.Linear(2, 3, seed=0), nn.Linear(2, 3, seed=1)
    train.save_checkpoint(tmp_path / "file", saved)
    tensors, words = rc.io.load_tensors(tmp_path / "file")
    changed = {key: value for key, value in words.items() if key != name}
    rc.io.save_tensors(
        tmp_path / "file", tensors, changed if text is None else {**words, name: text}
    )
    before = model.state_dict()
    with pytest.raises(rc.FormatError, match=f"{name}: expected"):
        train.load_checkpoint(tmp_path / "file", model)
    assert all((model.params[key] == value).all() for key, value in before.items())
