"""Ctrl-C and kill while training, in processes of their own: nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import TESTS

import rnncore as rc
from rnncore import io, train

UPDATES = 60
PROGRAM = """
import sys, time
import numpy as np
import rnncore as rc
from rnncore import models, nn, train

def trainer(path, hidden={hidden}, pause={pause}):
    layer = rc.LSTM(8, hidden, 2, dropout=0.2, stateful=True, seed=0)
    model = models.LanguageModel(11, layer, dropout=0.1, seed=1)
    text = np.random.default_rng(0).integers(0, 11, 3000)
    def wait(trainer):
        print("update", trainer.updates, flush=True)
        time.sleep(pause)
    return train.Trainer(
        model, nn.SoftmaxCrossEntropy(), train.Adam(model, 0.01),
        train.TextBatches(text, 4, 16, seed=2), schedule=train.Cosine(0.01, {updates}),
        max_norm=1.0, validate=lambda m: m.mean_loss(text[:200]), validate_every=7,
        checkpoint=path, checkpoint_every={every}, callbacks=[wait],
    )

if __name__ == "__main__":
    one = trainer(sys.argv[1])
    if "--resume" in sys.argv:
        one.load()
    print("begin", one.updates, flush=True)
    print("done" if one.run({updates}) else "stopped", one.updates, flush=True)
"""


def start(path: Path, *words: str, every: int = 0, hidden: int = 24, pause: float = 0.01,
          updates: int = UPDATES) -> subprocess.Popen:  # fmt: skip
    code = PROGRAM.format(every=every, hidden=hidden, pause=pause, updates=updates)
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "RNNCORE_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(process: subprocess.Popen, line: str) -> None:
    for got in process.stdout:
        if got.strip() == line:
            return
    raise AssertionError(f"{line!r} never came: {process.stderr.read()}")


def contents(path: Path) -> dict[str, bytes]:
    tensors, _ = io.load_tensors(path)
    return {name: value.tobytes() for name, value in tensors.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the checkpoint of a training that nobody interrupted."""
    path = tmp_path_factory.mktemp("whole") / "checkpoint"
    process = start(path, pause=0)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[-1] == f"done {UPDATES}", err
    return contents(path)


@pytest.mark.parametrize("delays", [(0.0,), (0.003, 0.05, 0.011), (0.02, 0.0, 0.0)])
def test_a_training_interrupted_again_and_again_ends_in_the_same_bits(
    delays: tuple[float, ...], whole: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    done = 0
    for turn, delay in enumerate(delays):
        process = start(path, *["--resume"] * (turn > 0))
        wait_for(process, f"update {done + 1}")
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        word, at = out.splitlines()[-1].split()
        assert word == "stopped", err
        assert done < int(at) < UPDATES
        assert f"load() and run({UPDATES}) go on from {path}" in err
        done = int(at)
    process = start(path, "--resume", pause=0)
    out, err = process.communicate(timeout=60)
    assert out.splitlines()[0] == f"begin {done}"
    assert out.splitlines()[-1] == f"done {UPDATES}", err
    assert contents(path) == whole


def test_a_second_ctrl_c_quits_at_once_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    process = start(path, every=2, pause=0.7)  # waits inside the update's callback
    wait_for(process, "update 1")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    before = contents(path)
    process = start(path, "--resume", every=2, pause=30.0)
    wait_for(process, "update 2")
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=25)
    assert time.monotonic() - sent < 20
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0
    assert contents(path) == before


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for _ in range(5):  # a kill may come a moment after the write
        process = start(path, every=1, hidden=500, pause=0.0, updates=1000)
        wait_for(process, "update 3")  # two were written before
        deadline = time.monotonic() + 40
        while not list(tmp_path.glob(".rnncore-*.tmp")) and time.monotonic() < deadline:
            pass
        process.kill()
        process.communicate(timeout=60)
        if list(tmp_path.glob(".rnncore-*.tmp")):
            break
    else:
        pytest.fail("no kill came in the middle of a write")
    tensors, _ = io.load_tensors(path)
    updates = len(tensors["more.history.losses"])
    assert updates >= 2
    assert np.isfinite(tensors["model.output.weight"]).all()
    assert tensors["more.optimizer.steps"][0] == updates


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    model = rc.GRU(2, 3, seed=0)
    train.save_checkpoint(path, model)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        train.save_checkpoint(path, model, {"words": np.array(["a"])})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
