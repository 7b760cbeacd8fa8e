"""The demonstration on a tiny text, and its parts."""

from __future__ import annotations

import builtins
import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore import nn
from rnncore.cli import main
from rnncore.demo import SHORT, Settings, program
from rnncore.demo import model as model_module
from rnncore.demo.counted import counted_loss
from rnncore.demo.model import CharacterModel, mean_loss, reach, sample
from rnncore.demo.numpy_step import numpy_step
from rnncore.demo.speed import compare, engine_step
from rnncore.demo.text import UNKNOWN, Text, persuasion, read_text, split_text
from rnncore.demo.torch_step import torch_step
from rnncore.train import TextBatches

TINY = Settings(updates=24, hidden=20, dropout=0.1, rate=0.02, embedding=8, batch=4, steps=12)


@pytest.fixture(scope="module")
def novel() -> Text:
    """The start of the novel, about three pages."""
    whole = persuasion()
    return split_text("three pages", whole.decode(whole.indices[:5000]))


@pytest.fixture
def page(tmp_path: Path, novel: Text) -> Path:
    """The same in a file."""
    path = tmp_path / "page.txt"
    path.write_text(novel.decode(novel.indices), encoding="utf-8")
    return path


def train(text: Text, folder: Path, settings: Settings = TINY) -> dict:
    """Run without comparison and return the report."""
    assert program.run(text, folder, settings, compared=False, sample_length=20)
    return json.loads((folder / "report.json").read_text())


def test_the_novel_is_whole() -> None:
    text = persuasion()
    assert len(text.indices) == 466_854
    assert len(text.alphabet) == 76
    assert len(text.indices) - text.cut == 46_685
    assert text.decode(text.indices[-6:]) == "Finis\n"
    assert len(text.validation) == 46_686


def test_a_run_learns_and_writes_everything(novel: Text, tmp_path: Path, capsys) -> None:
    report = train(novel, tmp_path / "new" / "folder")
    losses = report["history"]["losses"]
    assert np.mean(losses[-4:]) < losses[0] - 0.5
    assert report["validation_loss"]["model"] == report["history"]["validation"][-1][1]
    assert report["validation_loss"]["model"] < losses[0] - 0.5
    for weights, allowed in (("bfloat16", 0.005), ("int8", 0.01)):
        more = report["validation_loss"][weights] - report["validation_loss"]["model"]
        assert 0 < abs(more) < allowed
    assert report["settings"]["updates"] == 24
    out = capsys.readouterr().out
    for name in ("checkpoint.safetensors", "model.safetensors", "sample.txt", "report.json"):
        assert (tmp_path / "new" / "folder" / name).stat().st_size
        assert f"wrote {tmp_path / 'new' / 'folder' / name}" in out
    assert len((tmp_path / "new" / "folder" / "sample.txt").read_text()) == 21


def test_the_numbers_are_the_same_with_one_thread_and_two(novel: Text, tmp_path: Path) -> None:
    reports = []
    for threads in (1, 2):
        with rc.threads(threads):
            reports.append(train(novel, tmp_path / str(threads)))
    for key in ("losses", "norms", "validation"):
        assert reports[0]["history"][key] == reports[1]["history"][key]
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in "12"]
    assert models[0] == models[1]


