"""What a figure depends on: the machine, the build, the versions; and how many CPUs are in use."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import rnncore
from rnncore import _rnncore
from rnncore.bench.peers.interface import Peer

ROOT = Path(rnncore.__file__).parents[1]


def conditions(threads: int, peers: Sequence[Peer]) -> dict[str, Any]:
    """Return what the figures depend on, in plain words and numbers."""
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "isa": _rnncore.isa(),
        "compiler": _rnncore.compiler(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "rnncore": rnncore.__version__,
        "commit": commit(),
        "numpy": np.__version__,
        "peers": {peer.name: peer.version for peer in peers},
    }


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def checkout() -> Path | None:
    """Return the root of the checkout that the package runs from, if it does."""
    return ROOT if (ROOT / "csrc").is_dir() and (ROOT / "benchmarks").is_dir() else None


def commit() -> str:
    """Return the commit that is measured, marked where the engine's sources differ from it."""
    root = checkout()
    if root is None:
        return "none, an installed package"
    try:
        changed = _git(root, "status", "--porcelain", "--", "csrc", "src", "rnncore", "setup.py")
        return (_git(root, "rev-parse", "--short=12", "HEAD") or "unknown") + (
            "-dirty" if changed else ""
        )
    except OSError:
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=root, check=False
    )
    return done.stdout.strip()


@contextmanager
def only_cpus(count: int) -> Iterator[None]:
    """Let this thread, and those that start in it, use `count` CPUs.

    Some peers take their number of threads from it and from nothing else.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
