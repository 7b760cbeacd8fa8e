"""A language model: what comes next, after everything so far."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import nn
from rnncore.checks import Array, flag, size
from rnncore.layers.base import Layer
from rnncore.models.parts import sees_what_follows
from rnncore.models.search import Step
from rnncore.models.sequence_model import SequenceModel


class LanguageModel(SequenceModel):
    """Predict each symbol from those before it: embedding, recurrent layer, linear map.

    Parameters
    ----------
    vocabulary : int
        Number of symbols.
    layer : layer
        Any recurrent layer or stack of one direction that takes time first. One that is stateful
        carries its state from batch to batch while training (truncated BPTT); its own ``dropout``
        acts between its layers.
    tied : bool
        Whether the linear map's weight is the embedding's table; the layer's output is then as
        wide as its input.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.

    References
    ----------
    Mikolov et al., Recurrent neural network based language model, 2010. Zaremba, Sutskever and
    Vinyals, Recurrent neural network regularization, 2014. Tied: Press and Wolf, Using the output
    embedding to improve language models, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.LSTM(8, 8, num_layers=2, dropout=0.5, stateful=True, seed=0)
    >>> model = LanguageModel(20, layer, tied=True, dropout=0.5, seed=1)
    >>> logits, state = model(np.zeros((5, 3), int))
    >>> logits.shape
    (5, 3, 20)
    """

    _takes_stateful = True

    def __init__(
        self,
        vocabulary: int,
        layer: Layer,
        *,
        tied: bool = False,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        if sees_what_follows(layer):
            raise ValueError(f"layer: expected one direction, got {layer!r}")
        super().__init__(layer, vocabulary, vocabulary=vocabulary, dropout=dropout, seed=seed)
        if flag("tied", tied):
            self._tie()

    def _tie(self) -> None:
        """Let the linear map use the embedding's table, shrunk from N(0, 1) to its own scale."""
        assert self.embedding is not None, "every language model has one"
        table, given = self.embedding.params["weight"], self.output.params["weight"].shape
        if table.shape != given:
            raise ValueError(
                f"tied: expected an embedding as wide as the layer's output, {given}, "
                f"got {table.shape}"
            )
        output = nn.Linear(
            given[1], given[0], dtype=self.dtype, device=self.device, weight=self.embedding
        )
        with self._device.entered():
            table /= table.dtype.type(table.shape[1] ** 0.5)
            output.params["bias"][...] = self.output.params["bias"]
        self.output = output

    def __call__(self, x: Any, state: Any = None) -> tuple[Array, Any]:
        """Return logits ``(T, N, vocabulary)`` of indices ``(T, N)``, and the state after them.

        It starts from ``state``, or from zeros; what training carries is neither read nor changed.
        """
        y, state = self.layer.freeze()(self._enter(x, train=False), state)
        return self.output(y), state

    def forward(self, x: Any) -> Array:
        """Return logits ``(T, N, vocabulary)`` with dropout, and keep what ``backward`` needs."""
        return self._leave(self._run(x, None, train=True), train=True)

    def backward(self, dlogits: Any) -> None:
        """Add all gradients into ``grads``, back to the start of the batch."""
        self._run_back(self._leave_back(dlogits))

    def stepper(self) -> Step:
        """Return a step for :func:`sample` and :func:`beam_search`: the layer frozen as it is."""
        engine = self.layer.freeze()

        def step(symbols: Array, state: Any) -> tuple[Array, Any]:
            y, state = engine(self._enter(symbols[None], train=False), state)
            return self.output(y[0]), state

        return step

    def mean_loss(self, indices: Any, batch: int = 1, steps: int = 100) -> float:
        """Return the loss per symbol on a text, in nats; the perplexity is its exponential.

        Parameters
        ----------
        indices : array_like of int (length,)
            The text; all but the first symbol, and what does not fill the tracks, are predicted.
        batch : int
            Tracks that the text is cut into; each starts from zeros, so 1 is exact.
        steps : int
            Steps at a time, which change nothing but the memory it takes.

        Raises
        ------
        TypeError
            If the text is not one row of integers.
        ValueError
            If it is too short for its tracks, or has an index that is no symbol's.

        Examples
        --------
        >>> import rnncore as rc
        >>> model = LanguageModel(4, rc.GRU(3, 5, seed=0), seed=1)
        >>> for name in ("weight", "bias"): model.output.params[name][...] = 0
        >>> round(model.mean_loss([0, 3, 1, 2, 2]), 4)
        1.3863
        """
        batch, steps = size("batch", batch), size("steps", steps)
        text = np.asarray(indices)
        if text.ndim != 1 or (text.size and text.dtype.kind not in "iu"):
            raise TypeError(f"indices: expected integers (length,), got {text.dtype} {text.shape}")
        most = self.output.out_features - 1
        for wrong in text[(text < 0) | (text > most)][:1]:
            raise ValueError(f"indices: expected 0 .. {most}, got {wrong}")
        track = (len(text) - 1) // batch
        if track < 1:
            raise ValueError(f"indices: expected at least {batch + 1}, got {len(text)}")
        inputs = text[: track * batch].reshape(batch, track).T
        targets = text[1 : track * batch + 1].reshape(batch, track).T
        engine, loss = self.layer.freeze(), nn.SoftmaxCrossEntropy(reduction="sum")
        total: Any = 0.0
        state = None
        for t in range(0, track, steps):
            y, state = engine(self._enter(inputs[t : t + steps], train=False), state)
            total = total + loss(self.output(y), targets[t : t + steps])
        return float(total) / targets.size
