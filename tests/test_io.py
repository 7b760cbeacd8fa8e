"""Saving and loading: what comes back, what stays on disk when something goes wrong."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore.io import load_tensors, save_tensors

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8"]
DTYPES += ["uint64", "uint32", "uint16", "uint8", "bool"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.safetensors"


def some_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {name: (100 * rng.normal(size=(3, 2))).astype(name) for name in DTYPES}
    arrays["a scalar"] = np.full((), 7.5)
    arrays["none"] = np.zeros((0, 3), "float32")
    arrays["every other"] = np.arange(24.0).reshape(4, 6)[::2, ::3]
    arrays['"quoted"\n\\ \N{GREEK SMALL LETTER SIGMA}'] = np.array([np.nan, -0.0, np.inf])
    return arrays


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def test_arrays_come_back_to_the_bit(path: Path) -> None:
    words = {"step": "10", "text": "\t\x00\x1f\N{GRINNING FACE}"}
    save_tensors(path, some_arrays(), words)
    tensors, metadata = load_tensors(path)
    assert_same(tensors, some_arrays())
    assert metadata == words
    assert all(array.flags.writeable for array in tensors.values())


def test_bfloat16_comes_back_to_the_bit(path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    arrays = {"b": np.arange(5).astype(ml_dtypes.bfloat16)}
    save_tensors(path, arrays)
    assert_same(load_tensors(path)[0], arrays)


def test_saving_what_is_no_layer_says_so_and_writes_nothing(path: Path) -> None:
    layer = rc.GRU(3, 4, seed=0)
    with pytest.raises(TypeError, match="layer: expected a layer or cell of rnncore, got str"):
        rc.save(layer, str(path))  # type: ignore[arg-type]
    assert not path.exists()


def test_nothing_at_all_can_be_saved(path: Path) -> None:
    save_tensors(path, {})
    assert load_tensors(path) == ({}, {})


def test_equal_contents_make_equal_files(path: Path) -> None:
    arrays = some_arrays()
    save_tensors(path, arrays)
    first = path.read_bytes()
    save_tensors(path, dict(reversed(arrays.items())))
    assert path.read_bytes() == first


def test_every_tensor_is_aligned_to_its_elements(path: Path) -> None:
    save_tensors(path, some_arrays(), {"odd": "x" * 13})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, array in some_arrays().items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0


def test_the_safetensors_package_reads_our_files(path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    save_tensors(path, some_arrays(), {"step": "10"})
    assert_same(package.load_file(path), some_arrays())


def test_we_read_the_safetensors_packages_files(path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    arrays = {name: np.ascontiguousarray(array) for name, array in some_arrays().items()}
    arrays.pop("a scalar")  # ascontiguousarray gives it an axis
    package.save_file(arrays, path, metadata={"made": "elsewhere"})
    tensors, metadata = load_tensors(path)
    assert_same(tensors, arrays)
    assert metadata == {"made": "elsewhere"}


@pytest.mark.parametrize(
    ("tensors", "error"),
    [
        ({"__metadata__": np.zeros(2)}, ValueError),
        ({"\ud800": np.zeros(2)}, ValueError),
        ({1: np.zeros(2)}, TypeError),
        ({"w": np.array([{}])}, TypeError),
        ({"w": np.zeros(2, complex)}, TypeError),
        ({"w": np.zeros(2, ">f4")}, TypeError),
        ({"w": np.zeros(2, "datetime64[s]")}, TypeError),
    ],
)
def test_what_has_no_place_in_a_file_is_refused_and_leaves_none(
    path: Path, tensors: dict[str, np.ndarray], error: type[Exception]
) -> None:
    with pytest.raises(error):
        save_tensors(path, tensors)
    assert list(path.parent.iterdir()) == []


def test_the_files_own_keys_cannot_be_given(path: Path) -> None:
    with pytest.raises(ValueError, match=r"rnncore\.digest"):
        save_tensors(path, {}, {"rnncore.digest": "0"})


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        rc.RNN(3, 5, nonlinearity="relu", seed=1),
        rc.LSTM(3, 5, 2, proj_size=2, bidirectional=True, dropout=0.5, seed=1),
        rc.GRU(3, 5, bias=False, batch_first=True, dtype="float64", seed=1),
        rc.LSTM(3, 5, stateful=True, forget_bias=1.0, seed=1),
        rc.Bidirectional(rc.GRU(3, 4, seed=2), merge="sum"),
        rc.Stack([rc.LSTM(3, 4, seed=1), rc.GRU(4, 2, seed=2)]),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_comes_back_with_options_parameters_and_random_state(
    path: Path, layer: rc.layers.Layer
) -> None:
    x = np.random.default_rng(3).normal(size=(4, 2, 3)).astype(layer.dtype)
    layer.forward(x)  # moves the random state on
    rc.save(path, layer)
    again = rc.load(path)
    assert repr(again) == repr(layer)
    assert again.rng_state == layer.rng_state
    assert_same(dict(again.params), dict(layer.params))
    if getattr(layer, "stateful", False):
        layer.reset_state()
    assert again(x)[0].tobytes() == layer(x)[0].tobytes()
    assert again.forward(x)[0].tobytes() == layer.forward(x)[0].tobytes()


def rewrite(path: Path, change: dict[str, np.ndarray | None], **description: object) -> None:
    """Save a layer's file again with other arrays or another description."""
    tensors, metadata = load_tensors(path)
    tensors |= {name: array for name, array in change.items() if array is not None}
    tensors = {name: array for name, array in tensors.items() if change.get(name, array) is array}
    if description:
        metadata["rnncore.layer"] = json.dumps(json.loads(metadata["rnncore.layer"]) | description)
    save_tensors(path, tensors, metadata)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bias_hh_l0": None}, "bias_hh_l0"),
        ({"bias_hh_l7": np.zeros(3)}, "bias_hh_l7"),
        ({"weight_ih_l0": np.zeros((2, 2), "float32")}, "weight_ih_l0"),
    ],
)
def test_missing_extra_and_misshapen_parameters_are_named(
    path: Path, change: dict[str, np.ndarray | None], named: str
) -> None:
    rc.save(path, rc.GRU(3, 4))
    rewrite(path, change)
    with pytest.raises(rc.FormatError, match=named):
        rc.load(path)


