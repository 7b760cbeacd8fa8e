"""Tell a model without recurrence where in the sequence a step is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rnncore.checks import Array, size
from rnncore.nn.dropout import Dropout
from rnncore.nn.sequences import SequenceModule


class PositionalEncoding(SequenceModule):
    r"""Add sines and cosines of the step's number to each step's features, then drop out.

    .. math:: x_{t, 2i} \mathrel{+}= \sin(t / 10000^{2i/E}), \quad
              x_{t, 2i+1} \mathrel{+}= \cos(t / 10000^{2i/E})

    Parameters
    ----------
    embed_dim : int
        ``E``: number of features.
    dropout : float
        Probability that an entry of the sum becomes zero in training.
    batch_first : bool
        Whether ``x`` is ``(N, T, E)``.
    dtype : {"float32", "float64"}
        Type of ``x`` and ``y``.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the dropout's masks.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017, section 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> encoding = PositionalEncoding(4, dtype="float64")
    >>> encoding(np.zeros((2, 1, 4)))[1, 0].round(4).tolist()
    [0.8415, 0.5403, 0.01, 1.0]
    """

    _of_a_call = ("_kept", "_table")

    def __init__(
        self,
        embed_dim: int,
        dropout: float = 0.0,
        *,
        batch_first: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_first, dtype, device)
        self.embed_dim = size("embed_dim", embed_dim)
        self.dropout = Dropout(dropout, dtype=dtype, device=device, seed=seed)
        self._table: Array | None = None

    def __call__(self, x: Any, start: int = 0) -> Array:
        """Return ``x (T, N, E)`` or ``(T, E)`` with the encoding of steps ``start``, ... added."""
        return self._add(x, start)

    def forward(self, x: Any, start: int = 0) -> Array:
        """Add as a call does, and drop out."""
        return self.dropout.forward(self._add(x, start))

    def backward(self, dy: Any) -> Array:
        """Return the gradient of ``x``."""
        return self.dropout.backward(dy)

    def _add(self, x: Any, start: int) -> Array:
        taken, extent = self._layout.take_sequence("x", x, self.embed_dim)
        first = size("start", start, minimum=0)
        table = self._rows(first, first + extent.steps)
        total = self._layout.empty(extent, self.embed_dim)
        self._device.xp.add(taken, table[:, None], out=total)
        return self._layout.give(total, extent)

    def _rows(self, begin: int, end: int) -> Array:
        """Return the encoding of some steps; the C library's sine has one result everywhere."""
        known = 0 if self._table is None else len(self._table)
        if self._table is None or known < end:
            count = max(end, 2 * known)  # a decoder asks for one more step at a time
            rates = [10000.0 ** (-(i - i % 2) / self.embed_dim) for i in range(self.embed_dim)]
            wave = (math.sin, math.cos)
            rows = [[wave[i % 2](t * rate) for i, rate in enumerate(rates)] for t in range(count)]
            table = np.array(rows, dtype=self.dtype).reshape(count, self.embed_dim)
            self._table = self._device.upload(table)
        return self._table[begin:end]

    def _options(self) -> str:
        return f"{self.embed_dim}, batch_first={self.batch_first}, dtype={self.dtype!r}"
