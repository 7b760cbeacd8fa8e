"""GPUs that are not there, errors they leave behind, and what is said of them."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import on_device
import pytest
import stand_in_cupy
from both_backends import normal
from processes import TESTS, output_of

import rnncore as rc
from rnncore.cuda import errors

pytestmark = pytest.mark.host_only

INSTALL = re.escape("'cuda' needs CuPy: pip install 'rnncore[cuda13]'")


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)


ASKED = {
    "layer": lambda: rc.LSTM(3, 4, device="cuda"),
    "second": lambda: rc.RNN(3, 4, device="cuda:1"),
    "cell": lambda: rc.GRUCell(3, 4, device="cuda"),
    "to": lambda: rc.GRU(3, 4).to("cuda"),
    "stack": lambda: rc.Stack([rc.GRU(3, 4)]).to("cuda"),
}


@pytest.mark.parametrize("how", ASKED)
def test_without_cupy_the_error_says_what_to_install(how: str, no_cupy: None) -> None:
    with pytest.raises(rc.DeviceError, match=f"device: {INSTALL}.*cuda12"):
        ASKED[how]()


def test_a_broken_cupy_is_told_as_such(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "cupy.py").write_text("import libcudart_of_another_version\n")
    with pytest.raises(rc.DeviceError, match="CuPy cannot be imported: No module named 'libcudart"):
        rc.GRU(3, 4, device="cuda")
    (tmp_path / "cupy.py").write_text("raise OSError('libnvrtc.so is damaged')\n")
    with pytest.raises(rc.DeviceError, match=r"CuPy cannot be imported: libnvrtc\.so is damaged"):
        rc.GRU(3, 4, device="cuda")


def test_without_a_driver_the_error_says_what_failed() -> None:
    with stand_in_cupy.installed(gpus=0):
        with pytest.raises(rc.DeviceError, match=r"a GPU that CUDA can use.*InsufficientDriver"):
            rc.GRU(3, 4, device="cuda")
        rc.cuda.check()


def test_a_gpu_that_is_not_there_is_named_beside_those_that_are() -> None:
    with on_device.stand_in():
        words = re.escape("a GPU of this machine ('cuda:0', 'cuda:1'), got 'cuda:7'")
        with pytest.raises(rc.DeviceError, match=words):
            rc.GRU(3, 4, device="cuda:7")
        layer = rc.GRU(3, 4, device="cuda")
        with pytest.raises(rc.DeviceError, match=words):
            layer.to("cuda:7")
        assert layer.device == "cuda:0"


def test_senseless_arguments_are_told_before_the_device_is_looked_for(no_cupy: None) -> None:
    with pytest.raises(ValueError, match="dtype: expected 'float32', 'float64', 'float16' or 'bf"):
        rc.GRU(3, 4, dtype="int8", device="cuda")
    with pytest.raises(ValueError, match="hidden_size"):
        rc.GRU(3, 0, device="cuda")
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'cuda:'"):
        rc.GRU(3, 4, device="cuda:")


def test_a_file_is_read_before_the_device_is_looked_for(tmp_path, no_cupy: None) -> None:
    rc.save(tmp_path / "layer", rc.GRU(3, 4, seed=1))
    with pytest.raises(rc.DeviceError, match=INSTALL):
        rc.load(tmp_path / "layer", device="cuda")
    with pytest.raises(ValueError, match="device: expected"):
        rc.load(tmp_path / "layer", device="gpu")


def test_importing_and_running_on_the_cpu_never_looks_for_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise SystemExit('cupy was imported')\n")
    found = os.pathsep.join(map(str, (tmp_path, TESTS, TESTS.parent)))
    told = output_of(
        """
        layer = rc.LSTM(3, 4, seed=1)
        y, _ = layer.forward(np.ones((2, 1, 3), "f4"))
        layer.backward(y)
        layer.freeze()(np.ones((2, 1, 3), "f4"))
        rc.cuda.check()
        rc.allow_tf32(True)
        maps = open("/proc/self/maps").read()
        print("cupy" in sys.modules, "libcuda" in maps, "libnvrtc" in maps)
        """,
        env={"PYTHONPATH": found},
    )
    assert told == "False False False"


# --- show_config ----------------------------------------------------------------------------------


def test_the_configuration_tells_of_gpus() -> None:
    with on_device.stand_in():
        state = rc.show_config("dicts")["cuda"]
    assert state["cupy"] == "14.0"
    assert state["devices"][1] == "cuda:1 Stand-in, compute capability 9.0"
    assert state["runtime"] == 13000
    assert "reason" not in state


def test_the_configuration_tells_why_there_is_no_gpu(no_cupy: None) -> None:
    state = rc.show_config("dicts")["cuda"]
    assert state["cupy"] is None
    assert state["devices"] == []
    assert "pip install" in state["reason"]
    with stand_in_cupy.installed(gpus=0):
        state = rc.show_config("dicts")["cuda"]
    assert state["cupy"] == "14.0"
    assert "cudaErrorInsufficientDriver" in state["reason"]


# --- TF32 -----------------------------------------------------------------------------------------


def test_tf32_is_forbidden_until_it_is_allowed() -> None:
    assert rc.tf32_allowed() is False
    try:
        rc.allow_tf32(True)
        assert rc.tf32_allowed() is True
        assert rc.show_config("dicts")["cuda"]["tf32"] is True
        with pytest.raises(TypeError, match="enabled: expected True or False, got 1"):
            rc.allow_tf32(1)
        assert rc.tf32_allowed() is True
    finally:
        rc.allow_tf32(False)
    assert rc.tf32_allowed() is False


# --- errors that earlier calls left behind --------------------------------------------------------


def test_check_raises_what_was_left_behind_once() -> None:
    errors.post("lengths: expected 0 to 5, got 7")
    with pytest.raises(rc.DeviceError, match=r"an earlier call failed.*expected 0 to 5, got 7"):
        rc.cuda.check()
    rc.cuda.check()


def test_messages_of_any_thread_and_of_what_is_watched_come_together() -> None:
    left = ["the watchdog stopped a kernel"]

    def poll() -> str | None:
        return left.pop() if left else None

    errors.watch(poll)
    errors.watch(poll)
    try:
        thread = threading.Thread(target=errors.post, args=("one",))
        thread.start()
        thread.join()
        with pytest.raises(rc.DeviceError, match="one; the watchdog stopped a kernel"):
            rc.cuda.check()
        rc.cuda.check()
        left.append("unseen")
    finally:
        errors.unwatch(poll)
    rc.cuda.check()


def test_the_next_call_on_a_gpu_raises_what_was_left_behind() -> None:
    with on_device.stand_in() as cupy:
        layer, x = rc.GRU(3, 4, device="cuda"), cupy.asarray(normal(5, 2, 3))
        before = layer.rng_state
        errors.post("lengths: expected 0 to 5, got 7")
        with pytest.raises(rc.DeviceError, match="expected 0 to 5, got 7"):
            layer.forward(x)
        assert layer.rng_state == before
        y, _ = layer.forward(x)
        errors.post("again")
        with pytest.raises(rc.DeviceError, match="again"):
            layer.backward(y)
        layer.backward(y)
    errors.post("not of the CPU")
    rc.GRU(3, 4)(np.ones((5, 2, 3), "f4"))
    with pytest.raises(rc.DeviceError, match="not of the CPU"):
        rc.cuda.check()


def test_check_waits_for_the_gpu_and_tells_that_it_failed(monkeypatch) -> None:
    def fail() -> None:
        raise stand_in_cupy.CUDARuntimeError(700, "cudaErrorIllegalAddress")

    with stand_in_cupy.installed() as cupy:
        assert isinstance(cupy, ModuleType)
        monkeypatch.setattr(cupy.cuda.runtime, "deviceSynchronize", fail)
        with pytest.raises(rc.DeviceError, match="the device failed: cudaErrorIllegalAddress"):
            rc.cuda.check()
