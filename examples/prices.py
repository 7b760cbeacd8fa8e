"""Daily prices for next_close.py: their files, one that is made up, and what is modelled."""

from __future__ import annotations

import jobs
import numpy as np

# File, column, whether it starts with the newest day, whether it has logarithms.
PRICES = {
    "S&P 500": ("sp500_daily_2000_2020.csv", "close", False, True),
    "GOOG": ("goog_daily_732.csv", "Close", True, True),
    "AAPL": ("aapl_daily_2015_2017.csv", "AAPL.Close", False, True),
    "WTI": ("wti_daily_usd.csv", "Price", False, False),  # -36.98 dollars on 2020-04-20
    "VIX": ("vix_daily.csv", "CLOSE", False, True),
}
FILES = [file for file, *_ in PRICES.values()]


def closes(folder, name):
    """Return the closes of a price in order of time."""
    file, column, newest_first, _ = PRICES[name]
    rows = [line.lstrip("# ").split(",") for line in jobs.read_lines(folder / file)]
    header = next(place for place, row in enumerate(rows) if column in row)
    place = rows[header].index(column)
    values = np.array([float(row[place]) for row in rows[header + 1 :]])
    return values[::-1].copy() if newest_first else values


def made_up(length, seed):
    """Return a price whose relative changes remember half of the day before."""
    changes = 0.01 * np.random.default_rng(seed).standard_normal(length)
    for day in range(1, length):
        changes[day] += 0.5 * changes[day - 1]
    return 100 * np.exp(np.cumsum(changes))


class View:
    """A price as the series that is modelled, and the way back to a price.

    Parameters
    ----------
    values : ndarray (days,)
        The price.
    changes : bool
        Whether its changes are modelled instead of itself.
    logs : bool
        Whether changes are those of the logarithm.
    """

    def __init__(self, values, changes: bool, logs: bool) -> None:
        self.price, self.changes, self.logs = values, changes, logs
        base = np.log(values) if changes and logs else values
        # The first day has no change: it is left out of every view, so that days agree.
        self.series = np.diff(base) if changes else values[1:]

    def to_price(self, forecast, day: int):
        """Return the prices that forecasts of the series for ``day`` and on stand for."""
        if not self.changes:
            return forecast
        today = self.price[day - 1 : day - 1 + np.shape(forecast)[-1]]
        return today * np.exp(forecast) if self.logs else today + forecast
