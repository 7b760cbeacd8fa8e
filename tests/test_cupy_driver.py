"""What the driver asks of CuPy, on a stand-in; and what it says where there is no GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cuda_compile import CUPY_OPTIONS

import rnncore as rc
from rnncore import _rnncore
from rnncore.cuda import driver, errors, sources
from rnncore.cuda.cupy_driver import CupyDriver
from rnncore.errors import DeviceError

ROOT = Path(__file__).parents[1]


class CompileException(Exception):
    """As CuPy's, of no kind but Exception."""


class FakeCupy(SimpleNamespace):
    """As much of CuPy as the driver may use; it notes down what was asked of it."""

    def __init__(self) -> None:
        super().__init__(__version__="14.2.0", device=0, gpus=2, log=[], wrong={})
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                getDeviceCount=lambda: self._answer("count", self.gpus),
                getDevice=lambda: self._answer("device", self.device),
            ),
            device=SimpleNamespace(get_cublas_handle=self._cublas),
            compiler=SimpleNamespace(CompileException=CompileException),
            get_current_stream=lambda: SimpleNamespace(ptr=0x51),
            alloc_pinned_memory=self._pin,
        )

    def _pin(self, size: int) -> PinnedMemory:
        memory = PinnedMemory(b"\x01" * size)
        self.log.append(("pin", memory))
        return self._answer("pin", memory)

    def empty(self, size: int, dtype: str) -> Any:
        return SimpleNamespace(shape=(size,), dtype=dtype)

    def _answer(self, what: str, value: Any) -> Any:
        if what in self.wrong:
            raise self.wrong[what]
        return value

    def _cublas(self) -> int:
        self.log.append(("cublas", self.device))
        return self._answer("cublas", 7)

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> Any:
        self.log.append(("compile", self.device, code, options))
        time.sleep(0.01)  # so that threads would meet here
        self._answer("compile", None)
        place = len(self.log) << 20

        def get_function(name: str) -> Any:
            assert f"RNNCORE_KERNEL({name}," in code
            return SimpleNamespace(kernel=SimpleNamespace(ptr=place + code.index(name)))

        return SimpleNamespace(get_function=get_function)

    def compiled(self) -> list[str]:
        return [entry[2] for entry in self.log if entry[0] == "compile"]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    """Put a stand-in in CuPy's place, and count what the core is asked."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)

    def cuda_device() -> int:
        fake.log.append(("table", fake.device))
        return 0x1000 + fake.device

    def make_program(table: int, kernels: dict[str, int], width: int) -> Any:
        return SimpleNamespace(table=table, kernels=kernels)

    monkeypatch.setattr(_rnncore, "cuda_device", cuda_device, raising=False)
    monkeypatch.setattr(_rnncore, "CudaProgram", make_program)
    return fake


class PinnedMemory(bytearray):
    """Memory of the host that kernels may write, as CuPy hands it out."""

    @property
    def ptr(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self))


# --- lengths --------------------------------------------------------------------------------------


def test_the_word_that_lengths_set_is_pinned_once_and_watched(cupy: FakeCupy) -> None:
    device = CupyDriver()
    assert "pin" not in [entry[0] for entry in cupy.log]
    try:
        address = device.beyond_lengths()
        assert device.beyond_lengths() == address
        ((_, memory),) = [entry for entry in cupy.log if entry[0] == "pin"]
        assert memory.ptr == address
        errors.raise_pending()  # what was in the memory before is no word of ours
        ctypes.c_int32.from_address(address).value = 1
        with pytest.raises(DeviceError, match="lengths: expected 0 to T, got others in an earlier"):
            errors.raise_pending()
        errors.raise_pending()
    finally:
        errors.unwatch(device._beyond)


def test_no_pinned_memory_is_a_device_error(cupy: FakeCupy) -> None:
    cupy.wrong["pin"] = RuntimeError("cudaErrorMemoryAllocation: out of memory")
    with pytest.raises(DeviceError, match="pinned memory failed: cudaErrorMemoryAllocation"):
        CupyDriver().beyond_lengths()


# --- kernels --------------------------------------------------------------------------------------


def test_a_program_is_compiled_once_and_the_common_part_once_for_all_cells(cupy: FakeCupy) -> None:
    device = CupyDriver()
    assert cupy.compiled() == []
    lstm = device.program("lstm", "float32", False, 0)
    assert device.program("lstm", "float32", False, 0) is lstm
    assert len(cupy.compiled()) == 2
    device.program("lstm", "float32", True, 0)
    device.program("gru", "float32", False, 0)
    assert len(cupy.compiled()) == 4
    device.program("gru", "float16", False, 0)
    assert len(cupy.compiled()) == len(set(cupy.compiled())) == 6


def test_a_program_holds_the_pointers_of_both_its_modules(cupy: FakeCupy) -> None:
    made = CupyDriver().program("gru_reset_before", "bfloat16", True, 0)
    assert {"copy_rows", "forward_gates_1", "normalised_gates_backward_1"} <= set(made.kernels)
    pointers = list(made.kernels.values())
    assert len(set(pointers)) == len(pointers)
    assert len({pointer >> 20 for pointer in pointers}) == 2
    common, own = cupy.compiled()
    name = "rnncore_forward_gates_1_gru_reset_before_bfloat16_options"
    assert made.kernels["forward_gates_1"] & 0xFFFFF == own.index(name)
    assert made.kernels["copy_rows"] & 0xFFFFF == common.index("rnncore_copy_rows_bfloat16")


def test_every_device_has_programs_and_a_table_of_its_own(cupy: FakeCupy) -> None:
    device = CupyDriver()
    first = device.program("lstm", "float32", False, 0)
    cupy.device = 1
    second = device.program("lstm", "float32", False, 0)
    cupy.device = 0
    assert device.program("lstm", "float32", False, 0) is first
    device.program("gru", "float32", False, 0)
    assert (first.table, second.table) == (0x1000, 0x1001)
    assert [entry for entry in cupy.log if entry[0] in {"cublas", "table"}] == [
        ("cublas", 0),
        ("table", 0),
        ("cublas", 1),
        ("table", 1),
    ]


def test_threads_that_ask_at_once_get_one_program(cupy: FakeCupy) -> None:
    device, made = CupyDriver(), []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        made.append(device.program("lstm", "float32", False, 0))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert all(one is made[0] for one in made)
    assert len(cupy.compiled()) == 2


def test_options_name_the_packages_text_and_carry_its_contents(cupy: FakeCupy) -> None:
    CupyDriver().program("lstm", "float32", False, 0)
    options = [entry[3] for entry in cupy.log if entry[0] == "compile"]
    assert options == [sources.compile_options()] * 2
    standard, include, contents = options[0]
    assert standard == "--std=c++17"
    assert (Path(include.removeprefix("-I")) / "cuda" / "device.cuh").exists()
    assert contents == f"-DRNNCORE_SOURCES=0x{sources.digest(sources.FOLDER)}"


@pytest.mark.parametrize("changed", ["cells/lstm.h", "cuda/rows.cuh", "cuda/arguments.h"])
def test_the_digest_follows_every_header(tmp_path: Path, changed: str) -> None:
    for part in sources.PARTS:
        shutil.copytree(sources.FOLDER / part, tmp_path / part)
    before = sources.digest(tmp_path)
    assert before == sources.digest(sources.FOLDER)
    with (tmp_path / changed).open("a") as header:
        header.write("// one line more\n")
    assert sources.digest(tmp_path) != before
    shutil.copy(sources.FOLDER / changed, tmp_path / changed)
    assert sources.digest(tmp_path) == before
    (tmp_path / changed).rename((tmp_path / changed).with_name("renamed.h"))
    assert sources.digest(tmp_path) != before


# --- memory and streams ---------------------------------------------------------------------------


def test_memory_is_bytes_and_the_stream_is_the_current_one(cupy: FakeCupy) -> None:
    device = CupyDriver()
    memory = device.empty(12)
    assert (memory.shape, memory.dtype) == ((12,), "uint8")
    assert device.stream() == 0x51


def test_the_driver_in_use_is_cupys_and_stays(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_current", None)
    assert isinstance(driver.current(), CupyDriver)
    assert driver.current() is driver.current()


# --- errors ---------------------------------------------------------------------------------------


def test_without_cupy_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(driver, "_current", None)
    with pytest.raises(DeviceError, match=r"expected CuPy 14 .*\n?.*rnncore\[cuda13\]"):
        driver.current()
    assert driver._current is None


@pytest.mark.parametrize("version", ["13.6.0", "9.0"])
def test_an_old_cupy_is_refused(cupy: FakeCupy, version: str) -> None:
    cupy.__version__ = version
    with pytest.raises(DeviceError, match=f"expected CuPy 14 or newer, got {version}"):
        CupyDriver()


def test_a_cupy_that_does_not_load_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13: no such file')")
    program = "from rnncore.cuda.cupy_driver import CupyDriver; CupyDriver()"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rnncore.errors.DeviceError: device 'cuda': CuPy does not load: libcud")


def test_a_machine_without_a_gpu_is_told(cupy: FakeCupy) -> None:
    cupy.wrong["count"] = RuntimeError("cudaErrorInsufficientDriver: too old")
    with pytest.raises(DeviceError, match=r"CuPy 14\.2\.0 finds no GPU.*cudaErrorInsufficient"):
        CupyDriver()
    cupy.wrong.clear()
    cupy.gpus = 0
    with pytest.raises(DeviceError, match="finds no GPU"):
        CupyDriver()


@pytest.mark.parametrize(
    ("where", "error", "expected"),
    [
        (
            "compile",
            CompileException("rows.cuh(7): error: nothing"),
            r"lstm|float32.*rows.cuh\(7\)",
        ),
        (
            "compile",
            RuntimeError("Failed to find CUDA headers."),
            r"headers(.|\n)*rnncore\[cuda12\]",
        ),
        (
            "compile",
            RuntimeError("Failure finding libnvrtc.so"),
            r"libnvrtc(.|\n)*rnncore\[cuda13\]",
        ),
        ("compile", OSError("disk is full"), r"kernels for float32 failed: disk is full$"),
        ("cublas", ImportError("libcublas.so.13"), r"cuBLAS.*failed(.|\n)*rnncore\[cuda13\]"),
        (
            "device",
            RuntimeError("cudaErrorUnknown"),
            r"the current device failed: cudaErrorUnknown$",
        ),
    ],
)
def test_what_fails_is_a_device_error_and_may_be_tried_again(
    cupy: FakeCupy, where: str, error: Exception, expected: str
) -> None:
    device = CupyDriver()
    cupy.wrong[where] = error
    with pytest.raises(DeviceError, match=expected) as raised:
        device.program("lstm", "float32", False, 0)
    assert raised.value.__cause__ is error
    cupy.wrong.clear()
    assert device.program("lstm", "float32", False, 0).kernels


def test_memory_that_runs_out_stays_a_memory_error(cupy: FakeCupy) -> None:
    device = CupyDriver()
    cupy.wrong["compile"] = MemoryError("out of memory")
    with pytest.raises(MemoryError):
        device.program("lstm", "float32", False, 0)


# --- CuPy itself ----------------------------------------------------------------------------------


@pytest.fixture
def real_cupy() -> Any:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    import cupy

    return cupy


def test_cupy_has_every_name_that_the_driver_uses(real_cupy: Any) -> None:
    module = real_cupy.RawModule(code="", options=sources.compile_options())
    assert callable(module.get_function)
    assert hasattr(real_cupy.RawKernel, "kernel")
    assert hasattr(real_cupy.cuda.function.Function, "ptr")
    assert callable(real_cupy.cuda.device.get_cublas_handle)
    assert callable(real_cupy.cuda.get_current_stream)
    assert callable(real_cupy.cuda.runtime.getDevice)
    assert issubclass(real_cupy.cuda.compiler.CompileException, Exception)
    assert issubclass(real_cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert issubclass(real_cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_cupy_without_a_gpu_says_so(real_cupy: Any) -> None:
    if real_cupy.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(rc.DeviceError, match=r"CuPy \d+.* finds no GPU"):
        CupyDriver()


def test_the_gates_add_the_options_that_cupy_adds(
    real_cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, seen = real_cupy.cuda.compiler, []

    class Program:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

        def compile(self, options: tuple[str, ...], *rest: Any) -> None:
            seen.append(options)
            raise CompileException

    def architecture(number: str) -> tuple[str, str]:
        return f"-arch=sm_{number}", "cubin"

    # What would look for a GPU, or for NVRTC.
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", architecture)
    monkeypatch.setattr(compiler, "_nvrtc_version", (13, 0))
    monkeypatch.setattr(compiler, "_preprocess", lambda *args: "")
    monkeypatch.setattr(compiler, "_empty_file_preprocess_cache", {})
    monkeypatch.setattr(compiler, "_NVRTCProgram", Program)
    monkeypatch.setattr(compiler, "CompileException", CompileException)
    with pytest.raises(CompileException):
        compiler._compile_with_cache_cuda("", ("given",), "90", cache_in_memory=True)
    assert [set(options) for options in seen] == [{"given", "-arch=sm_90", *CUPY_OPTIONS}]
