"""Learning rates as functions of the update."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupCosine:
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

    def __call__(self, update: int) -> float:
        """Return the learning rate of one update, counted from 0."""
        if update < self.warmup:
            return self.peak * (update + 1) / self.warmup
        share = min(1.0, (update - self.warmup) / max(1, self.updates - self.warmup))
        return self.final + (self.peak - self.final) * (0.5 + 0.5 * math.cos(math.pi * share))
