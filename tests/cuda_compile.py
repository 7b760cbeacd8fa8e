"""Compiles kernels for GPUs that need not be there, and reads what each of them takes.

``python tests/cuda_compile.py --write`` measures every specialisation with every compiler that it
finds and writes ``tests/cuda_budget.json``; ``tests/test_cuda_compile.py`` holds kernels to it.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import NamedTuple, Protocol

from emulation.build import JOBS, digest, with_headers

from rnncore import _rnncore
from rnncore.cuda import program, sources

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "cuda_compile"
BUDGET = Path(__file__).with_name("cuda_budget.json")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# What CuPy 14 adds for NVRTC to the options that it is given, beside folders of its own headers,
# which kernels do not include. To nvcc only the first means something.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


class Specialisation(NamedTuple):
    """What one module is compiled from."""

    cell: str  # or "common"
    dtype: str
    options: bool
    width: int = 0  # of persistent blocks

    @property
    def name(self) -> str:
        if self.cell == "common":
            return f"common-{self.dtype}"
        name = f"{self.cell}-{self.dtype}-{'options' if self.options else 'plain'}"
        return f"{name}-{self.width}" if self.width else name

    @property
    def program(self) -> program.Program:
        if self.cell == "common":
            return program.common_program(self.dtype)
        return program.programs_of(*self)[1]


def specialisations() -> Iterator[Specialisation]:
    """Yield everything that a driver may be asked to compile."""
    for dtype in program.TYPES:
        yield Specialisation("common", dtype, False)
        for name, cell in _rnncore.cuda_cells().items():
            yield Specialisation(name, dtype, True)
            if cell.has_plain:
                yield Specialisation(name, dtype, False)
            for width in _rnncore.cuda_widths(name, dtype):
                yield Specialisation(name, dtype, True, width)
                if cell.has_plain:
                    yield Specialisation(name, dtype, False, width)


class Taken(NamedTuple):
    """What a kernel takes: registers of a thread, and bytes."""

    registers: int
    stack: int
    spilled: int  # stores and loads, of the kernel and of what it calls
    shared: int  # static


class CompileError(Exception):
    """What the compiler said."""


class Compiler(Protocol):
    """Compile a text to a cubin that nobody keeps, and return what ptxas said."""

    name: str

    def architectures(self) -> set[str]: ...

    def compile(self, text: str, architecture: str) -> str: ...


class Nvcc:
    """The compiler of a CUDA toolkit."""

    def __init__(self, command: str) -> None:
        self._command = command
        said = self._run("--version")
        self.name = "nvcc " + re.findall(r"V([\d.]+)", said)[0]

    def architectures(self) -> set[str]:
        return set(self._run("--list-gpu-code").split())

    def compile(self, text: str, architecture: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "kernels.cu"
            source.write_text(text)
            flags = ["-cubin", f"-arch={architecture}", "-Xptxas", "-v"]
            flags += [*sources.compile_options(), CUPY_OPTIONS[0], "-Werror", "all-warnings"]
            return self._run(*flags, "-o", os.devnull, str(source))

    def _run(self, *flags: str) -> str:
        done = subprocess.run([self._command, *flags], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(done.stdout + done.stderr)
        return done.stdout + done.stderr


class Nvrtc:
    """The compiler that CuPy uses; it asks for no GPU where it is told the architecture."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.name = f"NVRTC {major.value}.{minor.value}"

    def architectures(self) -> set[str]:
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", numbers)
        return {f"sm_{number}" for number in numbers}

    def compile(self, text: str, architecture: str) -> str:
        made = ctypes.c_void_p()
        source = text.encode()
        self._call("CreateProgram", ctypes.byref(made), source, b"kernels.cu", 0, None, None)
        try:
            options = [*sources.compile_options(), *CUPY_OPTIONS, f"-arch={architecture}"]
            options += ["--ptxas-options=-v"]
            list_of = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            status = self._library.nvrtcCompileProgram(made, len(options), list_of)
            size = ctypes.c_size_t()
            self._call("GetProgramLogSize", made, ctypes.byref(size))
            said = ctypes.create_string_buffer(size.value)
            self._call("GetProgramLog", made, said)
            if status:
                raise CompileError(said.value.decode())
            return said.value.decode()
        finally:
            self._call("DestroyProgram", ctypes.byref(made))

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, f"nvrtc{function}")(*arguments)
        if status:
            raise CompileError(f"nvrtc{function}: status {status}")


def _toolkits() -> list[Path]:
    named = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    return [Path(folder) for folder in named if folder]


