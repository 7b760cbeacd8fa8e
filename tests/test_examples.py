"""Every example runs and shows what it promises."""

from __future__ import annotations

import gzip
import importlib
import json
import lzma
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from processes import run

from rnncore.demo import program

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMISES = {
    "distributed_mpi.py": "1 process: loss",
    "distributed_torch.py": "1 process: loss",
    "char_model.py": "loss ",
    "sequence_classification.py": "of new waves recognised",
    "streaming.py": "bit for bit the whole sequence at once",
}
NEEDS = {"distributed_mpi.py": "mpi4py", "distributed_torch.py": "torch"}
# What each job shows with --quick.
QUICK = {
    "addition.py": "chosen by validation: ",
    "character_language_model.py": "temperature 1.3: ",
    "date_conversion.py": "transformer ",
    "forecast.py": "sunspots, 11 ahead (seasonal), validation",
    "gradients.py": "RNN, radius 2        exploding",
    "next_close.py": "LSTM, changes",
}
# The data set that a job asks for, and its origin.
DATA = {
    "addition.py": ("seq2seq-toy", "deep-learning-from-scratch-2"),
    "date_conversion.py": ("seq2seq-toy", "deep-learning-from-scratch-2"),
    "forecast.py": ("series", "ETDataset"),
    "next_close.py": ("prices", "oil-prices"),
}
# What examples import, none themselves.
SHARED = {
    "clips.py", "distributed_training.py", "jobs.py", "pairs.py", "prices.py", "scores.py",
    "selection.py", "several_steps.py", "statistical_models.py", "surnames.py", "time_series.py",
}  # fmt: skip
JOBS = {"dance_type.py", "names.py", "next_chord.py", "spoken_digits.py"}  # tested in test_jobs_*


def test_every_example_is_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} - SHARED == {*PROMISES, *QUICK, *JOBS}


@pytest.mark.parametrize("name", PROMISES)
def test_the_example_keeps_its_promise(name: str) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"no {NEEDS[name]}")
    words = ["--quick"] if name in NEEDS else []
    done = run([sys.executable, str(EXAMPLES / name), *words])
    assert done.returncode == 0, done.stderr
    assert PROMISES[name] in done.stdout


@pytest.mark.parametrize("name", QUICK)
def test_the_job_runs_quickly_on_what_it_makes_and_leaves_its_results_where_told(
    name: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(EXAMPLES / name), "--quick", "--results", str(tmp_path)]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert QUICK[name] in done.stdout
    results = json.loads((tmp_path / name).with_suffix(".json").read_text())
    assert results["seed"] == 0
    assert results["command"].startswith(f"python examples/{name} --quick")
    assert results["figures"]
    assert set(results["versions"]) == {"rnncore", "numpy", "python"}


@pytest.mark.parametrize("name", DATA)
def test_the_job_tells_where_its_data_come_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RNNCORE_DATA", raising=False)
    dataset, origin = DATA[name]
    for options, place in (([], "without --data"), (["--data", str(tmp_path)], str(tmp_path))):
        done = run([sys.executable, str(EXAMPLES / name), *options])
        assert done.returncode == 1
        assert f"{dataset}: not found" in done.stderr
        assert place in done.stderr
        assert origin in done.stderr
        assert "licence  " in done.stderr


