"""The next chord of Bach's chorales: 88 yes-or-no answers a step, after everything so far.

A step is a quarter note, a vector of the 88 keys of MIDI 21 to 108. The figure is the negative
log-likelihood of a step in nats: the binary cross-entropies of its keys summed, and the mean of
that over all steps of all sequences of the part. The first step is predicted from silence; the
mean without it, as the published figures were taken, is given beside. Published: GRU 8.43,
LSTM 8.45, RNN 8.91 (Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and
recurrent networks for sequence modeling, 2018).

python examples/next_chord.py --data DIR
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import jobs
import numpy as np

import rnncore as rc
from rnncore import models, nn, train
from rnncore.pictures import new_figure

FILE = "jsb-chorales-quarter.json"
LOWEST, KEYS = 21, 88
PARTS = ("train", "valid", "test")
UNITS, EPOCHS = 300, 150
RATES = {"GRU": 3e-3, "LSTM": 3e-3, "RNN": 1e-3}
Rolls = list[np.ndarray]


def roll(chords: list[list[int]]) -> np.ndarray:
    """Return which keys are down, ``(1 + T, 88)``: silence, then the chords."""
    keys = np.zeros((1 + len(chords), KEYS), dtype=np.float32)
    for t, notes in enumerate(chords, start=1):
        keys[t, np.array(notes, dtype=int) - LOWEST] = 1
    return keys


def made_chords(seed: int) -> dict[str, Rolls]:
    """Return chords for --quick: triads that go round the circle of fifths, or stay."""
    draw, parts = np.random.default_rng(seed), {}
    for part, count in zip(PARTS, (80, 20, 20), strict=True):
        walks = [
            np.cumsum(7 * draw.integers(0, 2, size=draw.integers(8, 20))) for _ in range(count)
        ]
        parts[part] = [
            roll([[48 + (root + i) % 12 for i in (0, 4, 7)] for root in w]) for w in walks
        ]
    return parts


def batches_of(rolls: Rolls, batch: int, seed: int = 0, **options: Any) -> train.PaddedBatches:
    """Batch sequences: each step's input is the chord before it."""
    return train.PaddedBatches(
        [one[:-1] for one in rolls], [one[1:] for one in rolls], batch, seed, **options
    )


def make_model(cell: str, rolls: Rolls, units: int, seed: int) -> models.Tagger:
    """Make a tagger whose first answers are how often each key is down."""
    layer = getattr(rc, cell)(KEYS, units, recurrent_dropout=0.5, seed=seed)
    model = models.Tagger(layer, KEYS, dropout=0.1, seed=seed + 1)
    model.output.params["bias"][...] = logits(shares_down(rolls))
    return model


def fit(cell: str, data: dict[str, Rolls], arguments: Namespace, seed: int) -> train.Trainer:
    """Train until the validation part has not become better for 15 epochs, and keep its best."""
    epochs = arguments.epochs or (10 if arguments.quick else EPOCHS)
    model = make_model(cell, data["train"], 32 if arguments.quick else UNITS, seed)
    batches, unseen = batches_of(data["train"], 16, seed), batches_of(data["valid"], 16)
    loss = nn.SigmoidCrossEntropy()
    trainer = train.Trainer(
        model,
        loss,
        train.AdamW(model, weight_decay=0.0),
        batches,
        schedule=train.Plateau(RATES[cell], divisor=2, patience=3),
        max_norm=1.0,
        validate=lambda model: KEYS * train.evaluate(model, loss, unseen.epoch()),
        validate_every=batches.per_epoch,
        patience=15,
    )
    trainer.run(epochs * batches.per_epoch, f"{cell}, seed {seed}")
    return trainer


def nats(rolls: Rolls, answers: Any) -> tuple[float, float]:
    """Return the mean over all steps, and over all but each sequence's first.

    ``answers`` takes a roll's inputs ``(T, 88)`` and returns logits of what follows each.
    """
    loss, steps = nn.SigmoidCrossEntropy("sum"), sum(len(one) - 1 for one in rolls)
    found = [answers(one[:-1]) for one in rolls]
    whole = sum(loss(x, one[1:]) for x, one in zip(found, rolls, strict=True))
    first = sum(loss(x[0], one[1]) for x, one in zip(found, rolls, strict=True))
    return whole / steps, (whole - first) / (steps - len(rolls))


