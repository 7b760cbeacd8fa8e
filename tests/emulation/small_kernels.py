"""The entry points of small_kernels.cuh: by name, the threads of a block and the function."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from emulation.bindings import Emulation
from emulation.build import build, compiler

ENTRIES = {
    "sum_float": (256, "sum_block<float, LeftOut::nothing>"),
    "sum_double": (256, "sum_block<double, LeftOut::nothing>"),
    "sum_without_first_barrier": (256, "sum_block<float, LeftOut::barrier_after_write>"),
    "sum_without_second_barrier": (256, "sum_block<float, LeftOut::barrier_after_read>"),
    "copy_from_byte": (1024, "copy_from<unsigned char>"),
    "copy_from_float": (1024, "copy_from<float>"),
    "copy_from_double": (1024, "copy_from<double>"),
    "widen_float16": (256, "widen_all<Float16>"),
    "widen_bfloat16": (256, "widen_all<BFloat16>"),
    "narrow_float16": (256, "narrow_all<Float16>"),
    "narrow_bfloat16": (256, "narrow_all<BFloat16>"),
    "functions_float": (256, "functions<float>"),
    "functions_double": (256, "functions<double>"),
    "lstm_step_float": (64, "lstm_step<float>"),
    "lstm_step_double": (64, "lstm_step<double>"),
}
ENTRIES |= {
    name: (256, name)
    for name in (
        "exchange",
        "barrier_without_some",
        "two_barriers",
        "shuffle_without_some",
        "two_shuffles",
        "barrier_or_shuffle",
        "read_askew",
        "read_shared",
        "write_together",
        "write_the_same",
        "hand_over",
        "write_word_and_byte",
        "follow_script",
        "multiply_all",
    )
}


def text() -> str:
    """Write the entry points' source."""
    lines = ['#include "emulation/small_kernels.cuh"', "using namespace rnncore::cuda;"]
    for name, (threads, function) in ENTRIES.items():
        lines.append(f"RNNCORE_KERNEL(entry_{name}, {threads}, Arrays, {function})")
    return "\n".join(lines) + "\n"


class Arrays(ctypes.Structure):
    """Arrays of small_kernels.cuh."""

    _fields_ = (("source", ctypes.c_void_p), ("out", ctypes.c_void_p), ("count", ctypes.c_longlong))


def arrays(source: np.ndarray | None, out: np.ndarray | None, count: int) -> Arrays:
    """Point at arrays, which must outlive the launch."""
    at = [None if array is None else array.ctypes.data for array in (source, out)]
    return Arrays(*at, count)


@functools.cache
def load() -> Emulation:
    """Build and load them, or skip the test that asks."""
    if compiler() is None:
        pytest.skip("no C++ compiler to build the emulation with")
    return Emulation(build([text()]))
