"""Batches for truncated back-propagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class TextBatch(NamedTuple):
    """One batch: ``targets[t]`` is what follows ``inputs[t]``."""

    inputs: Indices
    """``(T, N)``."""
    targets: Indices
    """``(T, N)``, the inputs one step later."""
    first: bool
    """Whether the state starts from zero here; otherwise it goes on from the batch before."""


class TextBatches:
    """Cut a long sequence of indices into ``N`` tracks and walk along them ``T`` steps at a time.

    Each batch goes on where the one before ended, so that a stateful layer sees every track
    whole. An epoch starts at an offset of its own below ``T``, drawn from the seed: the cuts fall
    elsewhere each time. The sequence of batches never ends, and depends on nothing but the
    arguments and ``position``.

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

    Attributes
    ----------
    position : int
        Number of batches drawn so far; may be set.
    per_epoch : int
        Batches in one walk along the tracks.

    Examples
    --------
    >>> batches = TextBatches(range(13), batch=2, steps=3, seed=1)
    >>> inputs, targets, first = next(batches)
    >>> (targets == inputs + 1).all(), first, batches.per_epoch
    (np.True_, True, 1)
    """

    def __init__(self, indices: Any, batch: int, steps: int, seed: int = 0) -> None:
        if batch < 1 or steps < 1:
            raise ValueError(f"batch, steps: expected at least 1, got {batch}, {steps}")
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
        self.batch, self.steps, self.seed = batch, steps, seed
        self._slack = min(steps, track - steps + 1)
        self.per_epoch = (track - self._slack + 1) // steps
        self.position = 0

    def __iter__(self) -> Iterator[TextBatch]:
        return self

    def __next__(self) -> TextBatch:
        """Return the next batch."""
        batch = self[self.position]
        self.position += 1
        return batch

    def __getitem__(self, position: int) -> TextBatch:
        """Return the batch at any position; ``position`` stays as it is."""
        if position < 0:
            raise IndexError(f"position: expected at least 0, got {position}")
        epoch, place = divmod(position, self.per_epoch)
        offset = int(np.random.default_rng((self.seed, epoch)).integers(self._slack))
        columns = slice(offset + place * self.steps, offset + (place + 1) * self.steps)
        return TextBatch(
            self._inputs[:, columns].T.astype(np.int64, order="C"),
            self._targets[:, columns].T.astype(np.int64, order="C"),
            place == 0,
        )
