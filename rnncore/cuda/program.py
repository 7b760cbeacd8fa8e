"""Write down which kernels a recurrence needs: C++ text with their entry points.

Kernels are templates in ``csrc/cuda``, shipped with the package; an entry point is a line that
names one with its types. A program is what one cell, dtype and choice of options need; what no
cell has a part in is a program of its own for each dtype.
"""

from __future__ import annotations

from typing import NamedTuple

from rnncore import _rnncore

THREADS = 256
"""Threads of a block, which kernels are compiled for; ``kCudaThreads`` in csrc/core/cuda_call.h."""

SPLIT = 4
"""Threads that share a unit of a persistent block: ``kPersistentSplit`` in core/cuda_plan.h."""

TYPES = {
    "float16": "Float16",
    "bfloat16": "BFloat16",
    "float32": "float",
    "float64": "double",
}
"""What kernels call the dtypes of sequences."""


class Entry(NamedTuple):
    """An entry point: what the host calls it, the type of its arguments and what it runs."""

    kernel: str
    arguments: str
    function: str
    threads: int = THREADS


class Program(NamedTuple):
    """A text to be compiled, and the names of its kernels in it."""

    text: str
    names: dict[str, str]


def common_program(dtype: str) -> Program:
    """Return the kernels that serve every cell."""
    number = TYPES[dtype]
    real = f"Real<{number}>"
    entries = [
        Entry("copy_rows", "CopyRows", f"copy_rows<{number}, {number}, {number}>"),
        Entry("copy_gradients", "CopyRows", f"copy_rows<{number}, {real}, {number}>"),
        Entry("mask_gradients", "CopyRows", f"copy_rows<{real}, {real}, {number}>"),
        Entry("gather_entering", "GatherEntering", f"gather_entering<{number}>"),
        Entry("copy_states", "CopyStates", f"copy_states<{number}>"),
        Entry("take_lengths", "TakeLengths", "take_lengths"),
        Entry("pack_gates", "MoveGates", f"pack_gates<{number}>"),
        Entry("pack_vectors", "MoveGates", f"pack_gates<{real}>"),
        Entry("pack_bias", "PackBias", f"pack_bias<{real}>"),
        Entry("add_gates", "MoveGates", f"add_gates<{real}>"),
        Entry("sum_rows", "SumRows", f"sum_rows<{real}>"),
        Entry("normalise_rows", "NormaliseRows", f"normalise_rows<{real}>"),
        Entry("forward_output", "ForwardStep", f"forward_output<{number}>"),
        Entry("backward_output", "BackwardStep", f"backward_output<{number}>"),
        Entry("backward_start", "BackwardStep", f"backward_start<{number}, false>"),
        Entry("backward_start_c", "BackwardStep", f"backward_start<{number}, true>"),
    ]
    headers = ["rows", "lengths", "normalise", "recurrence_forward", "recurrence_backward"]
    return _program(headers, entries, dtype)


def cell_program(cell: str, dtype: str, options: bool) -> Program:
    """Return the kernels of one cell.

    Parameters
    ----------
    cell : str
        As ``csrc/cells/list.h`` names it.
    dtype : str
        A key of ``TYPES``.
    options : bool
        Whether the cell asks for its options at run time, or has the plain ones.
    """
    types, suffix = _of_cell(cell, dtype, options)
    names = {"forward_gates": "ForwardStep", "backward_gates": "BackwardStep"}
    headers = ["recurrence_forward", "recurrence_backward"]
    if options:
        names |= {"normalised_gates": "ForwardStep", "normalised_gates_backward": "BackwardStep"}
        headers += ["normalised_forward", "normalised_backward"]
    entries = [
        Entry(f"{name}_{phase}", arguments, f"{name}<{types}, {phase}>")
        for name, arguments in names.items()
        for phase in range(_rnncore.cuda_cells()[cell].phases)
    ]
    return _program(headers, entries, suffix)


def persistent_program(cell: str, dtype: str, options: bool, width: int) -> Program:
    """Return the kernels that run all steps of a cell at once, blocks of `width` units."""
    types, suffix = _of_cell(cell, dtype, options)
    entries = [
        Entry(
            f"persistent_{way}",
            f"Persistent{way.title()}",
            f"persistent_{way}<{types}, {width}>",
            SPLIT * width,
        )
        for way in ("forward", "backward")
    ]
    headers = ["persistent_forward", "persistent_backward"]
    return _program(headers, entries, f"{suffix}_{width}")


def programs_of(cell: str, dtype: str, options: bool, width: int) -> list[Program]:
    """Return all that a recurrence needs; `width` is 0 where steps are kernels of their own."""
    if width:
        return [common_program(dtype), persistent_program(cell, dtype, options, width)]
    return [common_program(dtype), cell_program(cell, dtype, options)]


def _of_cell(cell: str, dtype: str, options: bool) -> tuple[str, str]:
    """Return the types that a cell's kernels are made of, and the end of their names."""
    kind = f"cell_{cell}"
    choice = "AnyOptions" if options else f"PlainOptions<{kind}::Candidate>"
    end = f"{cell}_{dtype}_{'options' if options else 'plain'}"
    return f"{TYPES[dtype]}, {kind}::Type, {choice}", end


def _program(headers: list[str], entries: list[Entry], suffix: str) -> Program:
    names = {entry.kernel: f"rnncore_{entry.kernel}_{suffix}" for entry in entries}
    lines = [f'#include "cuda/{header}.cuh"' for header in headers]
    lines += ["", "using namespace rnncore::cuda;", ""]
    lines += [
        f"RNNCORE_KERNEL({names[entry.kernel]}, {entry.threads}, {entry.arguments},\n"
        f"               {entry.function})"
        for entry in entries
    ]
    return Program("\n".join(lines) + "\n", names)
