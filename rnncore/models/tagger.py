"""Many to many: a class for each step."""

from __future__ import annotations

from typing import Any

from rnncore.checks import Array
from rnncore.layers.base import Layer
from rnncore.models.sequence_model import SequenceModel


class Tagger(SequenceModel):
    """Read a sequence and say which class each of its steps is of.

    Parameters
    ----------
    layer : layer
        Any recurrent layer or stack that takes time first and is not stateful; one of two
        directions sees what follows a step too.
    classes : int
        Number of classes.
    vocabulary : int, optional
        Number of symbols, where inputs are indices ``(T, N)`` instead of vectors ``(T, N, D)``.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.

    Notes
    -----
    Past a row's length logits are the linear map's bias; a negative target there does not count.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = Tagger(rc.LSTM(4, 8, bidirectional=True, seed=0), 5, vocabulary=10, seed=1)
    >>> model(np.array([[1, 2], [3, 4], [5, 0]]), lengths=[3, 2]).shape
    (3, 2, 5)
    """

    def __init__(
        self,
        layer: Layer,
        classes: int,
        *,
        vocabulary: int | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(layer, classes, vocabulary=vocabulary, dropout=dropout, seed=seed)

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """Return logits ``(T, N, classes)``."""
        return self._tag(x, lengths, train=False)

    def forward(self, x: Any, lengths: Any = None) -> Array:
        """Return logits as a call does, with dropout, and keep what ``backward`` needs."""
        return self._tag(x, lengths, train=True)

    def _tag(self, x: Any, lengths: Any, train: bool) -> Array:
        return self._leave(self._run(x, lengths, train), train)

    def backward(self, dlogits: Any) -> Array | None:
        """Add all gradients into ``grads``; return that of ``x``, None where x is indices."""
        return self._run_back(self._leave_back(dlogits))
