"""Batches that never end, and follow from nothing but their arguments and a position.

So a position is all that a checkpoint needs to go on in the middle of an epoch: what is random in
an epoch is drawn from the seed and the epoch's number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from rnncore import checks, devices
from rnncore.checks import flag, size

Indices = npt.NDArray[np.int64]
BatchT = TypeVar("BatchT")


def arguments(model: Any, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a model's forward takes of a batch, by place and by name, on its device.

    Integers of the host stay there, as targets and lengths do: modules check them and copy them.
    """
    inputs = batch[0] if isinstance(batch[0], tuple) else (batch[0],)
    device = devices.get(getattr(model, "device", "cpu"))
    if device is not devices.HOST:
        inputs = tuple(
            device.upload(given)
            if isinstance(given, np.ndarray) and given.dtype.kind == "f"
            else given
            for given in inputs
        )
    lengths = getattr(batch, "lengths", None)
    return inputs, {} if lengths is None else {"lengths": lengths}


class Batches(ABC, Generic[BatchT]):
    """Give batches one after another, epoch after epoch.

    A subclass says how many batches an epoch has and which one is where.

    Attributes
    ----------
    position : int
        Number of batches drawn so far; may be set.
    per_epoch : int
        Batches in an epoch.
    """

    per_epoch: int

    def __init__(self, batch: int, seed: int) -> None:
        self.batch = size("batch", batch)
        self.seed = checks.integer("seed", seed, minimum=0)
        self.position = 0

    def __iter__(self) -> Iterator[BatchT]:
        return self

    def __next__(self) -> BatchT:
        """Return the next batch."""
        batch = self[self.position]
        self.position += 1
        return batch

    def __getitem__(self, position: int) -> BatchT:
        """Return the batch at any position; ``position`` stays as it is."""
        if position < 0:
            raise IndexError(f"position: expected at least 0, got {position}")
        return self._batch(*divmod(position, self.per_epoch))

    def epoch(self, number: int = 0) -> Iterator[BatchT]:
        """Yield the batches of one epoch; ``position`` stays as it is."""
        for place in range(self.per_epoch):
            yield self._batch(number, place)

    @abstractmethod
    def _batch(self, epoch: int, place: int) -> BatchT:
        """Return one batch of an epoch."""


class ShuffledBatches(Batches[BatchT]):
    """Batches of examples in an order that is drawn anew for each epoch.

    A subclass says what a batch of some examples is, and may group them.
    """

    def __init__(
        self, examples: int, batch: int, seed: int, shuffle: bool, drop_last: bool
    ) -> None:
        super().__init__(batch, seed)
        self.shuffle, self.drop_last = flag("shuffle", shuffle), flag("drop_last", drop_last)
        self.examples = examples
        whole, rest = divmod(examples, self.batch)
        self.per_epoch = whole + (rest > 0 and not self.drop_last)
        if self.per_epoch == 0:
            raise ValueError(f"batch: expected at most {examples}, the examples, got {batch}")
        self._drawn: tuple[int, list[Indices]] = (-1, [])

    def _batch(self, epoch: int, place: int) -> BatchT:
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._order(np.random.default_rng((self.seed, epoch))))
        return self._make(self._drawn[1][place])

    def _order(self, draw: np.random.Generator) -> list[Indices]:
        """Return which examples each batch of an epoch has."""
        order = draw.permutation(self.examples) if self.shuffle else np.arange(self.examples)
        return self._cut(order)

    def _cut(self, order: Indices) -> list[Indices]:
        return [order[i * self.batch : (i + 1) * self.batch] for i in range(self.per_epoch)]

    @abstractmethod
    def _make(self, chosen: Indices) -> BatchT:
        """Return the batch of some examples."""


class TextBatch(NamedTuple):
    """One batch: ``targets[t]`` is what follows ``inputs[t]``."""

    inputs: Indices
    """``(T, N)``."""
    targets: Indices
    """``(T, N)``, the inputs one step later."""
    first: bool
    """Whether the state starts from zero here; otherwise it goes on from the batch before."""


class TextBatches(Batches[TextBatch]):
    """Cut a long sequence of indices into ``N`` tracks and walk along them ``T`` steps at a time.

    Each batch goes on where the one before ended, so that a stateful layer sees every track
    whole: truncated back-propagation through time. An epoch starts at an offset of its own below
    ``T``, drawn from the seed: the cuts fall elsewhere each time.

    Parameters
    ----------
    indices : array_like of int (length,)
        The sequence.
    batch : int
        ``N``, number of tracks.
    steps : int
        ``T``, steps in a batch.
    seed : int
        Of the offsets.
    offset : int, optional
        Where every epoch starts, instead of an offset of its own.

    Attributes
    ----------
    position : int
        Number of batches drawn so far; may be set.
    per_epoch : int
        Batches in one walk along the tracks.

    References
    ----------
    Williams and Peng, An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories, 1990.

    Examples
    --------
    >>> batches = TextBatches(range(13), batch=2, steps=3, seed=1)
    >>> inputs, targets, first = next(batches)
    >>> (targets == inputs + 1).all(), first, batches.per_epoch
    (np.True_, True, 1)
    """

    def __init__(
        self, indices: Any, batch: int, steps: int, seed: int = 0, *, offset: int | None = None
    ) -> None:
        super().__init__(batch, seed)
        self.steps = size("steps", steps)
        array = np.asarray(indices)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise TypeError(
                f"indices: expected integers (length,), got {array.dtype} {array.shape}"
            )
        track = (array.size - 1) // batch
        if track < steps:
            raise ValueError(
                f"indices: expected at least {batch * steps + 1} for {batch} tracks of {steps} "
                f"steps, got {array.size}"
            )
        self._inputs = array[: track * batch].reshape(batch, track)
        self._targets = array[1 : track * batch + 1].reshape(batch, track)
        self._slack = min(steps, track - steps + 1)
        self.offset = None if offset is None else size("offset", offset, minimum=0)
        if self.offset is not None and self.offset > track - steps:
            raise ValueError(f"offset: expected at most {track - steps}, got {offset}")
        latest = self._slack - 1 if self.offset is None else self.offset
        self.per_epoch = (track - latest) // steps

    def _batch(self, epoch: int, place: int) -> TextBatch:
        start = self.offset
        if start is None:
            start = int(np.random.default_rng((self.seed, epoch)).integers(self._slack))
        columns = slice(start + place * self.steps, start + (place + 1) * self.steps)
        return TextBatch(
            self._inputs[:, columns].T.astype(np.int64, order="C"),
            self._targets[:, columns].T.astype(np.int64, order="C"),
            place == 0,
        )
