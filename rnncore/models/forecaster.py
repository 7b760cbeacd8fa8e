"""Many to one, for numbers: what follows a window of a series."""

from __future__ import annotations

from typing import Any

from rnncore.checks import Array, size
from rnncore.layers.base import Layer
from rnncore.models.parts import reverse_features
from rnncore.models.pooling import pool
from rnncore.models.sequence_model import SequenceModel


class Forecaster(SequenceModel):
    """Read a window of a series and forecast the steps that follow, all at once.

    Parameters
    ----------
    layer : layer
        Any recurrent layer or stack that takes time first and is not stateful.
    columns : int
        Values of a step that are forecast.
    horizon : int
        Steps that are forecast.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = Forecaster(rc.LSTM(2, 8, seed=0), columns=1, horizon=3, seed=1)
    >>> model(np.ones((24, 5, 2), np.float32)).shape
    (3, 5, 1)
    """

    def __init__(
        self,
        layer: Layer,
        columns: int = 1,
        horizon: int = 1,
        *,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.columns, self.horizon = size("columns", columns), size("horizon", horizon)
        super().__init__(layer, self.columns * self.horizon, dropout=dropout, seed=seed)
        self._reverse = reverse_features(layer)

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """Return the forecast ``(horizon, N, columns)`` of windows ``x (T, N, D)``."""
        return self._forecast(x, lengths, train=False)

    def forward(self, x: Any, lengths: Any = None) -> Array:
        """Forecast as a call does, with dropout, and keep what ``backward`` needs."""
        return self._forecast(x, lengths, train=True)

    def _forecast(self, x: Any, lengths: Any, train: bool) -> Array:
        last, weights = pool(self._run(x, lengths, train), lengths, "last", self._reverse)
        if train:
            self._kept = weights
        flat = self._leave(last, train)
        return flat.reshape(-1, self.horizon, self.columns).swapaxes(0, 1)

    def backward(self, dforecast: Any) -> Array | None:
        """Add all gradients into ``grads`` and return that of ``x``."""
        rows = self._device.any_array("dforecast", dforecast).swapaxes(0, 1)
        dlast = self._leave_back(rows.reshape(len(rows), self.horizon * self.columns))
        return self._run_back(self._take_kept() * dlast)
