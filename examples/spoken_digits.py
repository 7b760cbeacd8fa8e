"""Spoken digits of ragged lengths: 20 log-mel bands a step, a bidirectional GRU, ten classes.

1. The set's own split: clips 0-4 of each speaker and digit are the test. The speakers of the test
   are known from the training. Clips 5-9 choose the setting.
2. One speaker held out, each in turn. Of the other five, the two next to it choose the setting:
   each is held out too, and validates. So a voice that tests has no part in what is tested.

The setting chosen is trained three times on all that does not test, and the three answer together.
Beside them: the nearest training clip by the mean bands of a clip's three thirds.

python examples/spoken_digits.py --data DIR
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores
import selection
from clips import BANDS, Clips, centred, load_clips, made_clips, nearest_accuracy

import rnncore as rc
from rnncore import models, nn, train

FILE = "fsdd_logmel20.npz"
CLASSES, EPOCHS, MEMBERS = 10, 15, 3


class Setting(NamedTuple):
    """What validation chooses: what is taken away from a clip, how it is varied, how many units."""

    centre: str = "loudness"
    """Of each clip its mean over time and bands; or "spectrum", its mean in each band."""
    shift: int = 1
    noise: float = 0.3
    units: int = 64


SETTINGS = {
    "loudness, shift 1, noise": Setting(),
    "loudness, shift 2, noise": Setting(shift=2),
    "loudness, shift 1, noise, 128 units": Setting(units=128),
    "spectrum": Setting("spectrum", 0, 0.0),
    "spectrum, shift 1, noise": Setting("spectrum"),
}


class VariedBatches(train.PaddedBatches):
    """Batches whose clips differ each time: some bands higher or lower, or neither, and noise.

    Bands are shifted as by a longer or a shorter vocal tract (Jaitly and Hinton 2013).
    """

    setting = Setting()

    def _make(self, chosen: np.ndarray) -> train.PaddedBatch:
        batch, (_, shift, noise, _) = super()._make(chosen), self.setting
        draw = np.random.default_rng((self.seed, self.position))
        for n, length in enumerate(batch.lengths):
            clip = batch.inputs[:length, n]
            bands = np.clip(np.arange(BANDS) + draw.integers(-shift, shift + 1), 0, BANDS - 1)
            clip[:] = clip[:, bands] + noise * draw.standard_normal(clip.shape)
        return batch


class Listener(NamedTuple):
    """Trained classifiers, and how a clip is made what they read."""

    committee: selection.Committee
    centre: str
    mean: np.ndarray

    def tables(self, clips: Clips) -> list[np.ndarray]:
        """Return the confusions of all of them together, and of each."""
        rows = centred(clips, self.centre, self.mean).bands
        given = (scores.predictions(m, rows) for m in (self.committee, *self.committee.members))
        return [scores.confusions(clips.digit, one, CLASSES) for one in given]


def fit(known: Clips, setting: Setting, seeds: Sequence[int], epochs: int, label: str) -> Listener:
    """Train on clips, once for each seed; the last epoch counts."""
    mean = np.concatenate(known.bands).mean(axis=0, dtype=np.float32)
    rows, members = centred(known, setting.centre, mean), []
    for seed in seeds:
        layer = rc.GRU(BANDS, setting.units, bidirectional=True, seed=seed)
        model = models.Classifier(layer, CLASSES, reduce="max", dropout=0.3, seed=seed + 1)
        batches = VariedBatches(rows.bands, rows.digit.tolist(), 32, seed)
        batches.setting = setting
        plan = batches.per_epoch, epochs, 5e-3, None
        scores.fit(model, nn.SoftmaxCrossEntropy(), batches, *plan, label)
        members.append(model)
    return Listener(selection.Committee(members), setting.centre, mean)


def tasks_of(clips: Clips, names: list[str]) -> dict[str, selection.Parts]:
    """Return what is learnt, what validates and what tests: the set's split, then each speaker."""
    middle = (clips.index >= 5) & (clips.index < 10)
    tasks = {"known speakers": selection.nested_parts(clips.index < 5, [middle])}
    for number, name in enumerate(names):
        others = [clips.speaker == (number + step) % len(names) for step in (-1, 1)]
        tasks[f"without {name}"] = selection.nested_parts(clips.speaker == number, others)
    return tasks


class Chooser:
    """Trains settings and validates them; what was trained without two speakers serves both."""

    def __init__(self, clips: Clips, arguments: Namespace) -> None:
        self.clips, self.arguments = clips, arguments
        self._trained: dict[Any, Listener] = {}

    def __call__(self, setting: Setting, known: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        key, seeds = (setting, known.tobytes()), [self.arguments.seed]
        if key not in self._trained:
            found = fit(self.clips.at(known), setting, seeds, self.arguments.epochs, "validation")
            self._trained[key] = found
        return self._trained[key].tables(self.clips.at(unseen))[0]


def read_test(
    clips: Clips, parts: selection.Parts, listener: Listener, label: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the test part, which can be done once; return its confusions and the shares right."""
    test, learnt = clips.at(parts.test.open()), clips.at(parts.learnt)
    table, *each = listener.tables(test)
    ours = [centred(part, listener.centre, listener.mean) for part in (learnt, test)]
    figures = {
        "test_accuracy": scores.accuracy(table),
        "test_accuracy_of_each": [scores.accuracy(one) for one in each],
        "nearest_accuracy": nearest_accuracy(learnt, test),  # in dB, as they come
        "nearest_centred_accuracy": nearest_accuracy(*ours),
    }
    print(
        f"{label}: test {figures['test_accuracy']:.1%}, nearest {figures['nearest_accuracy']:.1%}"
    )
    return table, figures


def main() -> None:
    arguments = jobs.parser(__doc__ or "", "spoken-digits").parse_args()
    arguments.epochs = arguments.epochs or (8 if arguments.quick else EPOCHS)
    started = time.perf_counter()
    if arguments.quick:
        clips, names = made_clips(arguments.seed)
    else:
        clips, names = load_clips(jobs.find_data(arguments, "spoken-digits", [FILE]) / FILE)
    settings = dict(list(SETTINGS.items())[: 2 if arguments.quick else None])
    seeds = range(arguments.seed, arguments.seed + (1 if arguments.quick else 10 * MEMBERS), 10)
    tasks, chooser = tasks_of(clips, names), Chooser(clips, arguments)
    found: dict[str, Any] = {}
    listeners = {}
    for label, parts in tasks.items():
        given = settings, parts.inner, chooser, scores.accuracy, label
        chosen, validation = selection.choose(*given)
        known = clips.at(parts.learnt)
        listeners[label] = fit(known, settings[chosen], seeds, arguments.epochs, label)
        found[label] = {"chosen": chosen, "validation_accuracy": validation}
    tables = {}
    for label, parts in tasks.items():  # all has been chosen and trained
        tables[label], figures = read_test(clips, parts, listeners[label], label)
        found[label].update(figures)
    known, *held_out = tables.values()
    shown = {"known speakers": known, "one speaker held out": np.sum(held_out, axis=0)}
    digits = [str(digit) for digit in range(CLASSES)]
    for name, table in shown.items():
        found[f"{name}, all"] = scores.figures_of(f"{name}, all", [table], digits)
    scores.draw_confusions(jobs.picture_path("spoken_digits", arguments), shown, digits)
    jobs.write_results("spoken_digits", arguments, found, started)


if __name__ == "__main__":
    main()
