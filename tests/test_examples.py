"""Every example runs and shows what it promises."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import run

EXAMPLES = Path(__file__).parent.parent / "examples"
PROMISES = {
    "char_model.py": "loss ",
    "sequence_classification.py": "of new waves recognised",
    "distributed_mpi.py": "1 process: loss",
    "distributed_torch.py": "1 process: loss",
    "streaming.py": "bit for bit the whole sequence at once",
    "vanishing_gradients.py": "RNN, radius 2        exploding",
}
NEEDS = {"distributed_mpi.py": "mpi4py", "distributed_torch.py": "torch"}


def test_every_example_is_listed_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_the_example_keeps_its_promise(name: str) -> None:
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"no {NEEDS[name]}")
    words = ["--quick"] if name in NEEDS else []
    done = run([sys.executable, str(EXAMPLES / name), *words])
    assert done.returncode == 0, done.stderr
    assert PROMISES[name] in done.stdout


def test_the_character_model_fits_on_a_page() -> None:
    assert len((EXAMPLES / "char_model.py").read_text().splitlines()) < 60
