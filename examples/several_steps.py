"""The series of forecast.py, and the task of forecasting one: parts, scaling, baselines."""

from __future__ import annotations

from typing import NamedTuple

import jobs
import numpy as np
import time_series as ts

# What is modelled: the values, the same less a window's last one, or changes from season to season.
VIEWS = LEVELS, RELATIVE, SEASONAL = "levels", "relative", "seasonal"
SMALL = ts.Settings(24, cell="GRU", hidden=16, rate=5e-3, batch=16, epochs=100, patience=15)


class Series(NamedTuple):
    """A series and how it is forecast; validation has chosen view and settings."""

    file: str
    unit: str
    season: float
    horizons: dict
    """Steps ahead, and the view in which each is forecast; None if the job is to choose it."""
    settings: ts.Settings = SMALL
    windows: tuple = ()
    """How many steps a window may have, where the job is to choose that too."""
    ends: tuple | None = None
    """Of the training and the validation part and of all; 60, 80 and 100 % if None."""


SHIPPED = {
    "Nile": Series("nile.csv", "10^8 m3", 1, {5: LEVELS}, SMALL._replace(steps=10)),
    "sunspots": Series(
        "sunspots.csv", "", 11, {5: LEVELS, 11: SEASONAL}, SMALL._replace(steps=33, hidden=32)
    ),
    "El Nino": Series("elnino.csv", "degrees C", 12, {6: RELATIVE, 12: LEVELS}),
    "CO2": Series(
        "co2.csv", "ppmv", 365.25 / 7, {13: RELATIVE, 52: RELATIVE}, SMALL._replace(steps=52)
    ),
}
ELSEWHERE = {
    "sunspots by month": Series(
        "monthly-sunspots.csv",
        "",
        132,
        {12: None, 60: None},
        SMALL._replace(steps=72, hidden=32, batch=64, epochs=30, patience=6),
        windows=(72, 144),
    ),
    "Melbourne": Series(
        "daily-min-temperatures.csv",  # it has no 29th of February
        "degrees C",
        365,
        {7: LEVELS, 30: LEVELS},
        SMALL._replace(steps=30, batch=64, epochs=30, patience=6),
    ),
    "ETTh1": Series(
        "ETTh1.csv",
        "degrees C",
        24,
        {24: RELATIVE, 48: RELATIVE, 168: RELATIVE, 336: RELATIVE, 720: RELATIVE},
        ts.Settings(168, cell="GRU", hidden=32, rate=1e-3, batch=64, epochs=8, patience=2),
        ends=(8640, 11520, 14400),  # 12, 4 and 4 months of 30 days, as others do
    ),
}


def values_of(folder, name, series):
    """Return a series by time, not a number where there is a gap."""
    lines = jobs.read_lines(folder / series.file)[1:]
    rows = [line.replace('"', "").split(",") for line in lines]
    cells = [cell for row in rows for cell in (row[1:] if name == "El Nino" else row[-1:])]
    return np.array([float(cell or "nan") for cell in cells])


def filled(values):
    """Return a series whose gaps hold the last value before them."""
    places = np.where(np.isnan(values), 0, np.arange(len(values)))
    return values[np.maximum.accumulate(places)]


