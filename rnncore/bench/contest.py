"""One row: prepare everyone, check what they compute, time them in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rnncore.bench.aims import Aims
from rnncore.bench.limits import Looks
from rnncore.bench.measure import Times, interleaved
from rnncore.bench.peak_memory import Memory
from rnncore.bench.peers.interface import Arrays, Refused, Work
from rnncore.bench.results import Contender, Row

AGREEMENT = {
    "float32": 1e-3, "float64": 1e-9, "float16": 0.03, "bfloat16": 0.1, "int8": 0.2,
}  # fmt: skip
"""Largest difference allowed between two who compute the same, as a share of the largest entry:
far above what orders of summation do, far below what another computation would."""


@dataclass(frozen=True)
class Entry:
    """A contender before the contest."""

    name: str
    peer: bool
    prepare: Callable[[], Work]


@dataclass(frozen=True)
class Contest:
    """What one row asks.

    Parameters
    ----------
    case, mode, dtype : str
        Its names in tables.
    operations : float
        Operations of one run's matrix products.
    weight_bytes : int
        Memory that is read to limit it.
    intensity : float, optional
        Operations a byte of that; None where there is no limit to compare with.
    expected : dict of str to ndarray
        What everyone must compute.
    entries : list of Entry
        The engine first.
    live_share : float
        Steps of all rows together as a share of N*T.
    aims : Aims, optional
        What the engine is to reach beside itself.
    memory : callable, optional
        Measures what a step needs.
    """

    case: str
    mode: str
    dtype: str
    operations: float
    weight_bytes: int
    intensity: float | None
    expected: Arrays
    entries: list[Entry]
    live_share: float = 1.0
    aims: Aims | None = None
    memory: Callable[[], Memory | None] | None = None


def hold(contest: Contest, threads: int, seconds: float) -> Row:
    """Measure one row in about `seconds`, without what preparing takes."""
    looks = None
    if contest.intensity is not None:
        looks = Looks(contest.weight_bytes, contest.dtype, threads)
    memory = None if contest.memory is None else contest.memory()
    works: dict[str, Work] = {}
    problems: dict[str, str] = {}
    for entry in contest.entries:
        work = _prepared(entry, contest)
        if isinstance(work, Work):
            works[entry.name] = work
        else:
            problems[entry.name] = work
    if looks:
        looks.look()
    times: dict[str, Times] = interleaved(works, seconds) if works else {}
    if looks:
        looks.look()
    tapes = [work.tape_bytes for work in works.values() if work.tape_bytes is not None]
    return Row(
        contest.case,
        contest.mode,
        contest.dtype,
        contest.operations,
        looks.limit(contest.intensity) if looks and contest.intensity is not None else None,
        tapes[0] if tapes else None,
        contest.live_share,
        tuple(
            Contender(
                entry.name,
                entry.peer,
                times.get(entry.name),
                works[entry.name].note if entry.name in works else "",
                problems.get(entry.name, ""),
            )
            for entry in contest.entries
        ),
        contest.aims,
        memory,
    )


def _prepared(entry: Entry, contest: Contest) -> Work | str:
    """Return a contender's work once its results are right, or the words for its row."""
    try:
        work = entry.prepare()
        wrong = disagreement(work.check(), contest.expected, AGREEMENT[contest.dtype])
    except (Refused, NotImplementedError) as refusal:
        return f"not run: {refusal}"
    except Exception as error:  # a peer's own failure is a fact about the row, not about the run
        first_line = str(error).partition("\n")[0]
        return f"failed: {type(error).__name__}: {first_line}"
    return f"WRONG: {wrong}" if wrong else work


def disagreement(got: Arrays, expected: Arrays, allowed: float) -> str:
    """Return in words where `got` differs by more than `allowed`, empty if nowhere."""
    for name, value in got.items():
        wanted = expected[name]
        if value.shape != wanted.shape:
            return f"{name} has shape {value.shape}, expected {wanted.shape}"
        largest = float(np.abs(wanted).max(initial=0.0))
        difference = float(np.abs(value.astype(np.float64) - wanted).max(initial=0.0))
        if not difference <= allowed * max(largest, 1e-30):
            return f"{name} differs by {difference:.1e}, the largest entry is {largest:.1e}"
    return ""
