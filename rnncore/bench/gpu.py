"""What a run on a GPU may be asked, waits for, and depends on.

CuPy is imported by what needs the GPU, not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import rnncore as rc
from rnncore import devices
from rnncore.bench.peers.interface import Work

MODES = ("inference", "training")
DTYPES = devices.DTYPES["cuda"]


def check(modes: tuple[str, ...], dtype: str) -> None:
    """Refuse what a GPU does not run, before anything else is done.

    Raises
    ------
    ValueError
        If a mode or the dtype is not one of a GPU's.
    rnncore.DeviceError
        If there is no GPU.
    """
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"modes: expected some of {', '.join(MODES)} on 'cuda', got {mode!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)} on 'cuda', got {dtype!r}")
    devices.get("cuda")


def name() -> str:
    """Return what the current GPU calls itself."""
    cupy = devices.get("cuda").xp
    ordinal = cupy.cuda.runtime.getDevice()
    return str(cupy.cuda.runtime.getDeviceProperties(ordinal)["name"].decode())


def file_name() -> str:
    """Return that as a part of a file's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name().lower()).strip("-")


def conditions() -> dict[str, Any]:
    """Return what figures on a GPU depend on besides what ``machine.conditions`` tells."""
    cupy = devices.get("cuda").xp
    runtime = cupy.cuda.runtime
    return {
        "gpu": name(),
        "driver": runtime.driverGetVersion(),
        "cuda": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "tf32": rc.tf32_allowed(),
    }


def wait() -> None:
    """Wait until the current GPU has done all that it was asked, whoever asked."""
    devices.get("cuda").xp.cuda.runtime.deviceSynchronize()


def until_done(work: Work, wait: Callable[[], object]) -> Work:
    """Return the same work, whose run ends when the GPU has done it."""

    def run() -> object:
        made = work.run()
        wait()
        return made

    return replace(work, run=run)
