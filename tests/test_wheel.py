"""The wheel that comes out of the sdist: what is in it, and that it runs with NumPy alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import rnncore

ROOT = Path(__file__).parents[1]
MEGABYTE = 1_000_000

pytestmark = pytest.mark.nightly

SMOKE = """
import importlib.metadata, pathlib
import numpy as np
import rnncore as rc

here = pathlib.Path(rc.__file__).parent
assert "site-packages" in str(here), here
assert (pathlib.Path(rc.get_include()) / "rnncore").is_dir()
needed = [line for line in importlib.metadata.requires("rnncore") if "extra" not in line]
assert len(needed) == 1 and needed[0].startswith("numpy"), needed
for isa in rc.show_config("dicts")["isa"]["supported"]:
    assert isa in {"baseline", "avx2", "avx512"}, isa
x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")
for layer in (rc.RNN(4, 6), rc.LSTM(4, 6, 2, bidirectional=True), rc.GRU(4, 6)):
    y, _ = layer.forward(x)
    dx, _ = layer.backward(np.ones_like(y))
    assert np.isfinite(dx).all() and np.abs(dx).max() > 0
    rc.save("layer.safetensors", layer)
    assert np.array_equal(rc.load("layer.safetensors")(x)[0], layer(x)[0])
stream = rc.GRU(4, 6).freeze().stream(batch=3)
assert stream.step(x[0]).shape == (3, 6)
print("smoke passed")
"""


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, sdist, cwd=folder)
    (archive,) = folder.glob("*.whl")
    return archive


def test_the_sdist_holds_the_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for needed in ("LICENSE", "Makefile", "setup.py", "src/_stream.pyx", "tests/test_codebase.py"):
        assert needed in names
    assert any(name.startswith("csrc/kernels/") for name in names)
    assert [name for name in names if name.endswith((".so", ".o", ".pyc"))] == []


def test_the_wheel_is_small_and_complete(wheel: Path) -> None:
    assert wheel.stat().st_size < 5 * MEGABYTE
    names = zipfile.ZipFile(wheel).namelist()
    assert "rnncore/py.typed" in names
    assert "rnncore/_rnncore.pyi" in names
    assert "rnncore/_stream.pyi" in names
    assert "rnncore/_inference.pyi" in names
    assert "rnncore/cyapi.pxd" in names
    for folder, link in (
        ("csrc/include/rnncore", "include/rnncore"),
        ("csrc/cells", "_csrc/cells"),
    ):
        for header in (ROOT / folder).glob("*.h"):
            assert f"rnncore/{link}/{header.name}" in names
    kernels = [*(ROOT / "csrc/cuda").glob("*.cuh"), ROOT / "csrc/cuda/arguments.h"]
    assert {f"rnncore/_csrc/cuda/{path.name}" for path in kernels} == {
        name for name in names if name.startswith("rnncore/_csrc/cuda/")
    }
    for source in (ROOT / "rnncore").rglob("*.py"):
        assert str(source.relative_to(ROOT)) in names
    modules = {name.partition(".")[0] for name in names if name.endswith(".so")}
    assert modules == {"rnncore/_rnncore", "rnncore/_stream", "rnncore/_inference"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "rnncore",
        f"rnncore-{rnncore.__version__}.dist-info",
    }


def test_the_wheel_runs_elsewhere_with_numpy_alone(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    installed = run(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path)
    packages = {line.split("==")[0].split(" ")[0] for line in installed.splitlines()}
    assert packages <= {"numpy", "pip", "rnncore", "setuptools"}
    (tmp_path / "elsewhere").mkdir()
    assert "smoke passed" in run(python, "-c", SMOKE, cwd=tmp_path / "elsewhere")
    assert f"{rnncore.__version__}" in run(
        tmp_path / "venv" / "bin" / "rnncore", "show-config", cwd=tmp_path / "elsewhere"
    )
