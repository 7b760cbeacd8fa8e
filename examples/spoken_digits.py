"""Spoken digits of ragged lengths: 20 log-mel bands a step, a bidirectional GRU, ten classes.

1. The set's own split: clips 0-4 of each speaker and digit are the test, 5-9 validate. The speakers
   of the test are known from the training.
2. One speaker held out: six trainings, each tested on a voice that it has never heard.

Beside them: the nearest training clip by the mean bands of a clip's three thirds.

python examples/spoken_digits.py --data DIR
"""

from __future__ import annotations

import io
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores

import rnncore as rc
from rnncore import models, nn, train

FILE = "fsdd_logmel20.npz"
BANDS, CLASSES, UNITS, EPOCHS = 20, 10, 64, 15


class Clips(NamedTuple):
    """Recordings: bands by time, what was said, who said it, and the how-manieth time."""

    bands: list[np.ndarray]
    digit: np.ndarray
    speaker: np.ndarray
    index: np.ndarray

    def chosen(self, which: np.ndarray) -> Clips:
        places = np.flatnonzero(which)
        rest = (self.digit[places], self.speaker[places], self.index[places])
        return Clips([self.bands[i] for i in places], *rest)


def load_clips(path: Path) -> tuple[Clips, list[str]]:
    with np.load(io.BytesIO(jobs.read(path))) as stored:
        data = {name: stored[name] for name in stored.files}
    cuts = data["offsets"][1:-1]
    whole = Clips(
        np.split(data["features"], cuts),
        *(data[name].astype(int) for name in ("label", "speaker", "index")),
    )
    return whole, data["speaker_names"].tolist()


def centred(clips: Clips, mean: np.ndarray) -> Clips:
    """Take away a mean spectrum, and from each clip how loud it is; 15 dB become 1."""
    bands = [(clip - mean) for clip in clips.bands]
    return clips._replace(bands=[((clip - clip.mean()) / 15).astype(np.float32) for clip in bands])


def made_clips(seed: int) -> tuple[Clips, list[str]]:
    """Return sounds for --quick: two formants that move as the digit says, high as the speaker."""
    draw, bands = np.random.default_rng(seed), []
    digit, speaker, index = (part.reshape(-1) for part in np.indices((10, 3, 20)))
    for what, who in zip(digit, speaker, strict=True):
        time_ = np.linspace(0, 1, draw.integers(10, 25))[:, None]
        low, high = 2 + who + 6 * time_ * (what % 3), 9 + who + 4 * (what // 3) * (time_ - 0.5)
        sound = sum(np.exp(-((np.arange(BANDS) - peak) ** 2) / 4) for peak in (low, high))
        bands.append(30 * sound + 5 * draw.standard_normal(sound.shape))
    return Clips(bands, digit, speaker, index), ["low", "middle", "high"]


class VariedBatches(train.PaddedBatches):
    """Batches whose clips differ each time: a band higher, or lower, or neither, and noise.

    Bands are shifted as by a longer or a shorter vocal tract (Jaitly and Hinton 2013).
    """

    def _make(self, chosen: np.ndarray) -> train.PaddedBatch:
        batch = super()._make(chosen)
        draw = np.random.default_rng((self.seed, self.position))
        for n, length in enumerate(batch.lengths):
            clip = batch.inputs[:length, n]
            bands = np.arange(BANDS) + draw.integers(-1, 2)
            clip[:] = clip[:, np.clip(bands, 0, BANDS - 1)] + 0.3 * draw.standard_normal(clip.shape)
        return batch


def fit(known: Clips, validation: Clips, epochs: int, seed: int, label: str) -> models.Classifier:
    """Train on clips; the epoch of the lowest validation loss is the one that is kept."""
    layer = rc.GRU(BANDS, UNITS, bidirectional=True, seed=seed)
    model = models.Classifier(layer, CLASSES, reduce="max", dropout=0.3, seed=seed + 1)
    batches = VariedBatches(known.bands, known.digit.tolist(), 32, seed)
    unseen = train.PaddedBatches(validation.bands, validation.digit.tolist(), 64, shuffle=False)
    loss = nn.SoftmaxCrossEntropy()

    def validate(model: Any) -> float:
        return train.evaluate(model, loss, unseen.epoch())

    scores.fit(model, loss, batches, batches.per_epoch, epochs, 5e-3, validate, label)
    return model


def thirds(clips: Clips) -> np.ndarray:
    """Return the mean bands of each clip's three thirds, ``(N, 60)``."""
    parts = [[part.mean(axis=0) for part in np.array_split(clip, 3)] for clip in clips.bands]
    return np.array(parts).reshape(len(parts), -1)


def nearest_accuracy(known: list[Clips], test: Clips) -> float:
    """Return how often the nearest of all known clips says the same digit."""
    theirs, ours = np.concatenate([thirds(part) for part in known]), thirds(test)
    digits = np.concatenate([part.digit for part in known])
    distances = np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T
    return float((digits[distances.argmin(axis=1)] == test.digit).mean())


def compare(
    parts: list[Clips], arguments: Namespace, label: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train, and read the test part once; return its confusions and the shares right."""
    mean = np.concatenate(parts[0].bands).mean(axis=0, dtype=np.float32)
    known, validation, test = (centred(part, mean) for part in parts)
    epochs = arguments.epochs or (10 if arguments.quick else EPOCHS)
    model = fit(known, validation, epochs, arguments.seed, label)
    tables = {
        part: scores.confusions(clips.digit, scores.predictions(model, clips.bands), CLASSES)
        for part, clips in (("validation", validation), ("test", test))
    }
    figures = {f"{part}_accuracy": scores.accuracy(table) for part, table in tables.items()}
    figures["nearest_accuracy"] = nearest_accuracy(parts[:2], parts[2])  # in dB, as they come
    figures["nearest_centred_accuracy"] = nearest_accuracy([known, validation], test)
    line = ", ".join(
        f"{name[:-9].replace('_', ' ')} {value:.1%}" for name, value in figures.items()
    )
    print(f"{label}: {line}")
    return tables["test"], figures


def main() -> None:
    arguments = jobs.parser(__doc__ or "", "spoken-digits").parse_args()
    started = time.perf_counter()
    if arguments.quick:
        clips, names = made_clips(arguments.seed)
    else:
        clips, names = load_clips(jobs.find_data(arguments, "spoken-digits", [FILE]) / FILE)
    early, late = clips.index < 5, clips.index >= 10
    validates = ~early & ~late
    parts = [clips.chosen(which) for which in (late, validates, early)]
    table, figures = compare(parts, arguments, "known speakers")
    found: dict[str, Any] = {"known speakers": figures}
    held_out = np.zeros_like(table)
    for number, name in enumerate(names):
        alone = clips.speaker == number
        parts = [clips.chosen(which) for which in (~validates & ~alone, validates & ~alone, alone)]
        table_of_one, found[f"without {name}"] = compare(parts, arguments, f"without {name}")
        held_out += table_of_one
    found["one speaker held out"] = {
        "test_accuracy": scores.accuracy(held_out),
        "macro_f1": scores.macro_f1(held_out),
    }
    print(f"one speaker held out, all of them: {scores.accuracy(held_out):.1%}")
    tables = {"known speakers": table, "one speaker held out": held_out}
    digits = [str(digit) for digit in range(CLASSES)]
    scores.draw_confusions(jobs.picture_path("spoken_digits", arguments), tables, digits)
    jobs.write_results("spoken_digits", arguments, found, started)


if __name__ == "__main__":
    main()
