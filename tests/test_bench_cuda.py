"""The benchmark on a GPU, end to end: CuPy stood in for, the GPU emulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import emulated_cuda as emulated
import numpy as np
import pytest
import stand_in_cupy
from emulation.build import compiler

from rnncore.bench import gpu, modes, peers
from rnncore.bench.cases import SETS, Case
from rnncore.bench.contest import disagreement
from rnncore.bench.peers.interface import Problem, Work
from rnncore.bench.peers.ours import NAME, answer
from rnncore.bench.peers.ours_cuda import OursOnGpu
from rnncore.cli import main

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation")

SMALL = ["--shapes", "LSTM:4,3,5,6", "LSTM:6,3,2,4,1,1,quarter"]


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnncore.bench.measure.MOST_PAUSES", 1)
    monkeypatch.setattr("rnncore.bench.measure.WARM", 1e-4)


@pytest.fixture
def device() -> Iterator[emulated.EmulatedDriver]:
    with emulated.emulated_layers() as device:
        yield device


def bench(folder: Path, *arguments: str) -> int:
    return main(
        ["bench", "--device", "cuda", "--seconds", "0.01", "--threads", "1", "--out", str(folder),
         *arguments]
    )  # fmt: skip


def test_a_run_writes_what_it_measured_and_on_what(
    device: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert bench(tmp_path, *SMALL) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.stem == "cuda-stand-in-custom-inference-training"
    result = json.loads(path.read_text())
    found = result["conditions"]
    assert (found["device"], found["gpu"], found["cuda"]) == ("cuda", "Stand-in", 13000)
    assert (found["cupy"], found["driver"], found["tf32"]) == ("14.0", 13000, False)
    assert "--device cuda" in found["command"]
    assert result["finished"]
    assert len(result["rows"]) == 4
    for row in result["rows"]:
        ours = row["contenders"][NAME]
        assert ours["times"]["median_s"] > 0
        assert row["limit"] is None
        assert (row["tape_bytes"] or 0) > 0 or row["mode"] == "inference"
        ragged = "lengths=quarter" in row["case"]
        assert (modes.EQUAL in row["contenders"]) == ragged
    assert "Stand-in, driver 13000, CUDA 13000" in capsys.readouterr().out


def test_pytorch_without_a_gpu_says_so_in_its_row(device: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("PyTorch has a GPU, which the stand-in does not")
    assert bench(tmp_path, *SMALL, "--modes", "training", "--against", "torch", "--name", "x") == 0
    result = json.loads((tmp_path / "x.json").read_text())
    for row in result["rows"]:
        peer = row["contenders"]["PyTorch"]
        assert peer["times"] is None
        assert peer["problem"].startswith("not run: PyTorch ")
        assert peer["problem"].endswith(("was built without CUDA", "finds no GPU"))
    assert "cuDNN" in result["conditions"]["peers"]["PyTorch"]
    assert result["conditions"]["peers"]["PyTorch"].endswith("true float32")


def test_pytorch_computes_what_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the GPU's place, its modules and tensors go the same ways."""
    pytest.importorskip("torch")
    from rnncore.bench.peers import pytorch_cuda

    waits = []
    torch_there = SimpleNamespace(
        **{name: getattr(pytorch_cuda.torch, name) for name in ("from_numpy", "__version__")},
        cuda=SimpleNamespace(synchronize=lambda: waits.append(1)),
    )
    monkeypatch.setattr(pytorch_cuda, "placed", lambda problem: pytorch_cuda.moved(
        pytorch_cuda.pytorch.module_of(problem), problem))  # fmt: skip
    monkeypatch.setattr(pytorch_cuda, "moved", lambda what, problem: what)
    monkeypatch.setattr(pytorch_cuda, "torch", torch_there)
    peer = object.__new__(pytorch_cuda.OnGpu)
    problem = Problem(Case("GRU", 6, 4, 3, 5, layers=2, lengths="half"), "float32", 1)
    for mode in gpu.MODES:
        work, expected = modes.MODES[mode].ask(peer, problem), answer(problem, mode)
        got = work.check()
        assert set(got) == set(expected)
        assert not disagreement(got, expected, 1e-5)
        before = len(waits)
        work.run()
        assert len(waits) == before + 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("mode", gpu.MODES)
def test_other_dtypes_run_and_agree(mode: str, dtype: str, device: Any) -> None:
    pytest.importorskip("ml_dtypes")
    problem = Problem(Case("LSTM", 4, 3, 5, 6), dtype, 1)
    with stand_in_cupy.no_read_back():
        work = modes.MODES[mode].ask(OursOnGpu(), problem)
        results = work.run()
    wanted = Problem(problem.case, dtype, 1).spec.numpy_dtype.itemsize if dtype == "float64" else 2
    assert results["y"].dtype.itemsize == wanted
    got, expected = work.check(), answer(problem, mode)
    assert set(got) == set(expected)
    assert not disagreement(got, expected, 1e-9 if dtype == "float64" else 0.03)
    assert disagreement({**got, "y": got["y"] * 1.1}, expected, 0.03)


def test_what_is_timed_ends_when_the_gpu_has_done_it() -> None:
    order: list[str] = []
    work = Work(lambda: order.append("asked"), lambda: {"y": np.zeros(1)})
    gpu.until_done(work, lambda: order.append("done")).run()
    assert order == ["asked", "done"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modes", "streaming"], "modes: expected some of inference, training on 'cuda'"),
        (["--modes", "training", "variants"], "on 'cuda', got 'variants'"),
        (["--dtype", "int8"], "dtype: expected one of float32, float64, float16, bfloat16 on"),
        (["--shapes", "threads"], "shapes: 'threads' is for 'cpu', got device 'cuda'"),
        (["--against", "numpy"], "against: expected some of torch, got 'numpy'"),
    ],
)
def test_what_a_gpu_does_not_run_is_refused_before_anything_is_done(
    arguments: list[str], words: str, device: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert bench(tmp_path, *arguments) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_set_for_gpus_has_every_regime() -> None:
    cases = SETS["gpu"]
    assert len(set(cases)) == len(cases)
    assert {case.cell for case in cases} == {"LSTM", "GRU"}
    assert any(case.directions == 2 for case in cases)
    assert any(case.layers > 1 for case in cases)
    assert any(case.ragged for case in cases)
    assert min(case.H for case in cases) <= 32 < 2048 <= max(case.H for case in cases)


def test_a_peer_is_made_only_for_its_device() -> None:
    assert set(peers.PEERS["cuda"]) == {"torch"}
