"""Every kernel compiles for GPUs that need not be there, and takes no more than it may."""

from __future__ import annotations

import json
from pathlib import Path

import cuda_compile as gates
import pytest

from rnncore import _rnncore

# What a kernel may take above the budget, and twice that with a compiler that the budget was not
# measured with: another version's choices are not a mistake of ours. Spills are allowed only where
# the budget has some: on sm_80 and sm_100 ptxas spills a little rather than run fewer blocks.
REGISTERS = 8
STACK = 32
SPILLED = 16
DTYPES = ("float32", "float16", "bfloat16", "float64")


def compiler(found: gates.Compiler | None, name: str) -> gates.Compiler:
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def most_of_a_compiler(architecture: str) -> gates.Compiler:
    """Return nvcc, or NVRTC where there is no toolkit."""
    found = gates.compilers()
    if not found:
        pytest.skip("neither nvcc nor NVRTC is installed: pip install nvidia-cuda-nvrtc")
    if architecture not in found[0].architectures():
        pytest.skip(f"{found[0].name} does not know {architecture}")
    return found[0]


def beyond_the_budget(compiler: str, name: str, architecture: str, taken: gates.Taken) -> list[str]:
    """List what a kernel takes too much of."""
    stored = json.loads(gates.BUDGET.read_text())
    kernels, times = stored["kernels"], 1 if compiler in stored["compilers"] else 2
    if name not in kernels:
        return ["has no budget: run python tests/cuda_compile.py --write"]
    own = stored.get(f"beyond {compiler}", {}).get(name, {})
    budget = gates.Taken(*own.get(architecture, kernels[name][architecture]))
    spilled = SPILLED if budget.spilled else 0
    slack = gates.Taken(times * REGISTERS, times * STACK, times * spilled, 0)
    return [
        f"{field}: {value}, budget {most} and {more} more"
        for field, value, most, more in zip(taken._fields, taken, budget, slack, strict=True)
        if value > most + more
    ]


def check(compiler: gates.Compiler, chosen: list[gates.Specialisation], architecture: str) -> None:
    """Compile specialisations; fail with everything that is beyond the budget."""
    jobs = [(compiler, what, architecture) for what in chosen]
    beyond = {}
    for (_, what, _), taken in gates.measure_all(jobs).items():
        made = next(one for one in chosen if one.name == what).program
        assert set(taken) == set(made.names.values()), what
        for name, values in taken.items():
            if wrong := beyond_the_budget(compiler.name, name, architecture, values):
                beyond[name] = wrong
    assert not beyond


def one_of_each() -> list[gates.Specialisation]:
    """Choose one dtype for each cell and regime, with options and without, and for what is common.

    Of persistent blocks it is the widest one, where registers are scarcest.
    """
    everything = list(gates.specialisations())
    kinds = sorted({(what.cell, what.options, what.width > 0) for what in everything})
    chosen = []
    for place, (cell, options, persists) in enumerate(kinds):
        dtype = DTYPES[place % 4]
        widths = _rnncore.cuda_widths(cell, dtype) if persists else [0]
        chosen.append(gates.Specialisation(cell, dtype, options, max(widths)))
    return chosen


def test_each_kind_of_kernel_compiles_within_its_budget() -> None:
    chosen = one_of_each()
    assert {what.dtype for what in chosen} == set(DTYPES)
    check(most_of_a_compiler("sm_90"), chosen, "sm_90")


def test_kernels_compile_as_cupy_compiles_them() -> None:
    nvrtc = compiler(gates.find_nvrtc(), "NVRTC (pip install nvidia-cuda-nvrtc)")
    chosen = [what for what in one_of_each() if what.cell in {"common", "lstm"}]
    check(nvrtc, chosen, "sm_90")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["nvcc", "NVRTC"])
@pytest.mark.parametrize("architecture", gates.ARCHITECTURES)
def test_every_kernel_compiles_within_its_budget(name: str, architecture: str) -> None:
    found = compiler(gates.find_nvcc() if name == "nvcc" else gates.find_nvrtc(), name)
    if architecture not in found.architectures():
        pytest.skip(f"{found.name} does not know {architecture}")
    check(found, list(gates.specialisations()), architecture)