def logits(shares: np.ndarray) -> np.ndarray:
    kept = np.clip(shares, 1e-4, 1 - 1e-4)
    return np.log(kept / (1 - kept)).astype(np.float32)


def shares_down(rolls: Rolls) -> np.ndarray:
    """Return how often each key is down."""
    counted: np.ndarray = np.concatenate([one[1:] for one in rolls]).mean(axis=0)
    return counted


def counted_answers(rolls: Rolls) -> dict[str, Any]:
    """Return two models that only count: a key's share, and that after the key was up or down."""
    before = np.concatenate([one[:-1] for one in rolls]).astype(bool)
    after = np.concatenate([one[1:] for one in rolls])
    alone = logits(shares_down(rolls))
    up, down = (
        logits((np.where(given, after, 0).sum(axis=0) + 0.1) / (given.sum(axis=0) + 1))
        for given in (~before, before)
    )
    return {
        "share of each key": lambda x: np.broadcast_to(alone, x.shape),
        "share after the same key": lambda x: np.where(x > 0, down, up),
    }


def draw_chords(path: Path | None, played: np.ndarray, chances: np.ndarray, curves: Any) -> None:
    """Draw a chorale, what was expected at each of its steps, and the trainings."""
    figure = None if path is None else new_figure(15, 4)
    if figure is None or path is None:
        return
    left, middle, right = figure.subplots(1, 3)
    for axes, shown, title in ((left, played, "played"), (middle, chances, "expected before it")):
        axes.imshow(
            shown.T, origin="lower", aspect="auto", cmap="magma_r", vmin=0, vmax=1,
            extent=(-0.5, len(shown) - 0.5, LOWEST - 0.5, LOWEST + KEYS - 0.5),
        )  # fmt: skip
        axes.set(xlabel="step", ylabel="MIDI note", ylim=(40, 100), title=title)
    for name, validation in curves.items():
        right.plot([value for _, value in validation], label=name)
    right.set(xlabel="epoch", ylabel="nats a step, validation", title="training")
    right.legend()
    jobs.save_picture(figure, path)


def main() -> None:
    made = jobs.parser(__doc__ or "", "music")
    made.add_argument("--seeds", type=int, default=2, help="trainings of each cell (default: 2)")
    arguments = made.parse_args()
    started = time.perf_counter()
    if arguments.quick:
        data, seeds = made_chords(arguments.seed), 1
    else:
        stored = json.loads(jobs.read(jobs.find_data(arguments, "music", [FILE]) / FILE))
        data, seeds = {part: [roll(one) for one in stored[part]] for part in PARTS}, arguments.seeds
    found: dict[str, Any] = {}
    for name, answers in counted_answers(data["train"]).items():
        found[name] = {"test": nats(data["test"], answers)[0]}
        print(f"{name}: test {found[name]['test']:.3f} nats a step")
    curves, best = {}, (np.inf, None)
    for cell in RATES:
        runs = []
        for seed in range(arguments.seed, arguments.seed + seeds):
            trainer = fit(cell, data, arguments, seed)
            figures = [nats(data[part], trainer.model) for part in PARTS]
            runs.append(figures)
            line = ", ".join(
                f"{p} {whole:.3f}" for p, (whole, _) in zip(PARTS, figures, strict=True)
            )
            print(f"{cell}, seed {seed}: {line}; without first steps, test {figures[2][1]:.3f}")
            curves[f"{cell}, seed {seed}"] = trainer.history.validation
            best = min(best, (figures[1][0], trainer.model), key=lambda one: one[0])
        values = np.array(runs)  # (seeds, parts, with and without first steps)
        found[cell] = {
            "validation": values[:, 1, 0],
            "test": values[:, 2, 0],
            "test_mean": values[:, 2, 0].mean(),
            "test_spread": values[:, 2, 0].std(),
            "test_without_first_steps": values[:, 2, 1],
        }
    chorale, model = data["test"][0], best[1]
    chances = 1 / (1 + np.exp(-model(chorale[:-1])))
    draw_chords(jobs.picture_path("next_chord", arguments), chorale[1:], chances, curves)
    jobs.write_results("next_chord", arguments, found, started)


if __name__ == "__main__":
    main()
