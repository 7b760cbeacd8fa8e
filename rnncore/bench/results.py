"""What a run finds: rows of contenders, and the file that holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnncore.bench.aims import PLAIN, Aims
from rnncore.bench.limits import Limit
from rnncore.bench.measure import Times
from rnncore.bench.peak_memory import Memory
from rnncore.bench.peers.ours import NAME

FORMAT = 1
CAP = 10.0
"""What one row counts at most in a geometric mean."""


@dataclass(frozen=True)
class Contender:
    """One contender of a row.

    Parameters
    ----------
    name : str
        What tables call it.
    peer : bool
        False for the engine in any form.
    times : Times, optional
        Absent where it did not run.
    note : str
        Under what condition it ran.
    problem : str
        Why it did not run, or what was wrong with its results.
    """

    name: str
    peer: bool
    times: Times | None
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One case in one mode.

    Parameters
    ----------
    case, mode, dtype : str
        What was run.
    operations : float
        Operations of its matrix products.
    limit : Limit, optional
        What the machine allows; None where that is not the question.
    tape_bytes : int, optional
        What the engine's training step keeps for backward.
    live_share : float
        Steps of all rows together as a share of N*T.
    contenders : tuple of Contender
        The engine first.
    aims : Aims, optional
        What the engine is to reach with an option.
    memory : Memory, optional
        What the step needs plain and with ``recompute``.
    """

    case: str
    mode: str
    dtype: str
    operations: float
    limit: Limit | None
    tape_bytes: int | None
    live_share: float
    contenders: tuple[Contender, ...]
    aims: Aims | None = None
    memory: Memory | None = None

    @property
    def ours(self) -> Times | None:
        """The engine's times."""
        return self.of(NAME)

    def of(self, name: str) -> Times | None:
        """Return the times of a contender, None if it has none."""
        return next((one.times for one in self.contenders if one.name == name), None)

    @property
    def best(self) -> Contender | None:
        """The fastest peer."""
        timed = [one for one in self.contenders if one.peer and one.times is not None]
        return min(timed, key=lambda one: _median(one.times), default=None)

    @property
    def times_as_fast(self) -> float | None:
        """The best peer's time over the engine's: below 1 the engine is behind."""
        best = self.best
        return (
            None if best is None or self.ours is None else _median(best.times) / _median(self.ours)
        )

    @property
    def rate(self) -> float | None:
        """The engine's operations a second."""
        return None if self.ours is None else self.operations / self.ours.median_s

    @property
    def share(self) -> float | None:
        """That rate as a share of the limit."""
        return None if self.rate is None or self.limit is None else self.rate / self.limit.rate

    def compared(self) -> dict[str, float]:
        """Return how the engine compares with itself in other circumstances of the row."""
        found = {}
        for one in self.contenders:
            if one.peer or one.name == NAME or one.times is None or self.ours is None:
                continue
            ratio = self.ours.median_s / one.times.median_s
            found[one.name] = ratio / self.live_share
        return found

    @property
    def factor(self) -> float | None:
        """The engine's time as a multiple of the plain layer's."""
        return self.compared().get(PLAIN)

    @property
    def reached(self) -> dict[str, float]:
        """What was reached of each aim: below 1 it is missed."""
        if self.aims is None:
            return {}
        return self.aims.reached(self.factor, self.times_as_fast, self.memory)

    @property
    def missed(self) -> list[str]:
        """The aims that were missed."""
        return [name for name, share in self.reached.items() if share < 1]

    def as_json(self) -> dict[str, Any]:
        """Return the row with what follows from it."""
        row = {**asdict(self), "times_as_fast": self.times_as_fast}
        row["best_peer"] = None if self.best is None else self.best.name
        row["gflops"] = None if self.rate is None else self.rate / 1e9
        row["share_of_limit"] = self.share
        row["relative"] = self.compared()
        if self.aims is not None:
            row["missed"] = self.missed
        if self.memory is not None:
            row["memory"] |= {"saved": self.memory.saved}
        if self.limit is not None:
            row["limit"] |= {"rate": self.limit.rate, "bound": self.limit.bound}
        row["contenders"] = {
            one.name: {
                key: value
                for key, value in asdict(one).items()
                if key != "name" and (value or key in ("times", "peer"))
            }
            for one in self.contenders
        }
        return row


def behind_first(rows: Iterable[Row]) -> list[Row]:
    """Return rows by how far the engine is ahead, or beyond its aims; where it failed first."""

    def place(row: Row) -> float:
        if row.ours is None:
            return -1.0
        if row.reached:
            return min(row.reached.values())
        return math.inf if row.times_as_fast is None else row.times_as_fast

    return sorted(rows, key=place)


def geometric_mean(rows: Iterable[Row]) -> float | None:
    """Return the mean of times as fast, each capped at ``CAP``; None if no row has a peer."""
    ratios = [row.times_as_fast for row in rows]
    logs = [math.log(min(ratio, CAP)) for ratio in ratios if ratio is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def write(path: Path, rows: list[Row], conditions: dict[str, Any], finished: bool) -> None:
    """Write a result file."""
    modes = dict.fromkeys(row.mode for row in rows)
    means = {mode: geometric_mean(row for row in rows if row.mode == mode) for mode in modes}
    result = {
        "format": FORMAT,
        "conditions": conditions,
        "finished": finished,
        "geometric_means": means,
        "rows": [row.as_json() for row in behind_first(rows)],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def _median(times: Times | None) -> float:
    assert times is not None
    return times.median_s
