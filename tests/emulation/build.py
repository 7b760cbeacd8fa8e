"""Compiles entry points with the emulation into one shared library, each text only once."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "emulation"
JOBS = 2
INCLUDES = ["csrc", "tests"]
FLAGS = ["-O2", "-std=c++17", "-ffp-contract=off", "-fPIC", "-g1", "-Wall", "-Wextra"]
# A word that jumps instead of calling would hide who used it.
FLAGS += ["-Wno-unknown-pragmas", "-fno-optimize-sibling-calls", "-DRNNCORE_EMULATED"]
FLAGS += [f"-I{folder}" for folder in INCLUDES]
OWN = sorted((ROOT / "tests" / "emulation").glob("*.cpp"))


class BuildError(Exception):
    """What the compiler said."""


def compiler() -> list[str] | None:
    """Find the C++ compiler that extension modules are built with: its command, or None."""
    command = os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++"
    words = shlex.split(command)
    return next((found for found in (words, ["c++"]) if found and shutil.which(found[0])), None)


def with_headers(text: str, seen: set[Path] | None = None) -> Iterable[str]:
    """Yield a text, and those of all the project's headers that it includes."""
    seen = set() if seen is None else seen
    yield text
    for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', text, re.MULTILINE):
        for folder in INCLUDES:
            header = ROOT / folder / name
            if header.exists() and header not in seen:
                seen.add(header)
                yield from with_headers(header.read_text(), seen)


def digest(parts: Iterable[str]) -> str:
    together = hashlib.sha256()
    for part in parts:
        together.update(hashlib.sha256(part.encode()).digest())
    return together.hexdigest()[:24]


def identity(command: list[str]) -> str:
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    return said.stdout


def run(command: list[str], made: Path, temporary: Path) -> Path:
    """Run a command that writes `temporary`, which becomes `made` once it is whole."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{shlex.join(command)}\n{done.stderr}")
    temporary.replace(made)
    return made


def compile_object(command: list[str], version: str, text: str, source: Path | None) -> Path:
    """Compile a text to an object, or find the one that was made of it before."""
    key = digest([version, *command, *FLAGS, *with_headers(text)])
    made = CACHE / f"{key}.o"
    if made.exists():
        return made
    if source is None:
        source = CACHE / f"{key}.cpp"
        source.write_text(text)
    temporary = CACHE / f"{key}.{os.getpid()}.o"
    name = str(source.relative_to(ROOT))  # as reports show it
    return run([*command, *FLAGS, "-c", name, "-o", str(temporary)], made, temporary)


def build(entries: Iterable[str]) -> Path:
    """Compile entry points and the emulation into a shared library.

    Parameters
    ----------
    entries : iterable of str
        C++ texts that include what they need from ``cuda/`` and name entry points by
        ``RNNCORE_KERNEL``. They are compiled apart, two at a time.

    Returns
    -------
    pathlib.Path
        The library, under ``build/emulation/``; the same one for the same texts.

    Raises
    ------
    BuildError
        With the compiler's words, where a text does not compile.
    """
    command = compiler()
    if command is None:
        raise BuildError("no C++ compiler was found; set CXX or install one")
    version = identity(command)
    CACHE.mkdir(parents=True, exist_ok=True)
    texts: list[tuple[str, Path | None]] = [(path.read_text(), path) for path in OWN]
    texts += [(text, None) for text in entries]
    with ThreadPoolExecutor(JOBS) as jobs:
        waiting = [jobs.submit(compile_object, command, version, *text) for text in texts]
        objects = [job.result() for job in waiting]
    made = CACHE / f"{digest(path.name for path in objects)}.so"
    if made.exists():
        return made
    temporary = CACHE / f"{made.stem}.{os.getpid()}.so"
    # -Bsymbolic: several libraries live in one process, and each has globals of its own.
    flags = ["-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined"]
    return run([*command, *flags, *map(str, objects), "-o", str(temporary)], made, temporary)
