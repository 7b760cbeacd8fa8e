"""Timing: everything that is compared runs interleaved, and medians are what is reported."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rnncore.bench.peers.interface import Work

PAUSE = 0.005
QUIET = 0.1
"""Share of a pause that other threads may still work in for it to be the last."""
MOST_PAUSES = 60
WARM = 0.02
"""Untimed runs before each timed one take at least this long."""
SHORT = 1.0
"""A run that takes longer needs none: waking threads would be 1 % of it at most."""
TINY, SAMPLE = 50e-6, 200e-6
"""Runs shorter than the first are timed in loops about as long as the second."""
LEAST, FEW = 5, 3
"""Repeats of everyone, and the most of who cannot do as many in time."""


@dataclass(frozen=True)
class Times:
    """What repeats come to; the spread is that of the middle half, as a share of the median."""

    median_s: float
    spread: float
    least_s: float
    repeats: int
    runs_a_repeat: int


class Turns:
    """One contender's repeats.

    Before each, the threads of whoever ran before must have fallen asleep: those of ONNX Runtime
    and of NumPy's BLAS spin for tens of milliseconds, and would take a CPU from whoever comes next.
    Untimed runs then wake its own: the system puts a thread that has slept beside the one that woke
    it, and takes up to ten milliseconds to move it to a CPU of its own. So what is timed is work in
    a row, not the first run after a rest.
    """

    def __init__(self, work: Work, seconds: float) -> None:
        self._work = work
        self._seconds: list[float] = []
        self._runs = 1
        estimate = self._once()
        if estimate < TINY and work.clock is None:
            self._runs = math.ceil(SAMPLE / max(estimate, SAMPLE / 1000))
        self._short = estimate < SHORT and work.clock is None
        affordable = int(seconds / max(estimate, TINY))
        self._most = affordable if affordable >= LEAST else max(1, min(FEW, affordable))

    def wants(self, late: bool) -> bool:
        """Return whether there is another repeat to do; when it is late, only the least."""
        return len(self._seconds) < (min(LEAST, self._most) if late else self._most)

    def take(self) -> None:
        """Do one repeat."""
        wait_for_quiet()
        warm = time.perf_counter() + WARM
        while self._short and time.perf_counter() < warm:
            self._work.run()
        self._seconds.append(self._once())

    def times(self) -> Times:
        """Return what they come to."""
        seconds = self._seconds
        quarters = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
        median = statistics.median(seconds)
        spread = (quarters[2] - quarters[0]) / median
        return Times(median, spread, min(seconds), len(seconds), self._runs)

    def _once(self) -> float:
        if self._work.clock is not None:
            return self._work.clock()
        run, runs = self._work.run, range(self._runs)
        start = time.perf_counter()
        for _ in runs:
            run()
        return (time.perf_counter() - start) / self._runs


def wait_for_quiet() -> None:
    """Pause until no other thread of this process works, or for 0.3 s."""
    for _ in range(MOST_PAUSES):
        worked = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - worked < QUIET * PAUSE:
            return


def interleaved(works: Mapping[str, Work], seconds: float) -> dict[str, Times]:
    """Time each work again and again in turn, for about `seconds` in all.

    Everyone gets at least five repeats, but who cannot do five in `seconds` alone gets one to
    three.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        turns = {name: Turns(work, seconds) for name, work in works.items()}
        end = time.perf_counter() + seconds
        while any(turn.wants(time.perf_counter() >= end) for turn in turns.values()):
            for turn in turns.values():
                if turn.wants(time.perf_counter() >= end):
                    turn.take()
        return {name: turn.times() for name, turn in turns.items()}
    finally:
        if collecting:
            gc.enable()
