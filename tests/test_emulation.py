"""The emulation that kernels are tested in: it runs right ones right, and finds what is wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from emulation import small_kernels
from emulation.bindings import DeviceFailure, Emulation
from emulation.build import ROOT, BuildError, build
from emulation.small_kernels import arrays

SEEDS = range(20)
AT = r"tests/emulation/small_kernels\.cuh:\d+"  # a place in the kernels' text


@pytest.fixture
def device() -> Emulation:
    emulation = small_kernels.load()
    emulation.seed(0)
    return emulation


def whole(shape: int, dtype: str, seed: int = 5) -> np.ndarray:
    """Draw whole numbers, whose sums are exact in any order."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(dtype)


def sum_blocks(device: Emulation, kernel: str, dtype: str = "float32") -> np.ndarray:
    source, out = whole(700, dtype), np.full(3, np.nan, dtype)
    with device.memory(source, out):
        device.launch(kernel, arrays(source, out, 700), blocks=(3, 1), threads=256, shared=64)
    expected = [source[first : first + 256].sum(dtype="float64") for first in (0, 256, 512)]
    np.testing.assert_array_equal(out, expected)
    return out


def failure_of(device: Emulation, kernel: str, *values: object, **options: object) -> str:
    """Run a kernel that is wrong, and return the report."""
    with pytest.raises(DeviceFailure) as caught:
        device.launch(kernel, arrays(*values), **options)
    return str(caught.value)


# --- right ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["float", "double"])
def test_a_right_reduction_is_right_in_any_order_of_threads(
    device: Emulation, kind: str, seed: int
) -> None:
    device.seed(seed)
    sum_blocks(device, f"entry_sum_{kind}", {"float": "float32", "double": "float64"}[kind])


def test_a_shuffle_gives_each_lane_the_value_that_its_mask_leads_to(device: Emulation) -> None:
    out, lanes = np.zeros(96), np.arange(96)
    with device.memory(out):
        device.launch("entry_exchange", arrays(None, out, 0), threads=96)
    np.testing.assert_array_equal(out, 100 * (lanes ^ 3) + (lanes ^ 1))


def test_a_grid_of_more_threads_than_run_at_once_runs_them_all(device: Emulation) -> None:
    source, out = whole(20 * 3 * 256, "float64"), np.zeros(20 * 3 * 256)
    with device.memory(source, out):
        device.launch("entry_copy_from_double", arrays(source, out, 0), blocks=(20, 3), threads=256)
    np.testing.assert_array_equal(out, source)


@pytest.mark.parametrize("kind", ["byte", "float", "double"])
def test_neighbours_that_write_side_by_side_do_not_race(device: Emulation, kind: str) -> None:
    dtype = {"byte": "uint8", "float": "float32", "double": "float64"}[kind]
    source, out = whole(128, "int8").astype(dtype), np.zeros(128, dtype)
    with device.memory(source, out):
        device.launch(f"entry_copy_from_{kind}", arrays(source, out, 0), blocks=(2, 1), threads=64)
    np.testing.assert_array_equal(out, source)


def test_the_order_of_threads_follows_from_the_seed(device: Emulation) -> None:
    def last_to_write(seed: int) -> int:
        device.seed(seed)
        out = np.full(1, -1, "int32")
        with device.memory(out):
            failure_of(device, "entry_write_together", None, out, 0, blocks=(2, 2), threads=32)
        return int(out[0])

    assert [last_to_write(seed) for seed in SEEDS] == [last_to_write(seed) for seed in SEEDS]
    assert len({last_to_write(seed) for seed in SEEDS}) > len(SEEDS) // 2


def test_launches_of_several_host_threads_take_turns(device: Emulation) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: sum_blocks(device, "entry_sum_float"), range(40)))
    assert all((result == results[0]).all() for result in results)


