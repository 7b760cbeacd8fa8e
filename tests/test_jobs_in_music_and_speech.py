"""Names, music and spoken digits: the jobs learn with --quick, and say what data they lack."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from processes import run

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = {
    # script: what it prints with --quick, and between which numbers that lies; counting reaches
    # 66.7 %, 50 %, 5.137 nats, and chance 10 %
    "dance_type.py": (r"^no weights, all folds: ([\d.]+)%", 70, 100),
    "names.py": (r"^all folds, weights: ([\d.]+)%", 90, 100),
    "next_chord.py": (r"^GRU, seed 0: .* test ([\d.]+); without", 3, 4.9),
    "spoken_digits.py": (r"^one speaker held out, all of them: ([\d.]+)%", 60, 100),
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
