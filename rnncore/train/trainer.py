"""The loop: forward, loss, backward, clip, step; with progress, validation and checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from rnncore import checks
from rnncore.checks import Array, size
from rnncore.train.batches import arguments
from rnncore.train.checkpoint import load_checkpoint, save_checkpoint, under
from rnncore.train.clipping import clip_grad_norm
from rnncore.train.evaluation import loss_options
from rnncore.train.history import History
from rnncore.train.interrupt import StopRequest
from rnncore.train.optimizers import Optimizer
from rnncore.train.progress import Progress
from rnncore.train.schedules import Schedule


@dataclass
class Trainer:
    """Train a model on batches until a fixed number of updates, stopping and going on exactly.

    The numbers depend on the arguments alone: not on threads, interruptions or the clock. What is
    given here is the caller's, at a resume too; what changes while training is in the checkpoint.

    Parameters
    ----------
    model : module or layer
        ``prediction = forward(inputs)`` and ``backward(dprediction)``.
    loss : loss
        ``value = forward(prediction, target)`` and ``dprediction = backward()``.
    optimizer : Optimizer
        Over the model.
    batches : iterator
        Gives ``(inputs, targets)``. Inputs that are a tuple are handed to ``forward`` one by one.
        Arrays in host memory are copied to the model's device, once a batch.
        A batch with an attribute ``lengths`` has it passed on by name; one with ``first``, as
        :class:`TextBatch`, resets the state of stateful layers where that is true; the ``mask`` of
        a :class:`PaddedBatch` keeps padding out of an elementwise loss. With an attribute
        ``position``, or ``state_dict`` and ``load_state_dict`` for JSON, the iterator can be
        resumed.
    schedule : callable, optional
        Learning rate by update, from 0. A :class:`Schedule` is shown every validation loss.
    max_norm : float, optional
        Bound of the gradient's norm.
    accumulate : int
        Batches whose mean gradient makes one update.
    validate : callable, optional
        Takes the model and returns its validation loss.
    validate_every : int
        Updates between validations; the last update always has one.
    patience : int, optional
        Validations in a row without a new lowest loss that end the training. With it, the model
        has the parameters of the lowest one when ``run`` is done.
    callbacks : sequence of callables
        Each is called with the trainer after every update and its validation; ``stop()`` there
        ends the run.
    checkpoint : path, optional
        Written every ``checkpoint_every`` updates, at the end, and at Ctrl-C.
    checkpoint_every : int
        Updates between checkpoints.
    notes : mapping, optional
        Facts for JSON that the checkpoint carries along.
    progress : bool
        Whether progress is shown on standard error.
    history : History
        What it has seen so far.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore import nn, train
    >>> model = nn.Linear(2, 2, seed=0)
    >>> batch = (np.eye(2, dtype="float32"), np.array([1, 0]))
    >>> loss, optimizer = nn.SoftmaxCrossEntropy(), train.SGD(model, lr=1.0)
    >>> trainer = train.Trainer(model, loss, optimizer, iter([batch] * 9), progress=False)
    >>> trainer.run(9)
    True
    >>> trainer.history.losses[-1] < trainer.history.losses[0] / 2
    True
    """

    model: Any
    loss: Any
    optimizer: Optimizer
    batches: Any
    schedule: Callable[[int], float] | None = None
    max_norm: float | None = None
    accumulate: int = 1
    validate: Callable[[Any], float] | None = None
    validate_every: int = 0
    patience: int | None = None
    callbacks: Sequence[Callable[[Trainer], Any]] = ()
    checkpoint: str | PathLike[str] | None = None
    checkpoint_every: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    progress: bool = True
    history: History = field(default_factory=History, repr=False)
    _best: dict[str, Array] | None = field(default=None, init=False, repr=False)
    _last: dict[str, Array] | None = field(default=None, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.accumulate = size("accumulate", self.accumulate)
        for name in ("validate_every", "checkpoint_every"):
            size(name, getattr(self, name), minimum=0)
        if self.max_norm is not None:
            self.max_norm = checks.bound("max_norm", self.max_norm)
        if self.patience is not None:
            size("patience", self.patience)
            if self.validate is None:
                raise ValueError("patience: expected validate beside it, got None")

    @property
    def updates(self) -> int:
        """Number of updates done."""
        return len(self.history.losses)

    @property
    def exhausted(self) -> bool:
        """Whether ``patience`` validations in a row have brought no new lowest loss."""
        return self.patience is not None and self.history.validations_since_best >= self.patience

    def stop(self) -> None:
        """Let the run end after this update, as if its last were reached; for callbacks."""
        self._stopped = True

    def step(self) -> float:
        """Do one update and return its loss.

        Raises
        ------
        FloatingPointError
            If the loss or the gradient's norm is not finite; the parameters are as they were
            before the update.
        """
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.updates)
        self.optimizer.zero_grad()
        value = sum(self._accumulate_gradient() for _ in range(self.accumulate)) / self.accumulate
        norm = clip_grad_norm(self.model, math.inf if self.max_norm is None else self.max_norm)
        self._check_finite("gradient norm", norm)
        self.optimizer.step()
        self.history.losses.append(value)
        self.history.norms.append(norm)
        return value

    def _accumulate_gradient(self) -> float:
        batch = next(self.batches)
        if getattr(batch, "first", False):
            self.model.reset_state()
        inputs, named = arguments(self.model, batch)
        prediction = self.model.forward(*inputs, **named)
        options = loss_options(self.loss, batch)
        value = float(self.loss.forward(prediction, batch[1], **options))
        self._check_finite("loss", value)
        dprediction = self.loss.backward()
        if self.accumulate > 1:
            dprediction *= dprediction.dtype.type(1 / self.accumulate)
        self.model.backward(dprediction)
        return value

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{what}: expected a finite number, got {value} at update {self.updates + 1}; "
                "a smaller learning rate or max_norm may help"
            )

    def run(self, updates: int, label: str = "training") -> bool:
        """Go on until ``updates`` updates are done in all, patience is spent, or Ctrl-C.

        A second Ctrl-C interrupts at once, and what the last checkpoint lacks is lost.

        Returns
        -------
        bool
            False if Ctrl-C ended it. The update under way was finished and, with ``checkpoint``,
            everything is in that file: ``load()`` and ``run`` go on to the same bits.
        """
        self._put_back_last()
        self._stopped = False
        with (
            StopRequest() as stop,
            Progress(updates, self.updates, label, self.progress) as progress,
        ):
            while not (self._done(updates) or stop.requested):
                self._update(updates, progress)
            self.save()
        done = self._done(updates)
        if done:
            self._restore_best()
        else:
            self._say_how_to_resume(updates)
        return done

    def _done(self, updates: int) -> bool:
        return self.updates >= updates or self.exhausted or self._stopped

    def _update(self, updates: int, progress: Progress) -> None:
        started = time.perf_counter()
        value = self.step()
        self._validate_if_due(updates)
        self.history.seconds += time.perf_counter() - started
        for callback in self.callbacks:
            callback(self)
        progress.advance(self._note(value))
        if self.checkpoint_every and self.updates % self.checkpoint_every == 0:
            self.save()

    def _validate_if_due(self, updates: int) -> None:
        due = self.validate_every and self.updates % self.validate_every == 0
        if self.validate is None or not (due or self.updates == updates):
            return
        value = float(self.validate(self.model))
        self.history.validation.append((self.updates, value))
        if isinstance(self.schedule, Schedule):
            self.schedule.observe(value)
        if self.patience is not None and self.history.validations_since_best == 0:
            self._best = self.model.state_dict()

    def _restore_best(self) -> None:
        """Give the model its best parameters; the last ones wait for a run that goes on."""
        if self._best is not None:
            self._last = self.model.state_dict()
            self.model.load_state_dict(self._best)

    def _put_back_last(self) -> None:
        if self._last is not None:
            self.model.load_state_dict(self._last)
            self._last = None

    def _note(self, value: float) -> str:
        note = f"loss {value:.3f}"
        if self.history.validation:
            note += f", validation {self.history.validation[-1][1]:.3f}"
        return note

    def _say_how_to_resume(self, updates: int) -> None:
        if not self.progress:
            return
        line = f"stopped after {self.updates} of {updates} updates; "
        if self.checkpoint is None:
            line += "run() goes on from here, and nothing is on disk without a checkpoint"
        else:
            line += f"load() and run({updates}) go on from {self.checkpoint}"
        sys.stderr.write(line + "\n")

    def save(self) -> None:
        """Write the checkpoint, if there is a path for it."""
        if self.checkpoint is None:
            return
        parts = {
            "optimizer": self.optimizer.state_dict(),
            "history": self.history.tensors(),
            "best": self._best or {},
        }
        tensors = {
            f"{part}.{name}": array
            for part, arrays in parts.items()
            for name, array in arrays.items()
        }
        notes = {
            "seconds": self.history.seconds,
            "lr": self.optimizer.lr,
            "batches": _place_of(self.batches),
            "schedule": self.schedule.state_dict() if isinstance(self.schedule, Schedule) else {},
            "user": dict(self.notes),
        }
        save_checkpoint(self.checkpoint, self.model, tensors, notes)

    def load(self, path: str | PathLike[str] | None = None) -> None:
        """Go on from a checkpoint of the same model, optimiser and batches.

        Parameters
        ----------
        path : path, optional
            ``checkpoint`` when absent.

        Raises
        ------
        FormatError
            If the file is damaged or no checkpoint.
        ValueError
            If the model, the optimiser or the schedule is another one.
        """
        source = self.checkpoint if path is None else path
        if source is None:
            raise ValueError("path: expected one, since the trainer has no checkpoint")
        tensors, notes = load_checkpoint(source, self.model)
        self.optimizer.load_state_dict(under("optimizer.", tensors))
        self.optimizer.lr = notes["lr"]
        if isinstance(self.schedule, Schedule):
            self.schedule.load_state_dict(notes["schedule"])
        if notes["batches"] is not None:
            _go_to(self.batches, notes["batches"])
        self.history = History.of_tensors(under("history.", tensors), notes["seconds"])
        self._best, self._last = under("best.", tensors) or None, None


def _place_of(batches: Any) -> Any:
    if hasattr(batches, "state_dict"):
        return batches.state_dict()
    return getattr(batches, "position", None)


def _go_to(batches: Any, place: Any) -> None:
    if hasattr(batches, "load_state_dict"):
        batches.load_state_dict(place)
    else:
        batches.position = place
