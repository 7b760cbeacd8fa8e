"""Many to one: a class for each sequence."""

from __future__ import annotations

from typing import Any

from rnncore.checks import Array, choice
from rnncore.layers.base import Layer
from rnncore.models.parts import reverse_features
from rnncore.models.pooling import REDUCTIONS, pool
from rnncore.models.sequence_model import SequenceModel


class Classifier(SequenceModel):
    """Read a sequence and say which class it is of.

    Parameters
    ----------
    layer : layer
        Any recurrent layer or stack that takes time first and is not stateful.
    classes : int
        Number of classes.
    reduce : {"last", "mean", "max"}
        How the layer's outputs become one vector: each direction's last state, or mean or maximum
        over the steps alive.
    vocabulary : int, optional
        Number of symbols, where inputs are indices ``(T, N)`` instead of vectors ``(T, N, D)``.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = Classifier(rc.GRU(4, 8, bidirectional=True, seed=0), 3, vocabulary=10, seed=1)
    >>> model(np.array([[1, 2], [3, 4], [5, 0]]), lengths=[3, 2]).shape
    (2, 3)
    """

    def __init__(
        self,
        layer: Layer,
        classes: int,
        *,
        reduce: str = "last",
        vocabulary: int | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(layer, classes, vocabulary=vocabulary, dropout=dropout, seed=seed)
        self.reduce = choice("reduce", reduce, REDUCTIONS)
        self._reverse = reverse_features(layer) if self.reduce == "last" else 0

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """Return logits ``(N, classes)``."""
        return self._classify(x, lengths, train=False)

    def forward(self, x: Any, lengths: Any = None) -> Array:
        """Return logits as a call does, with dropout, and keep what ``backward`` needs."""
        return self._classify(x, lengths, train=True)

    def _classify(self, x: Any, lengths: Any, train: bool) -> Array:
        y = self._run(x, lengths, train)
        pooled, weights = pool(y, lengths, self.reduce, self._reverse)
        if train:
            self._kept = weights
        return self._leave(pooled, train)

    def backward(self, dlogits: Any) -> Array | None:
        """Add all gradients into ``grads``; return that of ``x``, None where x is indices."""
        dpooled = self._leave_back(dlogits)
        return self._run_back(self._take_kept() * dpooled)