# --- races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("which", ["first", "second"])
def test_a_barrier_left_out_is_a_race_in_any_order(
    device: Emulation, which: str, seed: int
) -> None:
    device.seed(seed)
    with pytest.raises(
        DeviceFailure, match=r"races: .* of 64 of shared memory, which block \("
    ) as e:
        sum_blocks(device, f"entry_sum_without_{which}_barrier")
    assert f"kernel entry_sum_without_{which}_barrier, 3 x 1 blocks of 256 threads:" in str(e.value)
    assert re.search(
        r"tests/emulation/small_kernels\.cuh:\d+: block \(\d, 0\) thread", str(e.value)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_no_barrier_orders_two_blocks(device: Emulation, seed: int) -> None:
    device.seed(seed)
    out = np.zeros(1, "int32")
    with device.memory(out):
        report = failure_of(device, "entry_hand_over", None, out, 0, blocks=(2, 1), threads=32)
        assert re.search(r"races: (reads|writes) 4 bytes at byte 0 of allocation \d+ of 4", report)
        device.launch("entry_hand_over", arrays(None, out, 0), blocks=(1, 1), threads=32)


@pytest.mark.parametrize("blocks", [(1, 1), (2, 1)])
def test_writing_the_same_value_twice_is_a_race(device: Emulation, blocks: tuple[int, int]) -> None:
    out = np.zeros(1, "int32")
    with device.memory(out):
        report = failure_of(device, "entry_write_the_same", None, out, 0, blocks=blocks, threads=2)
        device.launch("entry_write_the_same", arrays(None, out, 0), threads=1)
    assert "wrote at tests/emulation/small_kernels.cuh" in report


@pytest.mark.parametrize("byte", [0, 3])
def test_a_byte_of_another_threads_word_is_a_race(device: Emulation, byte: int) -> None:
    out = np.zeros(2, "int32")
    with device.memory(out):
        report = failure_of(device, "entry_write_word_and_byte", None, out, byte, threads=2)
        device.launch("entry_write_word_and_byte", arrays(None, out, 4), threads=2)
    assert "races: writes" in report


def script_races(script: np.ndarray, threads: int) -> bool:
    """Look at every two accesses of a script, by epoch and thread of the grid."""
    accesses = [
        (thread // threads, line // 2, thread, (what - 1) // 2, what % 2 == 0)
        for (line, thread), what in np.ndenumerate(script)
        if what
    ]
    for block, epoch, thread, word, writes in accesses:
        for other in accesses:
            apart = other[0] != block or (other[1] == epoch and other[2] != thread)
            if apart and other[3] == word and (writes or other[4]):
                return True
    return False


def test_races_are_found_where_two_accesses_have_one_and_nowhere_else(device: Emulation) -> None:
    rng = np.random.default_rng(8)
    found = []
    for round_ in range(4000):
        lines, blocks, threads = (int(size) for size in rng.integers(1, [7, 4, 4]))
        shape = (lines, blocks * threads)
        writes, accesses, words = rng.random(3) ** [3, 1, 1]
        script = 2 * rng.integers(0, 1 + int(4 * words), shape, dtype="int32") + 1
        script += rng.random(shape) < writes
        script[rng.random(shape) > accesses] = 0
        out = np.zeros(4, "int32")
        device.seed(round_)
        options = {"blocks": (blocks, 1), "threads": threads}
        with device.memory(script, out):
            found.append(script_races(script, threads))
            if found[-1]:
                report = failure_of(device, "entry_follow_script", script, out, lines, **options)
                assert "races: " in report
            else:
                device.launch("entry_follow_script", arrays(script, out, lines), **options)
    assert 800 < sum(found) < 3200


# --- threads that cannot go on --------------------------------------------------------------------

STUCK = [
    # what, block of threads, which of them go elsewhere, report
    (
        "barrier_or_shuffle",
        32,
        5,
        rf"deadlock: block \(0, 0\) cannot go on: threads 0-4 wait in block_barrier at {AT}; "
        rf"threads 5-31 wait in shuffle_xor at {AT}",
    ),
    (
        "barrier_without_some",
        64,
        1,
        rf"divergent barrier: .*: threads 0 ended; threads 1-63 wait in block_barrier at {AT}",
    ),
    ("two_barriers", 64, 40, rf"in a divergent barrier meets thread \d+ in the one at {AT}"),
    (
        "shuffle_without_some",
        64,
        3,
        r"divergent shuffle: .*: threads 0-2, 32-63 ended; "
        rf"threads 3-31 wait in shuffle_xor at {AT}",
    ),
    ("two_shuffles", 32, 7, rf"in a divergent shuffle meets thread \d+ in the one at {AT}"),
    ("two_shuffles", 48, 0, r"shuffles with mask 1 in a block of 48 threads; warps of 32 do"),
]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("kernel", "threads", "some", "report"), STUCK)
def test_threads_that_wait_apart_are_reported(
    device: Emulation, kernel: str, threads: int, some: int, report: str, seed: int
) -> None:
    device.seed(seed)
    assert re.search(
        report, failure_of(device, f"entry_{kernel}", None, None, some, threads=threads)
    )


@pytest.mark.parametrize("kernel", ["barrier_without_some", "two_barriers", "two_shuffles"])
def test_threads_that_wait_together_are_not(device: Emulation, kernel: str) -> None:
    device.launch(f"entry_{kernel}", arrays(None, None, 0), threads=64)


# --- memory ---------------------------------------------------------------------------------------


def test_shared_memory_that_nobody_wrote_is_reported(device: Emulation) -> None:
    device.launch("entry_read_shared", arrays(None, None, 15), threads=32, shared=32)
    report = failure_of(device, "entry_read_shared", None, None, 16, threads=32, shared=32)
    assert "reads unwritten 1 bytes at byte 16 of 32 of shared memory (and 31 more)" in report


@pytest.mark.parametrize("byte", [32, -1])
def test_reads_out_of_shared_memory_are_reported(device: Emulation, byte: int) -> None:
    report = failure_of(device, "entry_read_shared", None, None, byte, threads=32, shared=32)
    assert f"reads out of bounds 1 bytes at byte {byte} of 32 of shared memory" in report


@pytest.mark.parametrize("beyond", ["in", "out"])
@pytest.mark.parametrize("first", [-1, 1])
def test_accesses_out_of_bounds_are_reported_and_left_undone(
    device: Emulation, beyond: str, first: int
) -> None:
    source, out = whole(66, "float64"), np.full(66, np.nan)
    inner = {"in": source, "out": out}[beyond][1:65]
    with device.memory(*((inner, out) if beyond == "in" else (source, inner))):
        values = (source[1:], out[1:], first)
        report = failure_of(device, "entry_copy_from_double", *values, threads=64)
    what = {"in": "reads", "out": "writes"}[beyond]
    where = "0 bytes past the end of" if first == 1 else "8 bytes before"
    assert re.search(f"{what} out of bounds 8 bytes at memory of no allocation, .*{where}", report)
    lost = 65 if first == 1 else 0
    assert np.isnan(out[lost]) if beyond == "out" else out[lost] == 0
    kept = slice(2, 65) if first == 1 else slice(1, 64)
    np.testing.assert_array_equal(out[kept], source[kept])


def test_a_null_pointer_is_reported(device: Emulation) -> None:
    report = failure_of(device, "entry_copy_from_float", None, None, 0, threads=1)
    assert "reads out of bounds 4 bytes at memory of no allocation, a null pointer" in report


def test_misaligned_accesses_are_reported(device: Emulation) -> None:
    source = whole(32, "float32")
    with device.memory(source):
        device.launch("entry_read_askew", arrays(source, None, 4), threads=31)
        report = failure_of(device, "entry_read_askew", source, None, 2, threads=31)
    assert re.search(r"reads misaligned 4 bytes at byte \d+ of allocation \d+ of 128", report)
    if shutil.which("addr2line"):
        assert re.search(rf"\n  {AT} < {AT}: block", report)  # read_askew called look_at


# --- the words' twins -----------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc to compile for a GPU with")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_same_text_compiles_for_a_gpu(architecture: str, tmp_path: Path) -> None:
    (tmp_path / "entries.cu").write_text(small_kernels.text())
    command = ["nvcc", "-cubin", "-std=c++17", f"-arch={architecture}", "-Icsrc", "-Itests"]
    command += ["-Werror", "all-warnings", "-o", str(tmp_path / "entries.cubin")]
    command.append(str(tmp_path / "entries.cu"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "entries.cubin").read_bytes()
    assert all(f"entry_{name}".encode() in made for name in small_kernels.ENTRIES)


def test_a_text_that_does_not_compile_is_an_error_with_the_compilers_words(
    device: Emulation,
) -> None:
    with pytest.raises(BuildError, match="no_such_word"):
        build(['#include "cuda/device.cuh"\nint x = no_such_word();\n'])