def test_resuming_after_ctrl_c_equals_no_stop(
    novel: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(novel, tmp_path / "whole")
    loss, calls = nn.SoftmaxCrossEntropy.forward, []

    def interrupted(self: nn.SoftmaxCrossEntropy, *given: np.ndarray) -> float:
        calls.append(None)
        if len(calls) == 10:
            signal.raise_signal(signal.SIGINT)
        return loss(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(nn.SoftmaxCrossEntropy, "forward", interrupted)
        assert not program.run(novel, tmp_path / "parts", TINY)
    assert program.stored_settings(tmp_path / "parts", novel) == TINY
    assert program.run(
        novel, tmp_path / "parts", TINY, resume=True, compared=False, sample_length=20
    )
    parts = json.loads((tmp_path / "parts" / "report.json").read_text())
    for key in ("losses", "norms", "validation"):
        assert parts["history"][key] == whole["history"][key]
    for name in ("model.safetensors", "sample.txt"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_ctrl_c_in_the_command_leaves_a_checkpoint_to_the_bit(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rnncore", "demo", "--text", str(page), "--out", str(out),
               "--updates", "100000", "--no-compare", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "training:" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in printed
    assert "Traceback" not in errors

    text = read_text(page)
    settings = program.stored_settings(out, text)
    assert settings == replace(SHORT, updates=100_000)
    stopped = program.make_trainer(text, settings, out / "checkpoint.safetensors")
    stopped.load()
    again = program.make_trainer(text, settings, tmp_path / "again")
    for _ in range(min(stopped.updates, 3)):
        again.step()
    assert stopped.updates > 0
    assert again.history.losses == stopped.history.losses[: again.updates]


def test_validation_does_not_touch_the_training(novel: Text) -> None:
    trainer = program.make_trainer(novel, TINY, Path("unused"))
    trainer.step()
    state, rng = trainer.model.lstm.state, trainer.model.lstm.rng_state
    mean_loss(trainer.model, novel)
    sample(trainer.model, novel, 3, seed=0)
    reach(trainer.model, novel.validation)
    np.testing.assert_array_equal(trainer.model.lstm.state[0], state[0])
    assert trainer.model.lstm.rng_state == rng


def test_mean_loss_is_that_of_reading_the_last_tenth_once(
    novel: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, start = CharacterModel(len(novel.alphabet), TINY), novel.cut - model_module.WARMUP
    x = novel.indices[start - 1 : -1, None]
    y, _ = model.lstm.freeze()(model.embedding(x))
    logits = model.output(y)[model_module.WARMUP :, 0]
    expected = nn.SoftmaxCrossEntropy()(logits, novel.indices[novel.cut :])
    assert mean_loss(model, novel) == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(model_module, "ROW_LENGTH", 70)  # 8 rows, the last a little shorter
    assert mean_loss(model, novel) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(model_module, "CHUNK", 7)
    assert mean_loss(model, novel) == pytest.approx(expected, rel=1e-5)


def test_all_contenders_do_the_same_step(novel: Text) -> None:
    settings = replace(TINY, dropout=0.0)
    model = CharacterModel(len(novel.alphabet), settings)
    params = model.state_dict()
    steps = [engine_step(model, settings), numpy_step(params, settings)]
    with contextlib.suppress(ImportError):
        steps.append(torch_step(params, settings)[1])
    batches = TextBatches(novel.training, settings.batch, settings.steps)
    for _ in range(4):  # four updates: a wrong gradient would show in the second loss
        inputs, targets, _ = next(batches)
        losses = [step(inputs, targets) for step in steps]
        np.testing.assert_allclose(losses, losses[0], rtol=2e-5)


def test_the_comparison_measures_every_contender(novel: Text) -> None:
    measured = compare(novel, TINY, rounds=2)
    assert measured[0].name == "rnncore"
    assert measured[-1].name.startswith("NumPy")
    for one in measured:
        assert 0 < one.fastest <= one.seconds <= one.slowest
        assert one.rate == pytest.approx(48 / one.seconds)


def test_the_counted_model_reaches_its_figure_on_the_novel() -> None:
    assert counted_loss(persuasion()) == pytest.approx(1.371781, abs=1e-6)


def test_the_counted_model_equals_counting_by_hand() -> None:
    text = split_text("", "abracadabra abracadabra abraxas")
    train, total = text.indices[: text.cut].tolist(), 0.0
    for place in range(text.cut, len(text.indices)):
        share = 1 / len(text.alphabet)
        for length in range(3):
            context = text.indices[place - length : place].tolist()
            after = [
                train[i] for i in range(length, len(train)) if train[i - length : i] == context
            ]
            if after:
                count, kinds = after.count(text.indices[place]), len(set(after))
                share = (count + kinds * share) / (len(after) + kinds)
        total -= np.log(share)
    assert counted_loss(text, order=3) == pytest.approx(total / (len(text.indices) - text.cut))


def test_a_sample_has_only_known_characters_and_repeats(novel: Text) -> None:
    model = CharacterModel(len(novel.alphabet), TINY)
    one, other = sample(model, novel, 50, seed=1), sample(model, novel, 50, seed=1)
    assert one == other != sample(model, novel, 50, seed=2)
    assert len(one) == 50
    assert UNKNOWN not in one


def test_without_matplotlib_the_run_says_so(
    novel: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    train(novel, tmp_path, replace(TINY, updates=2))
    assert "no picture: matplotlib is not installed" in capsys.readouterr().out
    assert not (tmp_path / "picture.png").exists()


def test_with_matplotlib_there_is_a_picture(novel: Text, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    train(novel, tmp_path, replace(TINY, updates=2))
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"


def test_texts_of_any_alphabet_are_split_and_unknown_characters_have_an_index() -> None:
    text = split_text("", "가나다라마바사아자차카타\N{GRINNING FACE}" * 2 + "xy")
    assert (
        text.alphabet == "".join(sorted(set("가나다라마바사아자차카타\N{GRINNING FACE}"))) + UNKNOWN
    )
    assert text.decode(text.indices[-3:]) == "\N{GRINNING FACE}" + UNKNOWN + UNKNOWN
    assert text.cut == 26


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"abc", "expected at least 10 characters, got 3"),
        (b"short but not empty", "expected at least"),
        (b"abc \xff\xfe def" * 100, "got byte 0xff at offset 4; see --encoding"),
    ],
)
def test_texts_that_will_not_do_are_one_clear_line(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    assert main(["demo", "--text", str(path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_other_encodings_are_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(("é" * 100).encode("latin-1"))
    assert read_text(tmp_path / "text", "latin-1").alphabet[0] == "é"
    (tmp_path / "text").write_bytes(("e" * 100).encode("utf-8-sig"))
    assert read_text(tmp_path / "text").alphabet == "e" + UNKNOWN
