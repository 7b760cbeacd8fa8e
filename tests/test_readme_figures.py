"""README's figures are those of the stored results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    sys.modules.pop("benchmarks", None)
    return pytest.importorskip("benchmarks.figures")


def test_readme_says_what_the_result_files_say(figures) -> None:
    text = figures.README.read_text()
    written = text.partition(figures.BEGIN)[2].partition(figures.END)[0]
    assert "GFLOP/s" in written
    assert written == figures.section()
