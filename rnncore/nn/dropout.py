"""Random zeros between layers while training."""

from __future__ import annotations

from typing import Any

from rnncore.checks import Array, flag, probability, wrong_shape
from rnncore.layers import options
from rnncore.nn import checks
from rnncore.nn.module import Module


class Dropout(Module):
    """Set random entries to zero in training and divide the others by ``1 - p`` (inverted dropout).

    Masks come from a counter-based generator keyed by the seed and the number of the call, so
    ``rng_state`` is all that a checkpoint needs.

    Parameters
    ----------
    p : float
        Probability that an entry becomes zero, ``0 <= p < 1``.
    variational : bool
        Whether a sequence has one mask, the same at every step. ``x`` is then ``(T, N, F)``,
        ``(N, T, F)`` with ``batch_first``, or ``(T, F)``.
    batch_first : bool
        Where the time axis of a variational dropout is.
    dtype : {"float32", "float64"}
        Type of ``x`` and ``y``.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the masks; drawn from the system when absent.

    References
    ----------
    Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.
    Gal and Ghahramani, A theoretically grounded application of dropout in recurrent neural
    networks, 2016 (variational).

    Examples
    --------
    >>> import numpy as np
    >>> drop = Dropout(0.5, seed=0)
    >>> x = np.ones(1000, np.float32)
    >>> sorted(set(drop.forward(x).tolist()))
    [0.0, 2.0]
    >>> drop(x).sum() == 1000
    np.True_
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        variational: bool = False,
        batch_first: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        self.p = probability("p", p)
        self.variational = flag("variational", variational)
        self.batch_first = flag("batch_first", batch_first)
        self._seed, self._calls = options.seed(seed), 0

    @property
    def features(self) -> tuple[None, None]:
        """Sizes of the last axis that go in and come out: any."""
        return None, None

    @property
    def rng_state(self) -> dict[str, int]:
        """Seed and call counter that the next mask is drawn from."""
        return {"seed": self._seed, "calls": self._calls}

    @rng_state.setter
    def rng_state(self, value: Any) -> None:
        self._seed, self._calls = options.rng_state(value)

    def __call__(self, x: Any) -> Array:
        """Return ``x`` itself: dropout is off in inference."""
        return self._take(x)

    def forward(self, x: Any) -> Array:
        """Return ``x`` times a new mask of zeros and ``1 / (1 - p)``."""
        array = self._take(x)
        if self.p == 0:
            self._kept = (None, array.shape)
            return array
        shape = list(array.shape)
        if self.variational:
            shape[1 if self.batch_first and array.ndim == 3 else 0] = 1
        device, place = self._device, (self._calls, 0, 0)
        dropped = device.draw_bits(tuple(shape), self.p, self._seed, place)
        mask = device.keep_mask(dropped, self.p, self._numpy_dtype)
        self._calls += 1
        self._kept = (mask, array.shape)
        return array * mask

    def backward(self, dy: Any) -> Array:
        """Return the gradient of ``x``: ``dy`` times the same mask."""
        if self._kept is not None:
            dy = checks.shaped(self._device, "dy", dy, self._numpy_dtype, self._kept[1])
        mask, _ = self._take_kept()
        return dy if mask is None else dy * mask  # type: ignore[no-any-return]

    def _take(self, x: Any) -> Array:
        taken = checks.float_array(self._device, "x", x, self._numpy_dtype)
        if self.variational and taken.ndim not in (2, 3):
            layout = "(N, T, F)" if self.batch_first else "(T, N, F)"
            wrong_shape("x", f"{layout} or (T, F)", taken.shape)
        return taken

    def _config(self) -> dict[str, Any]:
        """Return what builds an equal module."""
        return {
            "type": "Dropout",
            "p": self.p,
            "variational": self.variational,
            "batch_first": self.batch_first,
            "dtype": self.dtype,
            "device": self.device,
        }

    def _options(self) -> str:
        sequence = f", variational=True, batch_first={self.batch_first}" if self.variational else ""
        return f"{self.p}{sequence}, dtype={self.dtype!r}"
