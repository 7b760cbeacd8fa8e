"""Batches of sequences of different lengths, padded as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnncore.checks import Array, size
from rnncore.train.batches import Indices, ShuffledBatches


class PaddedBatch(NamedTuple):
    """One batch of sequences; of pairs of sequences if ``inputs`` is a pair."""

    inputs: Any
    """``(T, N)`` or ``(T, N, D)``; of pairs, sources ``(S, N)`` and what the decoder reads."""
    targets: Array
    """``(N,)`` for a target a sequence, ``(T, N)`` for one a step, negative past its end."""
    lengths: Indices
    """``(N,)``, of the inputs; of the sources."""

    @property
    def mask(self) -> Array | None:
        """Which targets ``(T, N)`` are not padding; None where a row has one, and for pairs."""
        if isinstance(self.inputs, tuple) or self.targets.ndim < 2:
            return None
        alive: Array = np.arange(len(self.targets))[:, None] < self.lengths
        return alive


def padded(rows: Sequence[Array], fill: float) -> Array:
    """Stand sequences ``(t, ...)`` side by side: ``(T, N, ...)``, `fill` past each one's end.

    Examples
    --------
    >>> padded([np.array([1, 2]), np.array([3])], -1)
    array([[ 1,  3],
           [ 2, -1]])
    """
    longest = max((len(row) for row in rows), default=0)
    first = rows[0]
    out = np.full((longest, len(rows), *first.shape[1:]), fill, dtype=first.dtype)
    for n, row in enumerate(rows):
        out[: len(row), n] = row
    return out


def reversed_within(x: Array, lengths: Any) -> Array:
    """Turn each row of ``x (T, N, ...)`` around within its length; what follows stays.

    Sources are read backwards so (Sutskever, Vinyals and Le, 2014).

    Examples
    --------
    >>> reversed_within(np.array([[1, 4], [2, 5], [3, 0]]), [3, 2]).tolist()
    [[3, 5], [2, 4], [1, 0]]
    """
    times = np.arange(len(x))[:, None]
    ends = np.asarray(lengths, dtype=np.int64)
    places = np.where(times < ends, ends - 1 - times, times)
    turned: Array = x[places, np.arange(x.shape[1])]
    return turned


class PaddedBatches(ShuffledBatches[PaddedBatch]):
    """Batch sequences with others of about their length, padded to the longest of the batch.

    An epoch's order is drawn from the seed and the epoch; each `bucket` batches' worth of it is
    sorted by length, cut, and the batches are shuffled again.

    Parameters
    ----------
    inputs : sequence of arrays (t,) or (t, D)
        Indices or vectors, of one dtype.
    targets : sequence
        A number for each sequence, or an array of one for each of its steps.
    batch : int
        ``N``.
    seed : int
        Of the order.
    shuffle : bool
        Without, batches come in the order given, and in every epoch alike.
    bucket : int
        Batches that are sorted by length together; 1 leaves lengths as they fall.
    drop_last : bool
        Whether examples left over at an epoch's end are left out of it, instead of making a
        smaller batch.
    padding, target_padding : float
        What stands past a sequence's end. A negative target does not count in
        :class:`~rnncore.nn.SoftmaxCrossEntropy`; of the other losses a batch's ``mask`` keeps it
        away, which :class:`Trainer` and :func:`evaluate` hand on.

    Attributes
    ----------
    position : int
        Number of batches drawn so far; may be set.
    per_epoch : int
        Batches in an epoch.

    Examples
    --------
    >>> batches = PaddedBatches([[1, 2, 3], [4], [5, 6]], [0, 1, 0], batch=2, shuffle=False)
    >>> inputs, targets, lengths = next(batches)
    >>> inputs.tolist(), targets.tolist(), lengths.tolist()
    ([[1, 4], [2, 0], [3, 0]], [0, 1], [3, 1])
    """

    def __init__(
        self,
        inputs: Sequence[Any],
        targets: Sequence[Any],
        batch: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        bucket: int = 32,
        drop_last: bool = False,
        padding: float = 0,
        target_padding: float = -1,
    ) -> None:
        self._inputs, self._targets = _rows("inputs", inputs), _rows("targets", targets)
        if len(self._inputs) != len(self._targets):
            raise ValueError(
                f"targets: expected {len(self._inputs)}, one for each input, "
                f"got {len(self._targets)}"
            )
        super().__init__(len(self._inputs), batch, seed, shuffle, drop_last)
        self.bucket = size("bucket", bucket)
        self.padding, self.target_padding = padding, target_padding
        self._lengths = np.array([len(row) for row in self._inputs], dtype=np.int64)
        self._check_steps()

    def _check_steps(self) -> None:
        for n, (row, target) in enumerate(zip(self._inputs, self._targets, strict=True)):
            if target.ndim and len(target) != len(row):
                raise ValueError(
                    f"targets[{n}]: expected one for each of {len(row)} steps, got {len(target)}"
                )

    def _order(self, draw: np.random.Generator) -> list[Indices]:
        if not self.shuffle:
            return super()._order(draw)
        order, pool = draw.permutation(self.examples), self.batch * self.bucket
        order = order[: self.per_epoch * self.batch]  # all of it unless the last is dropped
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            order[start : start + pool] = part[np.argsort(self._lengths[part], kind="stable")]
        batches = self._cut(order)
        return [batches[i] for i in draw.permutation(self.per_epoch)]

    def _make(self, chosen: Indices) -> PaddedBatch:
        return PaddedBatch(
            padded([self._inputs[i] for i in chosen], self.padding),
            self._target_rows([self._targets[i] for i in chosen]),
            self._lengths[chosen],
        )

    def _target_rows(self, rows: list[Array]) -> Array:
        return padded(rows, self.target_padding) if rows[0].ndim else np.array(rows)


class PairBatches(PaddedBatches):
    """Batch pairs of sequences of different lengths, for an encoder and a decoder.

    A batch's ``inputs`` is the pair of the sources and of what the decoder reads, the target from
    `start` on; its ``targets`` are what follows, up to and with `end`.

    Parameters
    ----------
    sources, targets : sequence of arrays of int (t,)
        Indices.
    batch : int
        ``N``.
    start, end : int
        Indices that begin and end a target.
    seed : int
        Of the order.
    reverse : bool
        Whether sources are turned around (Sutskever, Vinyals and Le, 2014).
    **options : bool, int, float
        ``shuffle``, ``bucket``, ``drop_last`` and ``padding``, as :class:`PaddedBatches` has them.

    Examples
    --------
    >>> batches = PairBatches([[5, 6]], [[7, 8]], batch=1, start=0, end=1, reverse=True)
    >>> (source, read), targets, lengths = next(batches)
    >>> source.T.tolist(), read.T.tolist(), targets.T.tolist()
    ([[6, 5]], [[0, 7, 8]], [[7, 8, 1]])
    """

    def __init__(
        self,
        sources: Sequence[Any],
        targets: Sequence[Any],
        batch: int,
        start: int,
        end: int,
        seed: int = 0,
        *,
        reverse: bool = False,
        **options: Any,
    ) -> None:
        self.start = size("start", start, minimum=0)
        self.end = size("end", end, minimum=0)
        turned = [np.asarray(row)[::-1] for row in sources] if reverse else sources
        super().__init__(turned, targets, batch, seed, **options)

    def _check_steps(self) -> None:
        for n, target in enumerate(self._targets):
            if target.ndim != 1:
                raise ValueError(f"targets[{n}]: expected indices (t,), got {target.shape}")

    def _make(self, chosen: Indices) -> PaddedBatch:
        sources, targets, lengths = super()._make(chosen)
        return PaddedBatch((sources, np.maximum(targets[:-1], 0)), targets[1:], lengths)

    def _target_rows(self, rows: list[Array]) -> Array:
        return padded([np.array([self.start, *row, self.end]) for row in rows], -1)


def _rows(name: str, rows: Sequence[Any]) -> list[Array]:
    taken = [np.asarray(row) for row in rows]
    shapes = {(row.ndim, row.shape[1:], row.dtype) for row in taken if row.size}
    if len(shapes) != 1:
        raise ValueError(f"{name}: expected rows of one dtype and width, got {len(shapes)} kinds")
    ndim, _, dtype = shapes.pop()
    return [row.astype(dtype) if row.size == 0 and ndim == 1 else row for row in taken]