@cache
def find_nvcc() -> Nvcc | None:
    """Find a toolkit's compiler, on the PATH or where toolkits are."""
    places = [shutil.which("nvcc"), *(str(folder / "bin" / "nvcc") for folder in _toolkits())]
    return next((Nvcc(place) for place in places if place and os.access(place, os.X_OK)), None)


@cache
def find_nvrtc() -> Nvrtc | None:
    """Find NVRTC in NVIDIA's wheels, in a toolkit, or where the linker looks."""
    package = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (package and package.submodule_search_locations) or []]
    found = sorted(path for place in places for path in place.glob("*/lib/libnvrtc.so.*"))
    found += [path for place in _toolkits() for path in sorted(place.glob("lib64/libnvrtc.so.*"))]
    for name in [*map(str, found), find_library("nvrtc")]:
        if name:
            return Nvrtc(ctypes.CDLL(name))
    return None


def parse(said: str) -> dict[str, Taken]:
    """Read what ``ptxas -v`` says of each entry point."""
    taken = {}
    for part in said.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        (registers,) = re.findall(r"Used (\d+) registers", part)
        frame = re.findall(r"(\d+) bytes stack frame", part)
        stack = re.findall(r"(\d+) bytes cumulative stack size", part)
        shared = re.findall(r"(\d+) bytes smem", part)
        taken[name] = Taken(
            registers=int(registers),
            stack=int(stack[0] if stack else frame[0]),
            spilled=sum(int(stores) + int(loads) for stores, loads in spilled),
            shared=int(shared[0]) if shared else 0,
        )
    return taken


def measure(compiler: Compiler, text: str, architecture: str) -> dict[str, Taken]:
    """Compile a text, or remember what came of it; return what each of its kernels takes."""
    told = [sources.compile_options()[0], *CUPY_OPTIONS, *Taken._fields]
    key = digest([compiler.name, architecture, *told, *with_headers(text)])
    kept = CACHE / f"{key}.json"
    if kept.exists():
        return {name: Taken(*values) for name, values in json.loads(kept.read_text()).items()}
    taken = parse(compiler.compile(text, architecture))
    CACHE.mkdir(parents=True, exist_ok=True)
    temporary = CACHE / f"{key}.{os.getpid()}"
    temporary.write_text(json.dumps(taken))
    temporary.replace(kept)
    return taken


Job = tuple[Compiler, Specialisation, str]


def measure_all(jobs: Iterable[Job]) -> dict[tuple[str, str, str], dict[str, Taken]]:
    """Measure by compiler, specialisation and architecture, two at a time."""
    waiting = {}
    with ThreadPoolExecutor(JOBS) as pool:
        for compiler, what, architecture in jobs:
            done = pool.submit(measure, compiler, what.program.text, architecture)
            waiting[compiler.name, what.name, architecture] = done
    failed = [f"{key}: {job.exception()}" for key, job in waiting.items() if job.exception()]
    if failed:
        raise CompileError("\n".join(failed))
    return {key: job.result() for key, job in waiting.items()}


def compilers() -> list[Compiler]:
    return [found for found in (find_nvcc(), find_nvrtc()) if found]


Budget = dict[str, dict[str, Taken]]  # by kernel and architecture


def written(kernels: Budget) -> str:
    rows = [f'    "{name}": {json.dumps(kernels[name])}' for name in sorted(kernels)]
    return "{\n" + ",\n".join(rows) + "\n  }"


def write_budget() -> None:
    """Write what each kernel takes on each architecture: by the first compiler that is found.

    Of the others it is written where they take more: what one version of ptxas needs must not
    loosen what another is held to.
    """
    found, all_of = compilers(), list(specialisations())
    jobs = [
        (compiler, what, architecture)
        for compiler in found
        for architecture in ARCHITECTURES
        for what in all_of
    ]
    kernels: Budget = {}
    beyond: dict[str, Budget] = {compiler.name: {} for compiler in found[1:]}
    for (compiler_name, _, architecture), taken in measure_all(jobs).items():
        for name, values in taken.items():
            if compiler_name == found[0].name:
                kernels.setdefault(name, {})[architecture] = values
            elif any(map(int.__gt__, values, kernels[name][architecture])):
                beyond[compiler_name].setdefault(name, {})[architecture] = values
    heading = {"compilers": [compiler.name for compiler in found], "columns": Taken._fields}
    lines = [f'  "{key}": {json.dumps(value)}' for key, value in heading.items()]
    lines += [f'  "kernels": {written(kernels)}']
    lines += [f'  "beyond {name}": {written(more)}' for name, more in beyond.items()]
    BUDGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what every kernel takes.")
    parser.add_argument("--write", action="store_true", required=True, help=f"write {BUDGET.name}")
    parser.parse_args()
    write_budget()