@pytest.mark.parametrize("name", [*QUICK, *sorted(JOBS | SHARED)])
def test_the_job_fits_on_a_few_pages(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < (300 if name in SHARED else 200)


def test_the_character_model_fits_on_a_page() -> None:
    assert len((EXAMPLES / "char_model.py").read_text().splitlines()) < 60


# --- what the jobs share --------------------------------------------------------------------------


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("jobs")


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("pairs")


@pytest.mark.parametrize(
    ("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
)
@pytest.mark.parametrize("folder", ["seq2seq-toy", "."])
def test_data_are_found_plain_or_packed(
    jobs: ModuleType, tmp_path: Path, ending: str, pack: Callable[[bytes], bytes], folder: str
) -> None:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    (place / f"date.txt{ending}").write_bytes(pack("1_é\n2_b\n".encode()))
    arguments = jobs.parser("", "seq2seq-toy").parse_args(["--data", str(tmp_path)])
    found = jobs.find_data(arguments, "seq2seq-toy", ["date.txt"])
    assert jobs.read_lines(found / "date.txt") == ["1_é", "2_b"]


def test_results_name_no_folder_of_the_machine(
    jobs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", str(tmp_path), "--results", str(tmp_path / "out"), "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/examples/addition.py", *words])
    arguments = jobs.parser("", "seq2seq-toy").parse_args()
    path = jobs.write_results("addition", arguments, {"a": np.float32(0.5)}, time.perf_counter())
    results = json.loads(path.read_text())
    assert results["command"] == "python examples/addition.py --data DIR --results DIR --seed 3"
    assert str(tmp_path) not in path.read_text()
    assert (results["seed"], results["figures"]) == (3, {"a": 0.5})


def test_stored_results_name_versions_and_no_commit_that_only_their_maker_had() -> None:
    stored = sorted((EXAMPLES / "results").glob("*.json"))
    assert len(stored) >= 10
    for path in stored:
        versions = json.loads(path.read_text())["versions"]
        assert set(versions) == {"rnncore", "numpy", "python"}, path.name


def test_a_quick_run_leaves_the_stored_results_alone(jobs: ModuleType) -> None:
    arguments = jobs.parser("").parse_args(["--quick"])
    assert jobs.write_results("none", arguments, {}, time.perf_counter()) is None
    assert jobs.picture_path("none", arguments) is None


def test_no_pair_is_in_two_parts_of_a_task(pairs: ModuleType) -> None:
    lines = [f"{a % 90}+{a % 7} _{a % 90 + a % 7}  " for a in range(1000)]
    task = pairs.make_task(pairs.split_lines(lines))
    parts = [set(part.texts) for part in (task.training, task.validation, task.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(lines))
    assert task.counts() == {"training": 504, "validation": 63, "test": 63, "removed": 370}
    assert all(int(answer) == sum(map(int, q.split("+"))) for q, answer in parts[2])


class Oracle:
    """A stand-in for a model that adds, and is wrong where the first number is odd."""

    def __init__(self, task: object) -> None:
        self.task = task

    def encode(self, source: np.ndarray, lengths: np.ndarray) -> list[str]:
        alphabet = self.task.alphabet
        answers = []
        for row, length in zip(source.T, lengths, strict=True):
            first, second = "".join(alphabet[i] for i in row[:length][::-1]).split("+")
            answers.append(str(int(first) + int(second) + int(first) % 2) + alphabet[1])
        return [0, answers]

    def stepper(self) -> Callable[..., object]:
        def step(symbols: np.ndarray, state: list) -> tuple[np.ndarray, list]:
            place, answers = state
            alphabet = self.task.alphabet
            letters = [alphabet.index(a[min(place, len(a) - 1)]) for a in answers]
            return np.eye(len(alphabet))[letters], [place + 1, answers]

        return step


def test_an_answer_counts_if_all_of_it_is_right(pairs: ModuleType) -> None:
    task = pairs.make_task([(f"{a}+{b}", str(a + b)) for a in range(40) for b in range(30)])
    even = np.mean([int(q.split("+")[0]) % 2 == 0 for q, _ in task.test.texts])
    assert pairs.share_right(Oracle(task), task, task.test, reverse=True) == even
    assert 0.3 < even < 0.7


def test_the_transformer_of_the_dates_writes_step_by_step_what_it_predicts_at_once(
    pairs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("date_conversion")
    task = pairs.make_task(module.made_dates(200, 0))
    model = module.Transformer(len(task.alphabet), 16, seed=0)
    (source, read), _, lengths = task.batches(task.test, 5, shuffle=False)[0]
    whole = model.forward(source, read, lengths)
    step, state = model.stepper(), model.encode(source, lengths)
    for t, symbols in enumerate(read):
        logits, state = step(symbols, state)
        np.testing.assert_allclose(logits, whole[t], rtol=1e-4, atol=1e-5)


def test_the_character_job_trains_as_the_demo_does(jobs: ModuleType, tmp_path: Path) -> None:
    module = importlib.import_module("character_language_model")
    text = module.split_text("a page", "to be or not to be, that is the question " * 200)
    settings = replace(module.TINY, dropout=0.1, updates=3)
    ours = module.make_trainer(text, settings, epochs=None)
    demo = program.make_trainer(text, settings, tmp_path / "checkpoint.safetensors")
    for trainer in (ours, demo):
        trainer.progress = False
        trainer.run(3)
    assert ours.history.losses == demo.history.losses
    assert ours.history.norms == demo.history.norms
    assert ours.history.validation == demo.history.validation