@pytest.mark.parametrize(
    "config", [None, [], {}, {"type": "os.system"}, {"type": "GRU", "hidden_size": "4"}]
)
def test_a_description_of_no_layer_is_refused(path: Path, config: object) -> None:
    rc.save(path, rc.GRU(3, 4))
    rewrite(path, {}, config=config)
    with pytest.raises(rc.FormatError):
        rc.load(path)


@pytest.mark.parametrize("huge", [{"hidden_size": 10**6}, {"num_layers": 10**9}])
def test_a_description_far_larger_than_its_file_takes_no_memory(
    path: Path, huge: dict[str, int]
) -> None:
    layer = rc.GRU(3, 4)
    rc.save(path, rc.Stack([layer]))
    rewrite(path, {}, config={"type": "Stack", "layers": [layer._config() | huge]})
    with pytest.raises(rc.FormatError, match="too few"):
        rc.load(path)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", '{"config": {}}', "NaN"])
def test_a_broken_description_is_refused(path: Path, text: str) -> None:
    save_tensors(path, {}, {"rnncore.layer": text})
    with pytest.raises(rc.FormatError):
        rc.load(path)


def test_a_file_without_a_layer_points_to_load_tensors(path: Path) -> None:
    save_tensors(path, {"w": np.zeros(2)})
    with pytest.raises(rc.FormatError, match="load_tensors"):
        rc.load(path)


def test_weights_that_are_not_finite_are_data(path: Path) -> None:
    layer = rc.RNN(2, 3, seed=0)
    layer.params["weight_ih_l0"][0, 0] = np.nan
    rc.save(path, layer)
    assert np.isnan(rc.load(path).params["weight_ih_l0"][0, 0])


# --- what stays on disk ---------------------------------------------------------------------------


def test_the_mode_of_a_replaced_file_is_kept(path: Path) -> None:
    save_tensors(path, {})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    save_tensors(path, {"w": np.zeros(2)})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path.name)
    save_tensors(path, {})
    save_tensors(link, {"w": np.zeros(2)})
    assert link.is_symlink()
    assert list(load_tensors(path)[0]) == ["w"]


def test_what_is_no_regular_file_is_an_os_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place, error in [
        (tmp_path, IsADirectoryError),
        (pipe, OSError),
        (tmp_path / "no" / "folder", FileNotFoundError),
    ]:
        with pytest.raises(error):
            load_tensors(place)
        with pytest.raises(error):
            save_tensors(place, {})
    with pytest.raises(ValueError, match="zero byte"):
        load_tensors(str(tmp_path) + "\0")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pipe"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    save_tensors(path, {"w": np.ones(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save_tensors(path, {"w": np.ones(30_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


SAVER = """
import sys
import numpy as np
from rnncore.io import save_tensors
path, first = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
for number in range(first, first + 100_000):
    save_tensors(path, {"w": np.full(20_000, number, "int64")}, {"number": str(number)})
"""


def saver(path: Path, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SAVER, str(path), str(first)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def assert_whole(path: Path) -> None:
    tensors, metadata = load_tensors(path)
    assert (tensors["w"] == int(metadata["number"])).all()


def test_a_kill_at_any_moment_leaves_a_whole_file(path: Path) -> None:
    save_tensors(path, {"w": np.zeros(20_000, "int64")}, {"number": "0"})
    rng = random.Random(0)
    for attempt in range(12):
        child = saver(path, 1000 * attempt)
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.wait()
        assert_whole(path)
    for left in path.parent.iterdir():
        assert left == path or (left.name.startswith(".rnncore-") and left.suffix == ".tmp")


def test_two_writers_of_one_path_never_mix(path: Path) -> None:
    save_tensors(path, {"w": np.zeros(20_000, "int64")}, {"number": "0"})
    children = [saver(path, 1), saver(path, 10_000_000)]
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert_whole(path)
    for child in children:
        child.kill()
        child.wait()
    assert_whole(path)
