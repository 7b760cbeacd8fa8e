"""Names, music, spoken digits: the jobs learn, choose without what tests, say what they lack."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from processes import run

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = {
    # script: what it prints with --quick, and between which numbers that lies; counting reaches
    # 66.7 %, 50 %, 5.137 nats, and chance 10 %
    "dance_type.py": (r"^all folds, GRU: ([\d.]+)%", 70, 100),
    "names.py": (r"^all folds, GRU: ([\d.]+)%", 90, 100),
    "next_chord.py": (r"^GRU, seed 0: .* test ([\d.]+); without", 3, 4.9),
    "spoken_digits.py": (r"^one speaker held out, all: ([\d.]+)%", 60, 100),
}
NEEDED = {  # script: a file of the data it asks for, and that data's licence
    "dance_type.py": ("nottingham_abc.jsonl", "GPL-3.0"),
    "names.py": ("names.tsv", "MIT"),
    "next_chord.py": ("jsb-chorales-quarter.json", "none stated"),
    "spoken_digits.py": ("fsdd_logmel20.npz", "CC BY-SA 4.0"),
}


@pytest.mark.parametrize("name", QUICK)
def test_the_job_learns_in_seconds(name: str, tmp_path: Path) -> None:
    pattern, lowest, highest = QUICK[name]
    picture = tmp_path / "picture.png"
    done = run([sys.executable, str(EXAMPLES / name), "--quick", "--picture", str(picture)])
    assert done.returncode == 0, done.stderr
    found = re.search(pattern, done.stdout, re.MULTILINE)
    assert found, done.stdout
    assert lowest <= float(found[1]) <= highest
    pytest.importorskip("matplotlib")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NEEDED)
def test_the_job_says_what_data_it_lacks(name: str, tmp_path: Path) -> None:
    done = run([sys.executable, str(EXAMPLES / name), "--data", str(tmp_path)])
    assert done.returncode == 1
    for word in NEEDED[name]:
        assert word in done.stderr
    assert not os.listdir(tmp_path)


# --- validation chooses, the test part is read once -----------------------------------------------


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


class Watch:
    """Sees what a job chooses by, what tests, and in which order it trains and reads."""

    def __init__(
        self, selection: ModuleType, scores: ModuleType, patch: pytest.MonkeyPatch
    ) -> None:
        self.tests: list[np.ndarray] = []
        self.seen: list[list[np.ndarray]] = []
        self.events: list[str] = []
        parts, choose, fit = selection.nested_parts, selection.choose, scores.fit
        read = selection.Sealed.open

        def watched_parts(test: np.ndarray, validations: list[np.ndarray]) -> Any:
            self.tests.append(np.flatnonzero(test))
            return parts(test, validations)

        def watched_choose(settings: Any, inner: Any, judge: Any, *more: Any) -> Any:
            self.seen.append([])

            def watched_judge(setting: Any, known: np.ndarray, unseen: np.ndarray) -> Any:
                assert not np.intersect1d(known, unseen).size
                self.seen[-1] += [known, unseen]
                return judge(setting, known, unseen)

            return choose(settings, inner, watched_judge, *more)

        def event(name: str, function: Any) -> Any:
            def watched(*arguments: Any) -> Any:
                self.events.append(name)
                return function(*arguments)

            return watched

        patch.setattr(selection, "nested_parts", watched_parts)
        patch.setattr(selection, "choose", watched_choose)
        patch.setattr(selection.Sealed, "open", event("read", read))
        patch.setattr(scores, "fit", event("train", fit))


@pytest.mark.parametrize(("name", "tests"), [("dance_type", 1), ("names", 1), ("spoken_digits", 4)])
def test_a_test_part_has_no_share_in_the_choice_and_is_read_once_after_all_is_trained(
    name: str, tests: int, example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(example("selection"), example("scores"), monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick", "--epochs", "1"])
    example(name).main()
    assert len(watch.tests) == len(watch.seen) == tests
    for test, seen in zip(watch.tests, watch.seen, strict=True):
        assert len(seen) >= 4  # two settings, each trains and validates
        assert all(len(part) for part in [test, *seen])
        assert not np.intersect1d(test, np.concatenate(seen)).size
    trainings = watch.events.count("train")
    assert trainings > 2 * tests
    assert watch.events == ["train"] * trainings + ["read"] * tests


def test_a_sealed_part_opens_once(example: Callable[[str], ModuleType]) -> None:
    part = example("selection").Sealed(np.array([4, 7]))
    assert len(part) == 2
    assert part.open().tolist() == [4, 7]
    with pytest.raises(RuntimeError, match="expected to be read once"):
        part.open()


def test_each_example_tests_in_one_fold_and_neither_learns_nor_validates_there(
    example: Callable[[str], ModuleType],
) -> None:
    selection = example("selection")
    tenths = np.random.default_rng(1).permutation(np.arange(203) % 10)
    tested = []
    for fold in range(selection.FOLDS):
        parts = selection.fold_parts(tenths, fold)
        ((known, unseen),) = parts.inner
        test = parts.test.open()
        tested += test.tolist()
        assert sorted([*test, *parts.learnt]) == list(range(203))
        assert sorted([*known, *unseen]) == parts.learnt.tolist()
        assert len(unseen) in (20, 21)
    assert sorted(tested) == list(range(203))


def test_the_setting_that_validates_best_over_all_inner_splits_is_chosen(
    example: Callable[[str], ModuleType],
) -> None:
    def judge(setting: list[int], known: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        right = setting[known[0]]
        return np.array([[right, len(unseen) - right], [0, 0]])

    inner = [(np.array([0]), np.arange(9)), (np.array([1]), np.arange(9))]
    settings = {"first": [8, 2], "second": [6, 6], "third": [0, 9]}
    chosen, reached = example("selection").choose(
        settings, inner, judge, example("scores").accuracy, ""
    )
    assert chosen == "second"
    assert reached == pytest.approx({"first": 10 / 18, "second": 12 / 18, "third": 9 / 18})


def test_a_committee_answers_with_the_mean_of_its_members_probabilities(
    example: Callable[[str], ModuleType],
) -> None:
    shares = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.2, 0.8], [0.4, 0.6]]])
    members = [lambda x, lengths, each=each: np.log(each) + 3 for each in shares]
    found = example("selection").Committee(members)(np.zeros((1, 2, 1)), None)
    np.testing.assert_allclose(found, [[0.55, 0.45], [0.3, 0.7]])
