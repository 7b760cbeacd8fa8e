"""What an option is to reach beside the plain layer, and how far it gets."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore.bench.peak_memory import Memory
from rnncore.bench.peers.ours import NAME

PLAIN = f"{NAME}, plain"
TIMES_AS_FAST = 5.0
SAVED = 0.6


@dataclass(frozen=True)
class Aims:
    """The aims of a row.

    Parameters
    ----------
    factor : float
        Times the plain layer's time that the option may take.
    times_as_fast : float
        The least that a peer's time is of ours.
    saved : float
        The least share of the plain step's peak memory that is saved, where that is asked.
    """

    factor: float
    times_as_fast: float = TIMES_AS_FAST
    saved: float = SAVED

    def reached(
        self, factor: float | None, times_as_fast: float | None, memory: Memory | None
    ) -> dict[str, float]:
        """Return for each aim that was measured what was reached as a share of it."""
        found = {}
        if factor is not None:
            found["time"] = self.factor / factor
        if times_as_fast is not None:
            found["peer"] = times_as_fast / self.times_as_fast
        if memory is not None:
            found["memory"] = memory.saved / self.saved
        return found
