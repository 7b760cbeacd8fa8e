"""Time a training loop of PyTorch before and after ``rnncore.torch.accelerate``.

``python benchmarks/torch_training.py`` trains small models, each twice with the same weights: as
they are, and accelerated. A step is what a user's loop does: zero the gradients, embed, run the
recurrence, a linear head and a loss over it, backward, clip, Adam. Both take steps in turn, repeat
by repeat, and medians are compared.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence

import rnncore as rc
import rnncore.torch
from rnncore.bench.machine import conditions
from rnncore.bench.measure import Times, interleaved
from rnncore.bench.peers.interface import Work

RESULT = Path(__file__).parent / "results" / "cpu-torch-training.json"
VOCABULARY, CLASSES = 256, 20
AIMS = {"GRU": 2.0, "RNN": 2.0, "packed": 2.0, "LSTM": 1.0}
"""How many times as fast a step is to be."""


@dataclass(frozen=True)
class Case:
    """A model and its batch; `packed` takes rows of T/4 to T steps as a packed sequence."""

    cell: str
    T: int
    N: int
    D: int
    H: int
    layers: int = 1
    bidirectional: bool = False
    packed: bool = False

    def __str__(self) -> str:
        text = f"{self.cell} T={self.T} N={self.N} D={self.D} H={self.H} x{self.layers}"
        return text + " bidirectional" * self.bidirectional + " packed" * self.packed

    @property
    def aim(self) -> float:
        return AIMS["packed" if self.packed else self.cell]


CASES = [
    Case("LSTM", 35, 20, 650, 650, 2),
    Case("LSTM", 50, 50, 128, 512, 2),
    Case("LSTM", 128, 64, 16, 64, 2),
    Case("LSTM", 100, 1, 256, 256),
    Case("LSTM", 60, 32, 128, 256, 1, True, packed=True),
    Case("LSTM", 100, 64, 128, 128, 2, packed=True),
    Case("GRU", 50, 32, 512, 512),
    Case("GRU", 100, 16, 128, 256, 2, True),
    Case("GRU", 100, 16, 64, 128),
    Case("GRU", 500, 4, 16, 128),
    Case("RNN", 64, 128, 128, 256),
    Case("RNN", 200, 16, 128, 128, 2),
]
QUICK = [Case("GRU", 8, 4, 8, 16), Case("LSTM", 8, 4, 8, 16, packed=True)]


class Model(torch.nn.Module):
    """Tokens in, a class for every step out."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, case.D)
        kind = getattr(torch.nn, case.cell)
        self.rnn = kind(case.D, case.H, case.layers, bidirectional=case.bidirectional)
        self.head = torch.nn.Linear(case.H * (1 + case.bidirectional), CLASSES)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        x = self.embed(tokens)
        if lengths is None:
            return self.head(self.rnn(x)[0].flatten(0, 1))
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return self.head(self.rnn(packed)[0].data)


def batch(case: Case) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return tokens, lengths and targets, the same on every run."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (case.T, case.N), generator=generator)
    lengths = None
    if case.packed:
        lengths = torch.randint(case.T // 4, case.T + 1, (case.N,), generator=generator)
        lengths[0] = case.T
    count = case.T * case.N if lengths is None else int(lengths.sum())
    return tokens, lengths, torch.randint(CLASSES, (count,), generator=generator)


def training_step(model: Model, case: Case) -> Callable[[], torch.Tensor]:
    """Return a function that makes one update and returns the loss before it."""
    tokens, lengths, targets = batch(case)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens, lengths), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return step


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Train both models for a few steps, compare their losses, and time further ones."""
    torch.manual_seed(0)
    before = Model(case)
    after = copy.deepcopy(before)
    accelerated = rnncore.torch.accelerate(after)
    assert accelerated.swapped == ("rnn",), accelerated
    steps = {"before": training_step(before, case), "after": training_step(after, case)}
    losses = {name: torch.stack([step() for _ in range(5)]) for name, step in steps.items()}
    torch.testing.assert_close(losses["after"], losses["before"], rtol=1e-3, atol=1e-4)
    works = {name: Work(step, dict) for name, step in steps.items()}
    times = interleaved(works, seconds)
    ratio = times["before"].median_s / times["after"].median_s
    return {"case": str(case), "aim": case.aim, "times_as_fast": ratio} | {
        name: stored(value) for name, value in times.items()
    }


def stored(times: Times) -> dict[str, Any]:
    return {"median_s": times.median_s, "spread": times.spread, "repeats": times.repeats}


def main() -> None:
    """Measure, print a row a case, slowest gains first, and store them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=rc.get_num_threads())
    parser.add_argument("--seconds", type=float, default=12.0, help="a row")
    parser.add_argument("--quick", action="store_true", help="two tiny models, to try it out")
    parser.add_argument("--out", type=Path, default=None, help="where the results go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rc.set_num_threads(options.threads)
    rows = []
    for case in QUICK if options.quick else CASES:
        rows.append(measure(case, options.seconds))
        print(f"{rows[-1]['times_as_fast']:6.2f}  {case}", flush=True)
    rows.sort(key=lambda row: row["times_as_fast"] / row["aim"])
    missed = [row["case"] for row in rows if row["times_as_fast"] < row["aim"]]
    print("aims missed:", ", ".join(missed) or "none")
    result = conditions(options.threads, []) | {
        "torch": torch.__version__,
        "command": shlex.join(["python", "benchmarks/torch_training.py", *sys.argv[1:]]),
    }
    out = options.out or (None if options.quick else RESULT)
    if out is not None:
        out.write_text(json.dumps({"conditions": result, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
