"""A learning rate that falls when validation says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnncore.train.schedules import Schedule, at_least


@dataclass
class Plateau(Schedule):
    """Divide the learning rate whenever the validation loss has not become better.

    Zaremba et al. (2014) and many language models after them train so: a high rate for as long as
    it helps. The trainer shows it every validation.

    Parameters
    ----------
    rate : float
        Learning rate until the first division.
    divisor : float
        What the rate is divided by.
    patience : int
        Validations in a row that may fail to be better without a division.
    lowest : float
        The rate falls no further.
    best : float
        Lowest validation loss so far.
    waited : int
        Validations in a row that were not better.

    Examples
    --------
    >>> rate = Plateau(20.0, divisor=4.0)
    >>> for loss in (5.0, 4.5, 4.6, 4.4, 4.4):
    ...     rate.observe(loss)
    >>> rate(0)
    1.25
    """

    rate: float
    divisor: float = 4.0
    patience: int = 0
    lowest: float = 0.0
    best: float = math.inf
    waited: int = 0

    def __post_init__(self) -> None:
        at_least(0, rate=self.rate, patience=self.patience, lowest=self.lowest)
        if not self.divisor > 1:
            raise ValueError(f"divisor: expected more than 1, got {self.divisor}")

    def __call__(self, update: int) -> float:
        """Return the learning rate, whichever update it is."""
        return self.rate

    def observe(self, loss: float) -> None:
        """Take note of a validation loss; NaN is no better than any."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.rate, self.waited = max(self.lowest, self.rate / self.divisor), 0

    def state_dict(self) -> dict[str, Any]:
        """Return rate, lowest loss and patience spent."""
        return {"rate": self.rate, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.rate, self.best = float(state["rate"]), float(state["best"])
        self.waited = int(state["waited"])
