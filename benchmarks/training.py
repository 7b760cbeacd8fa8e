"""Training steps (forward, backward with dx and all gradients) beside PyTorch's, interleaved.

    python -m benchmarks training [--threads 2] [--seconds 3] [--only LSTM]

Rows where rnncore is behind come first. Needs torch (`pip install rnncore[torch]`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import rnncore as rc
from benchmarks import measure
from benchmarks.cases import TRAINING, Case
from rnncore import _rnncore


def our_step(case: Case, x: np.ndarray, dy: np.ndarray) -> Callable[[], object]:
    """Return one training step of the engine; weights are packed anew every time."""
    layer = getattr(rc, case.cell)(
        case.D, case.H, case.layers, bidirectional=case.directions == 2, seed=0
    )

    def step() -> None:
        layer.zero_grad()
        layer.forward(x)
        layer.backward(dy)

    return step


def torch_step(case: Case, x: np.ndarray, dy: np.ndarray) -> Callable[[], object]:
    """Return the same step in PyTorch, eager."""
    layer = getattr(torch.nn, case.cell)(
        case.D, case.H, case.layers, bidirectional=case.directions == 2
    )
    inputs = torch.from_numpy(x).requires_grad_()
    gradient = torch.from_numpy(dy)

    def step() -> None:
        layer.zero_grad()
        inputs.grad = None
        y, _ = layer(inputs)
        y.backward(gradient)

    return step


def run(case: Case, threads: int, seconds: float) -> dict[str, Any]:
    """Time one case of both."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((case.T, case.N, case.D), np.float32)
    dy = draw.standard_normal((case.T, case.N, case.directions * case.H), np.float32)
    actions = {"rnncore": our_step(case, x, dy), "torch": torch_step(case, x, dy)}
    measured = measure.interleaved(actions, seconds)
    times = {name: measure.summary(seconds_) for name, seconds_ in measured.items()}
    operations = 3 * case.forward_operations
    peak = _rnncore._limits.fma_rate(threads, 0.05)
    ours = times["rnncore"]["median_s"]
    return {
        "case": str(case),
        **times,
        "ratio": times["torch"]["median_s"] / ours,
        "gflops": operations / ours / 1e9,
        "share_of_peak": operations / ours / peak,
    }


def main(arguments: list[str]) -> None:
    """Run the cases and write benchmarks/results/training.json."""
    parser = argparse.ArgumentParser("benchmarks training", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--name", default="training", help="of the result file")
    options = parser.parse_args(arguments)
    rc.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    cases = [case for case in TRAINING if options.only in str(case)]
    rows = [run(case, options.threads, options.seconds) for case in cases]
    rows.sort(key=lambda row: row["ratio"])
    print(f"{'case':44} {'rnncore ms':>10} {'torch ms':>9} {'ratio':>6} {'GFLOP/s':>8} {'peak':>5}")
    for row in rows:
        print(
            f"{row['case']:44} {row['rnncore']['median_s'] * 1e3:10.3f} "
            f"{row['torch']['median_s'] * 1e3:9.3f} {row['ratio']:6.2f} {row['gflops']:8.1f} "
            f"{row['share_of_peak']:5.0%}"
        )
    mean = float(np.exp(np.mean([np.log(min(row["ratio"], 10)) for row in rows])))
    print(f"geometric mean, each capped at 10: {mean:.2f}")
    found = measure.conditions(options.threads, torch=torch.__version__)
    path = measure.write(options.name, {"conditions": found, "rows": rows, "geometric_mean": mean})
    print(f"wrote {path}")
