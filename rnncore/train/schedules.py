"""Learning rates as functions of the update, counted from 0.

They are plain data: compare, copy and pickle them, or write ``dataclasses.asdict`` of one to a
file. What one learns while it is used, as :class:`~rnncore.train.Plateau` does, is its
``state_dict``, which a :class:`~rnncore.train.Trainer` keeps in its checkpoints.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Schedule(ABC):
    """Say which learning rate each update has."""

    @abstractmethod
    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""

    def observe(self, loss: float) -> None:
        """Take note of a validation loss; most schedules have no use for it."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Return what was learnt so far, as JSON holds it: nothing, for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"state: expected {sorted(self.state_dict())} of {type(self).__name__}, "
                f"got {sorted(state)}"
            )


def at_least(low: float, **values: float) -> None:
    """Refuse what is below a bound, NaN too, by its name."""
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{name}: expected at least {low}, got {value}")


@dataclass(frozen=True)
class Constant(Schedule):
    """Stay at one learning rate.

    Parameters
    ----------
    rate : float
        The learning rate.
    """

    rate: float

    def __post_init__(self) -> None:
        at_least(0, rate=self.rate)

    def __call__(self, update: int) -> float:
        """Return the learning rate."""
        return self.rate


@dataclass(frozen=True)
class Step(Schedule):
    """Multiply the learning rate by a factor every so many updates.

    Parameters
    ----------
    rate : float
        Learning rate of the first updates.
    every : int
        Updates at one rate.
    factor : float
        What each rate is of the one before.
    first : int
        Updates before the first fall; ``every`` if 0. Zaremba et al. (2014) hold the rate for some
        epochs and then halve it after each.

    Examples
    --------
    >>> rate = Step(rate=1.0, every=10, factor=0.5, first=30)
    >>> rate(0), rate(29), rate(30), rate(40)
    (1.0, 1.0, 0.5, 0.25)
    """

    rate: float
    every: int
    factor: float = 0.1
    first: int = 0

    def __post_init__(self) -> None:
        at_least(0, rate=self.rate, factor=self.factor, first=self.first)
        at_least(1, every=self.every)

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        falls = (update - (self.first or self.every)) // self.every + 1
        return self.rate * self.factor ** max(0, falls)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Multiply the learning rate by a factor at every update.

    Parameters
    ----------
    rate : float
        Learning rate of the first update.
    factor : float
        What each rate is of the one before.
    """

    rate: float
    factor: float

    def __post_init__(self) -> None:
        at_least(0, rate=self.rate, factor=self.factor)

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        return self.rate * self.factor**update


@dataclass(frozen=True)
class Cosine(Schedule):
    """Fall along half a cosine.

    Parameters
    ----------
    rate : float
        Learning rate of the first update.
    updates : int
        Length of the fall.
    final : float
        Learning rate that it ends in, and stays at.

    References
    ----------
    Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2017.
    """

    rate: float
    updates: int
    final: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, rate=self.rate, final=self.final)
        at_least(1, updates=self.updates)

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        return _half_cosine(self.rate, self.final, min(1.0, update / self.updates))


@dataclass(frozen=True)
class Warmup(Schedule):
    """Rise in a line to where another schedule begins, and follow that from there.

    Parameters
    ----------
    updates : int
        Updates of the rise.
    then : Schedule
        What follows; its updates count from the end of the rise.

    Examples
    --------
    >>> rate = Warmup(4, Exponential(2.0, factor=0.5))
    >>> [rate(update) for update in range(7)]
    [0.5, 1.0, 1.5, 2.0, 2.0, 1.0, 0.5]
    """

    updates: int
    then: Schedule

    def __post_init__(self) -> None:
        at_least(0, updates=self.updates)

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        if update < self.updates:
            return self.then(0) * (update + 1) / self.updates
        return self.then(update - self.updates)

    def observe(self, loss: float) -> None:
        """Hand a validation loss on."""
        self.then.observe(loss)

    def state_dict(self) -> dict[str, Any]:
        """Return what the schedule that follows has learnt."""
        return self.then.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.then.load_state_dict(state)


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Rise in a line to the peak, then fall along half a cosine.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    updates : int
        Length of the whole training.
    warmup : int
        Updates until the peak.
    final : float
        Learning rate that the cosine ends in.

    Examples
    --------
    >>> rate = WarmupCosine(peak=1.0, updates=110, warmup=10)
    >>> rate(0), rate(9), rate(60), round(rate(109), 4)
    (0.1, 1.0, 0.5, 0.0002)
    """

    peak: float
    updates: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, peak=self.peak, updates=self.updates, warmup=self.warmup, final=self.final)

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        falling = Cosine(self.peak, max(1, self.updates - self.warmup), self.final)
        return Warmup(self.warmup, falling)(update)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Rise along half a cosine to the peak, then fall along another far below the start.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    updates : int
        Length of the whole training.
    rising : float
        Share of the updates that rise.
    start_divisor : float
        The first rate is the peak over this.
    final_divisor : float
        The last rate is the first one over this.

    References
    ----------
    Smith and Topin, Super-convergence, 2019; the numbers are those of
    ``torch.optim.lr_scheduler.OneCycleLR``.

    Examples
    --------
    >>> rate = OneCycle(peak=1.0, updates=100, rising=0.3)
    >>> round(rate(0), 9), rate(29), round(rate(99), 9)
    (0.04, 1.0, 4e-06)
    """

    peak: float
    updates: int
    rising: float = 0.3
    start_divisor: float = 25.0
    final_divisor: float = 1e4

    def __post_init__(self) -> None:
        at_least(0, peak=self.peak)
        at_least(2, updates=self.updates)
        if not 0 < self.rising < 1 or not self.rising * self.updates > 1:
            raise ValueError(
                f"rising: expected a share of the {self.updates} updates that is more than one "
                f"of them, got {self.rising}"
            )

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        start = self.peak / self.start_divisor
        turn, last = self.rising * self.updates - 1, self.updates - 1
        if update <= turn:
            return _half_cosine(start, self.peak, update / turn)
        share = min(1.0, (update - turn) / (last - turn))
        return _half_cosine(self.peak, start / self.final_divisor, share)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * share))
