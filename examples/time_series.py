"""What the jobs on series share: windows, a fit, forecasts and a test of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

import rnncore as rc
from rnncore import models, nn, train


class Settings(NamedTuple):
    """How a forecaster looks and learns."""

    steps: int
    horizon: int = 1
    cell: str = "LSTM"
    hidden: int = 16
    rate: float = 3e-3
    batch: int = 64
    epochs: int = 30
    patience: int = 5
    weight_decay: float = 0.0
    relative: bool = False


def changed(settings: Settings, arguments) -> Settings:
    """Return settings with what ``--quick``, ``--epochs`` and ``--set`` ask for.

    Raises
    ------
    SystemExit
        If ``--set`` has anything but a setting's name, an equals sign and its value.
    """
    if arguments.quick or arguments.epochs:
        settings = settings._replace(epochs=arguments.epochs or 20)
    for words in arguments.set:
        name, _, value = words.partition("=")
        kind = type(getattr(settings, name, None))
        if kind not in (int, float, str):
            raise SystemExit(f"--set: expected one of {settings._fields} and a value, got {words}")
        settings = settings._replace(**{name: kind(value)})
    return settings


def add_arguments(parser, names) -> None:
    """Add the arguments that both jobs on series have; ``names`` are those of the series."""
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    parser.add_argument("--only", nargs="+", choices=names, help="these series alone")
    parser.add_argument("--validate", action="store_true", help="leave the test part unread")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="try a setting")


class Windows(train.WindowBatches):
    """Windows of a series whose first column is forecast, maybe relative to its last value seen."""

    def __init__(self, series, settings: Settings, seed: int = 0, shuffle: bool = True) -> None:
        steps, horizon, batch = settings.steps, settings.horizon, settings.batch
        super().__init__(series, batch, steps, horizon, seed, columns=[0], shuffle=shuffle)
        self._relative = settings.relative

    def _make(self, chosen):
        made = super()._make(chosen)
        if self._relative:
            last = made.inputs[-1:, :, :1].copy()
            made.inputs[:, :, :1] -= last
            made.targets[...] -= last
        return made


class Fit(NamedTuple):
    """A trained model and its mean squared error on the validation part, as scaled."""

    model: models.Forecaster
    validation: float


def fit(series, cut: int, settings: Settings, seed: int) -> Fit:
    """Train a forecaster on what is before ``cut``; what follows there decides when it ends.

    Parameters
    ----------
    series : ndarray (length, D)
        Scaled; the first column is forecast. No target of a window that is learnt from lies at
        ``cut`` or later, and none that validates lies before it.
    """
    series = np.asarray(series, np.float32)
    batches = Windows(series[:cut], settings, seed)
    held = Windows(series[cut - settings.steps :], settings, shuffle=False)
    layer = getattr(rc, settings.cell)(series.shape[1], settings.hidden, seed=seed)
    model = models.Forecaster(layer, 1, settings.horizon, seed=seed + 1)
    trainer = train.Trainer(
        model,
        nn.MeanSquaredError(),
        train.AdamW(model, lr=settings.rate, weight_decay=settings.weight_decay),
        batches,
        schedule=train.Cosine(settings.rate, settings.epochs * batches.per_epoch),
        max_norm=1.0,
        validate=lambda model: train.evaluate(model, nn.MeanSquaredError(), held.epoch()),
        validate_every=batches.per_epoch,
        patience=settings.patience,
        progress=False,
    )
    trainer.run(settings.epochs * batches.per_epoch)
    return Fit(model, trainer.history.best[1])


def forecasts(model, series, start: int, settings: Settings):
    """Forecast from every place whose first target lies at ``start`` or later.

    Returns
    -------
    ndarray (windows, horizon)
        In the series' scaled unit; window ``w`` has targets ``start + w`` and following.
    """
    seen = np.asarray(series, np.float32)[start - settings.steps : len(series) - settings.horizon]
    windows = np.lib.stride_tricks.sliding_window_view(seen, settings.steps, axis=0)
    made = []
    for first in range(0, len(windows), 512):
        x = np.array(windows[first : first + 512].transpose(2, 0, 1), order="C")
        last = x[-1, :, :1].copy() if settings.relative else np.float32(0)
        x[:, :, :1] -= last
        made.append(model(x)[:, :, 0].T + last)
    return np.concatenate(made).astype(np.float64)


def targets(values, start: int, horizon: int):
    """Return what is to be forecast from the same places, ``(windows, horizon)``."""
    return np.lib.stride_tricks.sliding_window_view(np.asarray(values)[start:], horizon)


def diebold_mariano(errors, other) -> float:
    """Return the p value of both forecasts being equally good; one step ahead, squared loss.

    The variance of the mean difference is Newey and West's with a Bartlett window of
    ``n ** (1/3)`` lags, the statistic's distribution the normal one (Diebold and Mariano 1995).
    """
    difference = np.square(errors) - np.square(other)
    count, centred = len(difference), difference - difference.mean()
    variance = centred @ centred / count
    lags = int(count ** (1 / 3))
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (centred[lag:] @ centred[:-lag]) / count
    if variance <= 0:
        return 1.0  # the same forecasts
    return math.erfc(abs(difference.mean()) / math.sqrt(2 * variance / count))


def rmse(errors) -> float:
    """Return the root of the mean square; what is not a number does not count."""
    return float(np.sqrt(np.nanmean(np.square(errors))))
