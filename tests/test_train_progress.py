"""Progress: a bar on a terminal, plain lines elsewhere, nothing when silent."""

from __future__ import annotations

import io
import sys

import pytest

from rnncore.train import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, **options: object) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.Progress(5, done=2, label="training", **options) as bar:
        for update in range(3):
            bar.advance(f"loss {update}")
    return stream.getvalue()


def test_a_file_gets_a_plain_line_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(io.StringIO(), monkeypatch)
    assert text.startswith("training: 5/5 ")
    assert text.endswith("loss 2\n")
    assert len(text.splitlines()) == 1


def test_a_file_gets_a_line_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    lines = written(io.StringIO(), monkeypatch).splitlines()
    assert [line.split()[1] for line in lines] == ["3/5", "4/5", "5/5", "5/5"]


def test_a_terminal_gets_tqdms_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    text = written(Terminal(), monkeypatch)
    assert "100%" in text
    assert "5/5" in text
    assert "loss 2" in text


def test_a_terminal_without_tqdm_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    text = written(Terminal(), monkeypatch)
    assert text.startswith("\rtraining: ")
    assert text.count("\n") == 1


def test_silence_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(Terminal(), monkeypatch, show=False) == ""
