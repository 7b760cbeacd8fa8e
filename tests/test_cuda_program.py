"""The kernels that entry points are written for are those that the core launches."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import cuda_compile as gates
import pytest

from rnncore import _rnncore
from rnncore.cuda import program, sources

ROOT = Path(__file__).parents[1]
CALL = (ROOT / "csrc/core/cuda_call.h").read_text()
EVERYTHING = list(gates.specialisations())


def kernels_of_the_core() -> list[str]:
    (listed,) = re.findall(r"#define RNNCORE_CUDA_KERNELS\(X\)(.*?[^\\])\n", CALL, re.DOTALL)
    return re.findall(r"X\((\w+)\)", listed)


def test_names_of_entry_points_are_unique() -> None:
    names = Counter(name for what in EVERYTHING for name in what.program.names.values())
    assert [name for name, count in names.items() if count > 1] == []


def test_every_kernel_that_the_core_launches_is_made_and_no_other() -> None:
    made = {kernel for what in EVERYTHING for kernel in what.program.names}
    assert made == set(kernels_of_the_core())
    # The binding takes each of them by that name, and no other.
    _rnncore.CudaProgram(0, dict.fromkeys(made, 0), 0)
    with pytest.raises(ValueError, match="unknown name nobody"):
        _rnncore.CudaProgram(0, {"nobody": 0}, 0)


def test_no_kernel_is_both_common_and_of_a_cell() -> None:
    common = set(program.common_program("float32").names)
    for what in EVERYTHING:
        if what.cell != "common":
            assert not common & set(what.program.names), what.name


@pytest.mark.parametrize("what", EVERYTHING, ids=lambda what: what.name)
def test_a_text_holds_each_of_its_names_once(what: gates.Specialisation) -> None:
    made = what.program
    assert re.findall(r"^RNNCORE_KERNEL\((\w+),", made.text, re.MULTILINE) == [*made.names.values()]


def test_python_and_the_core_agree_about_threads_of_a_block() -> None:
    assert re.findall(r"kCudaThreads = (\d+);", CALL) == [str(program.THREADS)]
    plan = (ROOT / "csrc/core/cuda_plan.h").read_text()
    assert re.findall(r"kPersistentSplit = (\d+);", plan) == [str(program.SPLIT)]
    block = (ROOT / "csrc/cuda/persistent.cuh").read_text()
    assert re.findall(r"kSplit = (\d+), kRun = 4, kRows = kSplit;", block) == [str(program.SPLIT)]
    assert re.findall(r"kPersistentRows = (\d+),", plan) == [str(program.SPLIT)]


def included(text: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE)


def test_the_package_carries_all_that_kernels_include() -> None:
    waiting = [name for what in EVERYTHING for name in included(what.program.text)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        # Its twin for the CPU, which device.cuh takes in the tests' emulation alone.
        if name not in seen and name != "cuda/emulated.h":
            seen.add(name)
            waiting += included((sources.FOLDER / name).read_text())
    assert {name.split("/")[0] for name in seen} == set(sources.PARTS)
    assert "cuda/device.cuh" in seen
