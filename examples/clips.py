"""The clips of spoken_digits.py: 20 bands by time, and the nearest clip as a baseline."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import jobs
import numpy as np

BANDS = 20


class Clips(NamedTuple):
    """Recordings: bands by time, what was said, who said it, and the how-manieth time."""

    bands: list[np.ndarray]
    digit: np.ndarray
    speaker: np.ndarray
    index: np.ndarray

    def at(self, places: np.ndarray) -> Clips:
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


def centred(clips: Clips, centre: str, mean: np.ndarray) -> Clips:
    """Take away each clip's spectrum, or a mean one and how loud each clip is; 15 dB become 1."""
    axis = 0 if centre == "spectrum" else None
    bands = [clip - mean for clip in clips.bands]
    return clips._replace(
        bands=[((clip - clip.mean(axis=axis)) / 15).astype(np.float32) for clip in bands]
    )


def made_clips(seed: int) -> tuple[Clips, list[str]]:
    """Return sounds for --quick: two formants that move as the digit says, high as the speaker."""
    draw, bands = np.random.default_rng(seed), []
    digit, speaker, index = (part.reshape(-1) for part in np.indices((10, 3, 15)))
    for what, who in zip(digit, speaker, strict=True):
        time_ = np.linspace(0, 1, draw.integers(10, 25))[:, None]
        low, high = 2 + who + 6 * time_ * (what % 3), 9 + who + 4 * (what // 3) * (time_ - 0.5)
        sound = sum(np.exp(-((np.arange(BANDS) - peak) ** 2) / 4) for peak in (low, high))
        bands.append(30 * sound + 5 * draw.standard_normal(sound.shape))
    return Clips(bands, digit, speaker, index), ["low", "middle", "high"]


def thirds(clips: Clips) -> np.ndarray:
    """Return the mean bands of each clip's three thirds, ``(N, 60)``."""
    parts = [[part.mean(axis=0) for part in np.array_split(clip, 3)] for clip in clips.bands]
    return np.array(parts).reshape(len(parts), -1)


def nearest_accuracy(known: Clips, test: Clips) -> float:
    """Return how often the nearest of all known clips says the same digit."""
    theirs, ours = thirds(known), thirds(test)
    distances = np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T
    return float((known.digit[distances.argmin(axis=1)] == test.digit).mean())
