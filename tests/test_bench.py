"""The benchmark: what it runs, what it says, and that it notices who computes something else."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore.bench import measure, modes, peers, products, program
from rnncore.bench.cases import SETS, Case, parse
from rnncore.bench.contest import AGREEMENT, Contest, Entry, hold
from rnncore.bench.limits import Limit
from rnncore.bench.peers.interface import Problem, Refused, Work
from rnncore.bench.peers.ours import NAME, Ours
from rnncore.bench.results import Contender, Row, behind_first, geometric_mean
from rnncore.bench.table import tables
from rnncore.cli import main

SMALL = "LSTM:7,3,5,6,2"
NUMPY = ["--against", "numpy"]
QUICK = ["--seconds", "0.01", "--threads", "1"]


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnncore.bench.limits.LOOK", 0.002)
    monkeypatch.setattr("rnncore.bench.measure.MOST_PAUSES", 1)
    monkeypatch.setattr("rnncore.bench.measure.WARM", 1e-4)


def bench(folder: Path, *arguments: str) -> int:
    return main(["bench", *QUICK, "--out", str(folder), "--name", "run", *arguments])


def stored(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def small_row(ours: float | None, **theirs: float) -> Row:
    def times(seconds: float | None) -> measure.Times | None:
        return None if seconds is None else measure.Times(seconds, 0.1, seconds, 5, 1)

    contenders = [Contender(NAME, False, times(ours))]
    contenders += [Contender(name, True, times(seconds)) for name, seconds in theirs.items()]
    limit = Limit(peak=1e9, bandwidth=1e9, intensity=0.5)
    return Row(f"{theirs}", "inference", "float32", 1e6, limit, None, 1.0, tuple(contenders))


# --- cases ----------------------------------------------------------------------------------------


def test_a_specification_is_read_from_left_to_right() -> None:
    assert parse("GRU:50,16,128,512").cases == (Case("GRU", 50, 16, 128, 512),)
    assert parse("RNN:5,6,7,8,3,2").cases == (Case("RNN", 5, 6, 7, 8, 3, 2),)
    assert parse("LSTM:5,6,7,8,half").cases == (Case("LSTM", 5, 6, 7, 8, lengths="half"),)
    assert parse("steps").cases == SETS["steps"]
    assert parse("steps").name == "steps"
    assert parse("GRU:1,1,1,1").name == "custom"


@pytest.mark.parametrize(
    "text", ["", "all", "LSTM", "LSTM:1,2,3", "LSTM:1,2,3,0", "CNN:1,2,3,4", "GRU:1,2,3,4,1,3",
             "GRU:1,2,3,4,1,1,1", "GRU:1,2,3,x", "GRU:1,2,3,4,ragged"]
)  # fmt: skip
def test_other_texts_are_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(text)


def test_operations_are_two_a_weight_a_step_of_a_row() -> None:
    case = Case("LSTM", 5, 3, 7, 11, layers=2, directions=2)
    weights = 2 * 4 * 11 * (7 + 11) + 2 * 4 * 11 * (22 + 11)
    assert case.weights == weights
    assert case.operations == 2 * 5 * 3 * weights
    ragged = replace(case, lengths="onelong")
    assert ragged.operations == 2 * (5 + 1 + 1) * weights


@pytest.mark.parametrize(("lengths", "least"), [("half", 50), ("quarter", 25), ("onelong", 6)])
def test_ragged_rows_are_as_ragged_as_their_name(lengths: str, least: int) -> None:
    drawn = Case("GRU", 100, 40, 2, 3, lengths=lengths).row_lengths
    assert drawn.max() == 100
    assert drawn.min() >= least
    if lengths == "onelong":
        assert sorted(drawn)[:-1] == [6] * 39
    else:
        assert least <= drawn.min() < least + 20 < 80 < drawn.mean() + 30
    np.testing.assert_array_equal(drawn, Case("GRU", 100, 40, 2, 3, lengths=lengths).row_lengths)


# --- a contest ------------------------------------------------------------------------------------


def contest_of(*entries: Entry) -> Contest:
    expected = {"y": np.arange(6.0).reshape(2, 3)}
    return Contest("case", "inference", "float32", 1e6, 1 << 12, 0.5, expected, list(entries))


def entry(name: str, y: Callable[[], np.ndarray], peer: bool = True) -> Entry:
    return Entry(name, peer, lambda: Work(lambda: None, lambda: {"y": y()}))


def test_who_computes_something_else_is_shown_without_a_time() -> None:
    right = np.arange(6.0).reshape(2, 3)
    wrong, nan = right.copy(), right.copy()
    wrong[1, 2] *= 1 + 2 * AGREEMENT["float32"]
    nan[0, 0] = np.nan

    def broken() -> np.ndarray:
        raise RuntimeError("out of order\nand more")

    def refusing() -> np.ndarray:
        raise Refused("no such cell")

    row = hold(
        contest_of(
            entry(NAME, right.copy, peer=False),
            entry("good", right.copy),
            entry("wrong", wrong.copy),
            entry("nan", nan.copy),
            entry("transposed", lambda: right.T),
            entry("broken", broken),
            entry("refusing", refusing),
        ),
        2,
        0.01,
    )
    problems = {one.name: one.problem for one in row.contenders}
    assert [one.name for one in row.contenders if one.times] == [NAME, "good"]
    assert problems["wrong"].startswith("WRONG: y differs by 1.0e-02")
    assert problems["nan"].startswith("WRONG: y differs by nan")
    assert problems["transposed"] == "WRONG: y has shape (3, 2), expected (2, 3)"
    assert problems["broken"] == "failed: RuntimeError: out of order"
    assert problems["refusing"] == "not run: no such cell"
    assert row.best.name == "good"
    lines = [line.strip() for line in tables([row]).splitlines()]
    assert lines.index("broken: failed: RuntimeError: out of order") < lines.index(
        "refusing: not run: no such cell"
    )


def test_our_own_wrong_result_is_shown_too() -> None:
    row = hold(contest_of(entry(NAME, lambda: np.ones((2, 3)), peer=False)), 2, 0.01)
    assert row.ours is None
    assert "WRONG" in tables([row])


def test_slow_contenders_get_few_repeats_and_short_runs_are_looped() -> None:
    seen = {"slow": 0, "tiny": 0, "usual": 0}

    def sleeping(name: str, seconds: float) -> Work:
        def run() -> None:
            seen[name] += 1
            if seconds:
                time.sleep(seconds)

        return Work(run, dict)

    pauses = {"slow": 0.2, "tiny": 0.0, "usual": 1e-3}
    works = {name: sleeping(name, seconds) for name, seconds in pauses.items()}
    times = measure.interleaved(works, 0.1)
    assert times["slow"].repeats == 1
    assert times["usual"].repeats >= 5
    assert times["usual"].runs_a_repeat == 1
    assert times["tiny"].runs_a_repeat > 10
    assert 0.2 < times["slow"].median_s < 0.5
    assert 1e-3 < times["usual"].median_s < 0.1
    assert times["tiny"].median_s < 1e-4


def test_a_row_is_limited_by_arithmetic_or_by_reading() -> None:
    one, many = Limit(200e9, 100e9, 0.5), Limit(200e9, 100e9, 8.0)
    assert (one.rate, one.bound) == (50e9, "reading")
    assert (many.rate, many.bound) == (200e9, "arithmetic")
    asked = modes.contest(Case("GRU", 5, 16, 3, 4), "inference", "float32", 2, [])
    assert asked.weight_bytes == 4 * 3 * 4 * 4
    assert asked.intensity == 2 * 5 * 16 * 3 * 4 * (3 + 4) / (4 * 3 * 4 * (5 * 4 + 3))
    stream = modes.contest(Case("GRU", 5, 16, 3, 4), "streaming", "float64", 2, [])
    assert stream.weight_bytes == 8 * 3 * 4 * (3 + 4)
    assert stream.intensity == 2 * 16 / 8
    deep = modes.contest(Case("GRU", 5, 16, 3, 4, layers=2), "inference", "float32", 2, [])
    assert deep.weight_bytes == 4 * 3 * 4 * 4
    ragged = Case("GRU", 16, 16, 3, 4, lengths="onelong")
    training = modes.contest(ragged, "training", "float64", 2, [])
    assert training.operations == 3 * 2 * 31 * 3 * 4 * 7
    assert training.intensity == training.operations / (2 * 8 * 3 * 4 * (16 * 4 + 3))


def test_a_product_and_a_gradient_agree_with_numpy() -> None:
    everyone = [peers.make(name, "cpu", 1) for name in ("numpy", "torch") if find_spec(name)]
    for gradient in (False, True):
        asked = products.contest(products.Product(33, 20, 17, gradient), "float32", everyone)
        row = hold(asked, 2, 0.001)
        assert [one.problem for one in row.contenders] == [""] * (1 + len(everyone))


# --- rows -----------------------------------------------------------------------------------------


def test_rows_where_we_are_behind_come_first() -> None:
    rows = [
        small_row(1.0),
        small_row(1.0, a=3.0, b=2.0),
        small_row(1.0, a=0.5, b=4.0),
        small_row(None, a=1.0),
    ]
    assert [row.times_as_fast for row in behind_first(rows)] == [None, 0.5, 2.0, None]
    assert [row.ours is None for row in behind_first(rows)] == [True, False, False, False]
    assert geometric_mean(rows) == pytest.approx(1.0)
    assert geometric_mean([small_row(1.0, a=1000.0)]) == pytest.approx(10.0)
    assert geometric_mean(rows[:1]) is None
    assert rows[2].share == pytest.approx(1e6 / 0.5e9)
    text = tables(rows)
    assert text.index("'a': 0.5") < text.index("'a': 3.0") < text.index("{}")


# --- the command ----------------------------------------------------------------------------------


def test_a_run_prints_and_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    modes_asked = ["--modes", "inference", "training", "streaming", "first"]
    assert bench(tmp_path, "--shapes", SMALL, *modes_asked, *NUMPY) == 0
    out = capsys.readouterr().out
    for text in ("LSTM T=7 N=3 D=5 H=6 x2", "NumPy", "times as fast", "of limit", "tape MB"):
        assert text in out
    for mode in modes.MODES.values():
        assert mode.title in out
    assert f"wrote {tmp_path / 'run.json'}" in out
    result = stored(tmp_path)
    assert result["finished"]
    assert result["conditions"]["threads"] == 1
    assert result["conditions"]["peers"] == {"NumPy": np.__version__}
    assert result["conditions"]["command"].startswith(f"rnncore bench --shapes {SMALL} --modes")
    assert {row["mode"] for row in result["rows"]} == set(modes.MODES)
    assert set(result["geometric_means"]) == set(modes.MODES)
    training = next(row for row in result["rows"] if row["mode"] == "training")
    ours, theirs = (training["contenders"][name]["times"] for name in (NAME, "NumPy"))
    assert training["best_peer"] == "NumPy"
    assert training["times_as_fast"] == theirs["median_s"] / ours["median_s"]
    gflops = training["operations"] / ours["median_s"] / 1e9
    assert training["gflops"] == pytest.approx(gflops, rel=1e-12)
    share = training["gflops"] * 1e9 / training["limit"]["rate"]
    assert training["share_of_limit"] == pytest.approx(share, rel=1e-12)
    assert training["tape_bytes"] > 0
    assert ours["repeats"] >= 5
    assert training["limit"]["bound"] in ("arithmetic", "reading")


def test_there_is_a_picture_with_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert bench(tmp_path, "--shapes", SMALL, "--modes", "inference", "first", *NUMPY) == 0
    assert (tmp_path / "run.png").read_bytes()[1:4] == b"PNG"


def test_without_matplotlib_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert bench(tmp_path, "--shapes", SMALL, "--modes", "inference", *NUMPY) == 0
    assert "no picture" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_ragged_rows_are_seen_against_equal_ones_and_peers_are_padded(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shapes = ["GRU:32,4,3,5,onelong"]
    assert bench(tmp_path, "--shapes", *shapes, "--modes", "inference", *NUMPY) == 0
    row = stored(tmp_path)["rows"][0]
    assert row["live_share"] == (32 + 3 * 2) / (4 * 32)
    ours, equal = (row["contenders"][name]["times"] for name in (NAME, modes.EQUAL))
    ratio = ours["median_s"] / equal["median_s"]
    assert row["relative"][modes.EQUAL] == pytest.approx(ratio / row["live_share"])
    out = capsys.readouterr().out
    assert "NumPy: padded rows" in out
    assert "the share of live steps" in out


def test_the_threads_set_compares_with_one_thread_and_no_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(SETS, "threads", (Case("GRU", 3, 16, 4, 5),))
    assert bench(tmp_path, "--shapes", "threads", "--modes", "inference", "--threads", "2") == 0
    assert set(stored(tmp_path)["rows"][0]["contenders"]) == {NAME, modes.ONE_THREAD}
    assert bench(tmp_path, "--shapes", "threads", "--threads", "1") == 1
    assert "--threads > 1" in capsys.readouterr().err


def test_ctrl_c_keeps_the_rows_measured_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupted(self: Ours, problem: Problem) -> Work:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ours, "training", interrupted)
    assert bench(tmp_path, "--shapes", SMALL, *NUMPY) == 130
    out = capsys.readouterr().out
    assert "stopped after 1 of 2 rows" in out
    assert f"wrote {tmp_path / 'run.json'}" in out
    result = stored(tmp_path)
    assert not result["finished"]
    assert [row["mode"] for row in result["rows"]] == ["inference"]


def test_an_error_keeps_the_rows_measured_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(layer: object, dy: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("rnncore.layers.base.Layer.backward", broken)
    assert bench(tmp_path, "--shapes", SMALL, *NUMPY) == 1
    assert len(stored(tmp_path)["rows"]) == 1


def test_waiting_for_quiet_ends_when_other_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST_PAUSES", 60)
    started = time.perf_counter()
    end = started + 0.1

    def work() -> None:
        while time.perf_counter() < end:
            pass

    worker = threading.Thread(target=work)
    worker.start()
    measure.wait_for_quiet()
    assert 0.09 < time.perf_counter() - started < 1
    worker.join()


def test_ctrl_c_before_the_first_row_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Ours, problem: Problem) -> Work:
        raise KeyboardInterrupt

    monkeypatch.setattr(Ours, "inference", interrupted)
    assert bench(tmp_path, "--shapes", SMALL, *NUMPY) == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shapes", "LSTM:1,2"], "expected one of listed"),
        (["--modes", "dreaming"], "invalid choice"),
        (["--against", "cobol"], "invalid choice"),
        (["--dtype", "float8"], "invalid choice"),
        (["--seconds", "0"], "seconds above 0"),
        (["--threads", "0"], "at least 1"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_why(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["bench", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modes", "training", "--dtype", "int8"], "nothing to run"),
        (["--modes", "streaming", "--shapes", "GRU:2,2,2,2,1,2"], "nothing to run"),
    ],
)
def test_what_cannot_be_measured_is_exit_code_1_and_says_why(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert bench(tmp_path, *NUMPY, *arguments) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_peer_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert bench(tmp_path, "--shapes", SMALL, "--against", "jax") == 1
    assert "'jax' needs jax; pip install 'rnncore[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8"])
def test_other_dtypes_run_or_say_why_not(dtype: str, tmp_path: Path) -> None:
    shapes = ["--shapes", "LSTM:7,3,5,64", "--modes", "inference", "streaming"]
    assert bench(tmp_path, *shapes, "--dtype", dtype, *NUMPY) == 0
    for row in stored(tmp_path)["rows"]:
        for contender in row["contenders"].values():
            assert contender["times"] or contender["problem"].startswith("not run: ")


def test_files_are_named_after_what_is_unusual() -> None:
    options = program.Options()
    assert options.stem == "cpu-inference-training"
    assert options.command(2) == "rnncore bench --threads 2"
    unusual = program.Options(
        shapes=(parse("recurrent"), parse("listed"), parse(SMALL)),
        modes=("inference",),
        against=("numpy", "jax"),
        dtype="int8",
        seconds=0.5,
    )
    assert unusual.stem == "cpu-recurrent-custom-inference-int8"
    assert unusual.command(4) == (
        f"rnncore bench --shapes listed recurrent {SMALL} --modes inference --against numpy jax "
        "--threads 4 --dtype int8 --seconds 0.5"
    )


def test_the_command_imports_no_peer_until_it_measures() -> None:
    code = "import sys, rnncore.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    optional = {"torch", "jax", "onnx", "onnxruntime", "openvino", "matplotlib", "threadpoolctl"}
    assert not optional & set(done.stdout.split())


def test_the_engine_is_left_as_it_was(tmp_path: Path) -> None:
    before = rc.get_num_threads()
    assert bench(tmp_path, "--shapes", SMALL, "--modes", "inference", *NUMPY) == 0
    assert rc.get_num_threads() == before
