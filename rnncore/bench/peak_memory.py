"""How much memory a training step needs at most: the growth of a process of its own.

In the process everything that the caller has (parameters, gradients, input, the outer gradient) is
in memory, a short step has run, and what the engine kept of it is given back. Then the kernel's
record of the most resident memory (VmHWM) is reset, one step runs, and the record is read. What
grew, less y and dx, is what the engine needed: packed weights, tape and scratch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import rnncore as rc
from rnncore import _rnncore
from rnncore.bench.cases import Case

PROCESS = Path("/proc/self")
RESET_PEAK = "5"
# Memory that is freed goes back to the system, so that it does not hide what is asked for next.
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Peak:
    """Memory of one training step.

    Parameters
    ----------
    tape_bytes : int
        What the tape holds between forward and backward.
    peak_bytes : int
        The most that the engine held at any time, without the caller's arrays, y and dx.
    """

    tape_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Memory:
    """The same step plain and with ``recompute``."""

    plain: Peak
    recomputed: Peak

    @property
    def saved(self) -> float:
        """The share of the plain step's peak that is not needed."""
        return 1 - self.recomputed.peak_bytes / self.plain.peak_bytes


def memory_of(case: Case, dtype: str, threads: int) -> Memory | None:
    """Measure both steps of a layer, each in a process of its own.

    Returns
    -------
    Memory, or None
        None where the system keeps no such record; Linux does.

    Raises
    ------
    OSError
        If a process fails.
    """
    if not (PROCESS / "clear_refs").exists():
        return None
    return Memory(*(_peak(case, dtype, threads, recompute) for recompute in (False, True)))


def _peak(case: Case, dtype: str, threads: int, recompute: bool) -> Peak:
    asked = json.dumps([asdict(case), dtype, threads, recompute])
    command = [sys.executable, "-m", __name__, asked]
    environment = os.environ | PLAIN_MALLOC
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise OSError(f"peak memory of {case}: exit code {done.returncode}: {last}")
    return Peak(**json.loads(done.stdout))


def main(asked: str) -> None:
    """Run one step in this process and write its memory to standard output."""
    described, dtype, threads, recompute = json.loads(asked)
    case = Case(**described)
    layer = getattr(rc, case.cell)(case.D, case.H, dtype=dtype, seed=0)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((case.T, case.N, case.D), dtype)
    dy = draw.standard_normal((case.T, case.N, case.H), dtype)

    def step(steps: int) -> tuple[int, int]:
        layer.zero_grad()
        y, _, tape = layer.record(x[:steps], recompute=recompute)
        held = tape.nbytes
        dx, _ = layer.backward(dy[:steps], tape=tape)
        return held, y.nbytes + dx.nbytes

    with rc.threads(threads):
        step(2)
        _rnncore._debug.clear_kept_memory()
        (PROCESS / "clear_refs").write_text(RESET_PEAK)
        before = _bytes("VmRSS")
        held, given = step(case.T)
    sys.stdout.write(json.dumps(asdict(Peak(held, _bytes("VmHWM") - before - given))))


def _bytes(name: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    number = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(number)


if __name__ == "__main__":
    main(sys.argv[1])
