"""The loop: forward, loss, backward, clip, step; with progress, validation and checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from rnncore.checks import Array
from rnncore.train.checkpoint import load_checkpoint, save_checkpoint
from rnncore.train.clipping import clip_grad_norm
from rnncore.train.interrupt import StopRequest
from rnncore.train.optimizers import Optimizer
from rnncore.train.progress import Progress


@dataclass
class History:
    """What a training has seen so far."""

    losses: list[float] = field(default_factory=list)
    """Loss of every update's batch."""
    norms: list[float] = field(default_factory=list)
    """Norm of every update's gradient before clipping."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """Updates done, and the validation loss there."""
    seconds: float = 0.0
    """Time spent in updates and validations."""


@dataclass
class Trainer:
    """Train a model on batches until a fixed number of updates, stopping and going on exactly.

    The numbers depend on the arguments alone: not on threads, interruptions or the clock.

    Parameters
    ----------
    model : module or layer
        ``prediction = forward(inputs)`` and ``backward(dprediction)``.
    loss : loss
        ``value = forward(prediction, target)`` and ``dprediction = backward()``.
    optimizer : Optimizer
        Over the model.
    batches : iterator
        Gives ``(inputs, targets)``, or :class:`TextBatch` whose ``first`` resets the state of
        stateful layers. With an attribute ``position`` it can be resumed.
    schedule : callable, optional
        Learning rate by update, from 0.
    max_norm : float, optional
        Bound of the gradient's norm.
    validate : callable, optional
        Takes the model and returns its validation loss.
    validate_every : int
        Updates between validations; the last update always has one.
    checkpoint : path, optional
        Written every ``checkpoint_every`` updates, at the end, and at Ctrl-C.
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
    validate: Callable[[Any], float] | None = None
    validate_every: int = 0
    checkpoint: str | PathLike[str] | None = None
    checkpoint_every: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    progress: bool = True
    history: History = field(default_factory=History, repr=False)

    @property
    def updates(self) -> int:
        """Number of updates done."""
        return len(self.history.losses)

    def step(self) -> float:
        """Do one update and return its loss.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; the parameters are as they were before the update.
        """
        batch = next(self.batches)
        if getattr(batch, "first", False):
            self.model.reset_state()
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(self.updates)
        value = float(self.loss.forward(self.model.forward(batch[0]), batch[1]))
        if not math.isfinite(value):
            raise FloatingPointError(
                f"loss: expected a finite number, got {value} at update {self.updates + 1}; "
                "a smaller learning rate or max_norm may help"
            )
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        norm = clip_grad_norm(self.model, self.max_norm or math.inf)
        self.optimizer.step()
        self.history.losses.append(value)
        self.history.norms.append(norm)
        return value

    def run(self, updates: int, label: str = "training") -> bool:
        """Go on until ``updates`` updates are done in all, or until Ctrl-C.

        Returns
        -------
        bool
            False if Ctrl-C ended it. The update under way was finished and, with ``checkpoint``,
            everything is in that file.
        """
        with (
            StopRequest() as stop,
            Progress(updates, self.updates, label, self.progress) as progress,
        ):
            while self.updates < updates and not stop.requested:
                started = time.perf_counter()
                value = self.step()
                self._validate_if_due(updates)
                self.history.seconds += time.perf_counter() - started
                progress.advance(self._note(value))
                if self.checkpoint_every and self.updates % self.checkpoint_every == 0:
                    self.save()
            self.save()
        return self.updates >= updates

    def _validate_if_due(self, updates: int) -> None:
        due = self.validate_every and self.updates % self.validate_every == 0
        if self.validate is not None and (due or self.updates == updates):
            self.history.validation.append((self.updates, float(self.validate(self.model))))

    def _note(self, value: float) -> str:
        note = f"loss {value:.3f}"
        if self.history.validation:
            note += f", validation {self.history.validation[-1][1]:.3f}"
        return note

    def save(self) -> None:
        """Write the checkpoint, if there is a path for it."""
        if self.checkpoint is None:
            return
        history = self.history
        tensors: dict[str, Array] = {
            f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()
        }
        tensors["history.losses"] = np.array(history.losses, dtype=np.float64)
        tensors["history.norms"] = np.array(history.norms, dtype=np.float64)
        tensors["history.validation"] = np.array(history.validation, dtype=np.float64).reshape(
            -1, 2
        )
        notes = {
            "seconds": history.seconds,
            "position": getattr(self.batches, "position", None),
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
            If the model or the optimiser is another one.
        """
        source = self.checkpoint if path is None else path
        if source is None:
            raise ValueError("path: expected one, since the trainer has no checkpoint")
        tensors, notes = load_checkpoint(source, self.model)
        memory = {
            name.removeprefix("optimizer."): value
            for name, value in tensors.items()
            if name.startswith("optimizer.")
        }
        self.optimizer.load_state_dict(memory)
        if notes["position"] is not None:
            self.batches.position = notes["position"]
        self.history = History(
            tensors["history.losses"].tolist(),
            tensors["history.norms"].tolist(),
            [(int(update), value) for update, value in tensors["history.validation"].tolist()],
            notes["seconds"],
        )
