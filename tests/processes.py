"""Run a piece of Python in a process of its own, with a time limit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parent
LIMIT_S = 60.0

PRELUDE = """\
import faulthandler, hashlib, os, signal, sys, threading, time
faulthandler.enable()
import numpy as np
import rnncore as rc
from rnncore import _rnncore

def digest(arrays):
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()

def train(case, threads):
    from cases import draw
    from engine import train as run
    with rc.threads(threads):
        return digest(run(case, draw(case)).values())
"""


def run_python(
    code: str,
    *,
    env: dict[str, str] | None = None,
    before: tuple[str, ...] = (),
    timeout: float = LIMIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run code after `PRELUDE`; the words in ``before`` stand in front of the interpreter."""
    text = PRELUDE + textwrap.dedent(code)
    return run([*before, sys.executable, "-c", text], env=env, timeout=timeout)


def run(
    command: list[str], *, env: dict[str, str] | None = None, timeout: float = LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a command where the tests' modules and the package can be imported."""
    root = str(TESTS.parent)
    path = os.pathsep.join([str(TESTS), root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)} | (env or {})
    return subprocess.run(
        command, env=environment, timeout=timeout, capture_output=True, text=True, check=False
    )


def output_of(code: str, **options: object) -> str:
    """Run code that must end well; return what it printed."""
    done = run_python(code, **options)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()