class Task:
    """A series up to an end, scaled by its training part, in the view that is modelled.

    Forecasts are ``(windows, horizon)`` in standard deviations of the training part; the first
    window's first target lies at ``start``.

    Parameters
    ----------
    series : Series
        What to do.
    values : ndarray (length,)
        Not a number where there is a gap.
    horizon : int
        Steps ahead.
    view : str
        Of `VIEWS`.
    validate : bool
        Whether the validation part is forecast, and the test part not even looked at.
    """

    def __init__(self, series, values, horizon: int, view: str, validate: bool) -> None:
        count = len(values)
        self.learnt, known, end = series.ends or (int(0.6 * count), int(0.8 * count), count)
        self.view, self.known, self.horizon, self.season = view, known, horizon, int(series.season)
        self.start, end = (self.learnt, known) if validate else (known, end)
        past = filled(values)[: self.learnt]
        self.mean, self.deviation = past.mean(), past.std()
        self.truth = (values[:end] - self.mean) / self.deviation
        self.scaled = (filled(values[:end]) - self.mean) / self.deviation
        self.settings = series.settings._replace(horizon=horizon, relative=view == RELATIVE)
        # Seasonal changes reach back as many whole seasons as the horizon needs.
        self.lag = self.season * -(-horizon // self.season) if view == SEASONAL else 0
        changes = self.scaled[self.lag :] - self.scaled[: -self.lag] if self.lag else self.scaled
        turn = 2 * np.pi * np.arange(self.lag, end) / series.season
        calendar = [np.sin(turn), np.cos(turn)] if self.season > 1 else []
        self.columns = np.stack([changes, *calendar], axis=1)

    def errors(self, forecast):
        """Return forecasts less the truth, not a number in gaps."""
        return forecast - ts.targets(self.truth, self.start, self.horizon)

    def base(self):
        """Return what forecasts of seasonal changes are added to; 0 in another view."""
        if not self.lag:
            return 0.0
        return ts.targets(self.scaled[: -self.lag], self.start - self.lag, self.horizon)

    def baselines(self):
        """Return the forecasts by name that need no network."""
        scaled, season = self.scaled, self.season
        origins = np.arange(self.start, len(scaled) - self.horizon + 1)[:, None]
        ahead = np.arange(self.horizon)
        past = scaled[: self.learnt]
        means = np.array([past[phase::season].mean() for phase in range(season)])
        return {
            "persistence": np.repeat(scaled[origins - 1], self.horizon, axis=1),
            "seasonal naive": scaled[origins + ahead % season - season],
            "season's mean": means[(origins + ahead) % season],
            "least squares": self.least_squares(),
        }

    def least_squares(self):
        """Return forecasts linear in what the network sees, with a light ridge."""
        steps, values = self.settings.steps, self.columns[:, 0]
        windows = np.lib.stride_tricks.sliding_window_view(values, steps + self.horizon)
        last = windows[:, steps - 1 : steps] * float(self.settings.relative)
        count = len(windows)
        calendar = self.columns[steps : steps + count, 1:]
        x = np.column_stack([windows[:, :steps] - last, np.ones(count), calendar])
        y = windows[:, steps:] - last
        learnt = self.learnt - self.lag - steps - self.horizon + 1
        square = x[:learnt].T @ x[:learnt] + 1e-3 * learnt * np.eye(x.shape[1])
        weights = np.linalg.solve(square, x[:learnt].T @ y[:learnt])
        tested = slice(self.start - self.lag - steps, None)
        return x[tested] @ weights + last[tested] + self.base()

    def network(self, seed: int):
        """Return a trained network's forecasts."""
        seen = self.columns[: self.known - self.lag]
        fitted = ts.fit(seen, self.learnt - self.lag, self.settings, seed)
        start = self.start - self.lag
        return ts.forecasts(fitted.model, self.columns, start, self.settings) + self.base()


def choose(series, values, horizon: int, seed: int):
    """Return the view, and the series in the settings, that validate best; and what each reached.

    What a view and a window reach is the error of one network on the validation part: these tasks
    end where the test part begins.
    """

    def seeing(steps: int):
        return series._replace(settings=series.settings._replace(steps=steps))

    found = {}
    for view in VIEWS:
        for steps in series.windows:
            task = Task(seeing(steps), values, horizon, view, validate=True)
            errors = task.errors(task.network(seed))
            found[view, steps] = float(np.nanmean(np.square(errors)))
    view, steps = min(found, key=lambda one: found[one])
    reached = {f"{view}, window {steps}": error for (view, steps), error in found.items()}
    return view, seeing(steps), reached