def test_a_mistake_in_a_kernel_is_found() -> None:
    text = (
        '#include "cuda/rows.cuh"\nRNNCORE_KERNEL(wrong, 256, rnncore::cuda::CopyRows, nothing)\n'
    )
    with pytest.raises(gates.CompileError, match="nothing"):
        most_of_a_compiler("sm_90").compile(text, "sm_90")


def test_registers_stack_spills_and_shared_memory_are_read() -> None:
    # A long array that is indexed at run time lives on the stack, 64 values live at once and no
    # more than 32 registers for them spill.
    text = """
extern "C" __global__ void __launch_bounds__(1024, 2) crowded(float* to) {
  __shared__ float shared[100];
  float values[64];
  for (int i = 0; i < 64; ++i) values[i] = to[i * 1024 + threadIdx.x];
  shared[threadIdx.x % 100] = values[0];
  __syncthreads();
  for (int n = 0; n < 100; ++n) {
#pragma unroll
    for (int i = 0; i < 64; ++i) values[i] = values[i] * values[(i * 7 + 3) % 64] + shared[n];
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) to[i * 1024 + threadIdx.x] = values[i];
}
extern "C" __global__ void roomy(float* to) { to[threadIdx.x] = 1; }
"""
    taken = gates.parse(most_of_a_compiler("sm_90").compile(text, "sm_90"))
    assert set(taken) == {"crowded", "roomy"}
    assert taken["crowded"].registers == 32
    assert taken["crowded"].stack >= 64
    assert taken["crowded"].spilled >= 64
    assert taken["crowded"].shared == 400
    assert taken["roomy"].registers < 32
    assert taken["roomy"][1:] == (0, 0, 0)


def test_what_one_compiler_needs_beyond_the_budget_is_not_allowed_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {
        "compilers": ["one", "other"],
        "kernels": {"kernel": {"sm_90": [40, 0, 0, 0]}},
        "beyond other": {"kernel": {"sm_90": [96, 0, 0, 0]}},
    }
    monkeypatch.setattr(gates, "BUDGET", tmp_path / "budget.json")
    gates.BUDGET.write_text(json.dumps(stored))
    most = gates.Taken(96 + REGISTERS, 0, 0, 0)
    assert beyond_the_budget("other", "kernel", "sm_90", most) == []
    assert beyond_the_budget("other", "kernel", "sm_90", most._replace(registers=105)) != []
    assert beyond_the_budget("one", "kernel", "sm_90", most) != []


def test_a_kernel_beyond_its_budget_is_told() -> None:
    stored = json.loads(gates.BUDGET.read_text())
    kernels, known = stored["kernels"], stored["compilers"][0]
    name = next(name for name, taken in kernels.items() if not taken["sm_90"][2])
    budget = gates.Taken(*kernels[name]["sm_90"])
    assert beyond_the_budget(known, name, "sm_90", budget) == []
    more = budget._replace(registers=budget.registers + REGISTERS + 1, spilled=4)
    wrong = beyond_the_budget(known, name, "sm_90", more)
    assert [line.partition(":")[0] for line in wrong] == ["registers", "spilled"]
    wrong = beyond_the_budget("a compiler of next year", name, "sm_90", more)
    assert [line.partition(":")[0] for line in wrong] == ["spilled"]
    assert beyond_the_budget(known, "unknown", "sm_90", budget) != []


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_without_options_spill_nothing(architecture: str) -> None:
    kernels = json.loads(gates.BUDGET.read_text())["kernels"]
    hot = {name: taken[architecture][2] for name, taken in kernels.items() if "_plain" in name}
    assert hot
    assert not any(hot.values())


def test_the_budget_knows_exactly_the_kernels_that_there_are() -> None:
    names = {name for what in gates.specialisations() for name in what.program.names.values()}
    assert set(json.loads(gates.BUDGET.read_text())["kernels"]) == names
