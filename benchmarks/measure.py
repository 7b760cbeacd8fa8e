"""Timing: everything that is compared runs interleaved, and medians are what is reported."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rnncore as rc
from rnncore import _rnncore

PAUSE = 0.005  # seconds
SHORT = 0.2
RESULTS = Path(__file__).parent / "results"


def interleaved(
    actions: dict[str, Callable[[], object]], seconds: float, least: int = 5
) -> dict[str, list[float]]:
    """Time each action again and again in turn, for about `seconds` in all.

    A pause lets the threads of what ran before fall asleep: PyTorch's spin for some milliseconds,
    and would take a CPU from whoever comes next. A short action then runs once untimed, to wake
    its own.
    """
    short = {name: _once(action) < SHORT for name, action in actions.items()}
    times: dict[str, list[float]] = {name: [] for name in actions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, action in actions.items():
            time.sleep(PAUSE)
            if short[name]:
                action()
            times[name].append(_once(action))
    return times


def _once(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def summary(times: list[float]) -> dict[str, float]:
    """Return the median, and the middle half's spread as a share of it."""
    quarters = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    median = statistics.median(times)
    spread = (quarters[2] - quarters[0]) / median
    return {"median_s": median, "spread": spread, "least_s": min(times), "repeats": len(times)}


def cpu_name() -> str:
    """Return what the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str:
    """Return the commit that is measured, marked where the engine's sources differ from it."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, cwd=root, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "csrc", "src", "rnncore", "setup.py")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")


def conditions(threads: int, **versions: str) -> dict[str, Any]:
    """Return what a figure depends on."""
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "isa": _rnncore.isa(),
        "compiler": _rnncore.compiler(),
        "commit": commit(),
        "rnncore": rc.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        **versions,
    }


def write(name: str, result: dict[str, Any]) -> Path:
    """Write a result file and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
