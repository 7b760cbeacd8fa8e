"""Find the kernels' text, which the package carries, and say how it is compiled."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "_csrc"
"""Where ``#include "cuda/..."`` and ``#include "cells/..."`` are looked for."""

PARTS = ("cells", "cuda")


def digest(folder: Path) -> str:
    """Return a number for the contents of all kernel text in a folder.

    Parameters
    ----------
    folder : pathlib.Path
        With a folder for each of ``PARTS``.

    Returns
    -------
    str
        16 hexadecimal digits, the same for the same names and contents.
    """
    together = hashlib.sha256()
    for part in PARTS:
        for path in sorted((folder / part).iterdir()):
            together.update(f"{part}/{path.name}".encode())
            together.update(hashlib.sha256(path.read_bytes()).digest())
    return together.hexdigest()[:16]


@cache
def compile_options() -> tuple[str, ...]:
    """Return what every kernel is compiled with.

    CuPy finds a compiled text again by the text itself and the options, and does not look into
    what the text includes: so a macro that nobody reads carries the contents of that.

    Returns
    -------
    tuple of str
        For NVRTC and nvcc alike.

    Examples
    --------
    >>> from rnncore.cuda import sources
    >>> sources.compile_options()[0]
    '--std=c++17'
    """
    return "--std=c++17", f"-I{FOLDER}", f"-DRNNCORE_SOURCES=0x{digest(FOLDER)}"
