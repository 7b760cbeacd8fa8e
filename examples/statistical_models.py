"""Classical models beside the network: an autoregression, ARIMA and tests of its residuals."""

from __future__ import annotations

import warnings

import numpy as np

ORDERS = [(p, 1, q) for p in range(3) for q in range(3)]
RECENT = 2000  # days on which the order is chosen
HINT = "ARIMA and the tests of its residuals are left out: pip install 'rnncore[examples]'"


def lagged(series, lags: int):
    """Return what precedes each value of a series, ``(length - lags, 1 + lags)``, ones first."""
    windows = np.lib.stride_tricks.sliding_window_view(series[:-1], lags)
    return np.column_stack([np.ones(len(windows)), windows])


def autoregression(series, start: int, lags: int):
    """Forecast one step ahead from ``start`` on, by least squares on what lies before it."""
    known = lagged(series, lags)
    split = start - lags
    weights = np.linalg.lstsq(known[:split], series[lags:start], rcond=None)[0]
    return known[split:] @ weights


class Arima:
    """ARIMA(p, 1, q) of the order that AIC prefers on the last 2,000 days of the first past.

    Without statsmodels ``order`` is None, and there is nothing else.

    Parameters
    ----------
    series : ndarray (length,)
        Prices or their logarithms.
    start : int
        Where the first past ends.
    """

    def __init__(self, series, start: int) -> None:
        self._series, self._start = series, start
        self.order, self._first = None, None
        try:
            import statsmodels.api  # noqa: F401
        except ImportError:
            print(HINT)
            return
        recent = series[max(0, start - RECENT) : start]
        self.order = min(ORDERS, key=lambda order: self._fit(recent, order).aic)

    def _fit(self, series, order):
        from statsmodels.tsa.arima.model import ARIMA

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # starting values that it replaces itself
            return ARIMA(series, order=order).fit()

    def forecast(self, start: int, end: int):
        """Fit on everything before ``start``; forecast each step to ``end`` from the one before."""
        fitted = self._fit(self._series[:start], self.order)
        if start == self._start:
            self._first = fitted
        after = fitted.append(self._series[start:end], refit=False)
        return after.predict(start, end - 1)

    def residual_tests(self) -> dict[str, float]:
        """Return p values of what the residuals of the first past should be.

        Independent (Ljung-Box, 10 lags), of equal variance (Breusch-Pagan by the five changes
        before; Engle's ARCH test, 5 lags), normal (Jarque-Bera), and linear: powers of the
        regression on those changes add nothing (Ramsey's RESET). A small p speaks against it.
        """
        from statsmodels.api import OLS
        from statsmodels.stats import api, diagnostic, stattools

        if self._first is None:
            raise RuntimeError("residual_tests: expected a forecast() from the first past before")
        residuals = self._first.resid[6:]
        changes = np.diff(self._series[: self._start])
        known = lagged(changes / changes.std(), 5)
        regression = OLS(residuals / residuals.std(), known).fit()
        free = self.order[0] + self.order[2]
        box = api.acorr_ljungbox(residuals, lags=[10], model_df=free)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            arch = api.het_arch(residuals, nlags=5)[1]
        return {
            "independence, Ljung-Box": float(box["lb_pvalue"].iloc[0]),
            "equal variance, Breusch-Pagan": float(api.het_breuschpagan(residuals, known)[1]),
            "equal variance, ARCH": float(arch),
            "normality, Jarque-Bera": float(stattools.jarque_bera(residuals)[1]),
            "linearity, RESET": float(diagnostic.linear_reset(regression, 3, use_f=True).pvalue),
        }

    def facts(self) -> dict:
        """Return order and tests for the file of results."""
        if self.order is None:
            return {}
        import statsmodels

        past = self._series[: self._start]
        return {
            "statsmodels": statsmodels.__version__,
            "ARIMA order": self.order,
            "ARIMA residuals, p": self.residual_tests(),
            "unit root, p": {"levels": _unit_root(past), "changes": _unit_root(np.diff(past))},
        }


def _unit_root(series) -> float:
    """Return the p value of Dickey and Fuller's augmented test: small speaks for stationary."""
    from statsmodels.tsa.stattools import adfuller

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return float(adfuller(series, maxlag=10)[1])
