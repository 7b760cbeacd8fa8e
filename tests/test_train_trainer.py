"""The trainer: it learns, and stops and goes on to the same bits."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore import nn, train
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
