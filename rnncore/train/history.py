"""What a training has seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rnncore.checks import Array


@dataclass
class History:
    """What a training has seen so far."""

    losses: list[float] = field(default_factory=list)
    """Loss of every update's batch, or the mean of its batches' losses."""
    norms: list[float] = field(default_factory=list)
    """Norm of every update's gradient before clipping."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """Updates done, and the validation loss there."""
    seconds: float = 0.0
    """Time spent in updates and validations."""

    @property
    def best(self) -> tuple[int, float] | None:
        """The first of the lowest validation losses, with its update; None before any."""
        return min(
            self.validation, key=lambda entry: (entry[1] != entry[1], entry[1]), default=None
        )

    @property
    def validations_since_best(self) -> int:
        """Number of validations after the lowest one."""
        best = self.best
        return 0 if best is None else len(self.validation) - 1 - self.validation.index(best)

    def tensors(self) -> dict[str, Array]:
        """Return everything but ``seconds`` as arrays, for a checkpoint."""
        validation = np.array(self.validation, dtype=np.float64).reshape(-1, 2)
        return {
            "losses": np.array(self.losses, dtype=np.float64),
            "norms": np.array(self.norms, dtype=np.float64),
            "validation": validation,
        }

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Array], seconds: float) -> History:
        """Return the history that :meth:`tensors` wrote."""
        validation = tensors["validation"].tolist()
        return cls(
            tensors["losses"].tolist(),
            tensors["norms"].tolist(),
            [(int(update), value) for update, value in validation],
            seconds,
        )
