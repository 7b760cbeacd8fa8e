"""One to many: write a sequence about a vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import nn
from rnncore.checks import Array, size
from rnncore.layers.recurrent import Recurrent
from rnncore.models.decoder import Decoder, taken_recurrence
from rnncore.models.parts import apply, seeds
from rnncore.models.search import Step


class OneToMany(nn.Module):
    """Write a sequence about a vector, as a caption about a picture: the vector becomes h.

    Parameters
    ----------
    features : int
        Size of the vector.
    vocabulary : int
        Number of symbols.
    layer : RNN, LSTM or GRU
        Of one direction, not stateful. A linear map of the vector is the h it starts from, in
        every layer; an LSTM's c starts from zeros.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.

    References
    ----------
    Vinyals, Toshev, Bengio and Erhan, Show and tell: a neural image caption generator, 2015.

    Examples
    --------
    >>> import rnncore as rc
    >>> model = OneToMany(12, 7, rc.LSTM(4, 8, seed=0), seed=1)
    >>> model(np.ones((3, 12), np.float32), np.zeros((5, 3), int)).shape
    (5, 3, 7)
    """

    def __init__(
        self,
        features: int,
        vocabulary: int,
        layer: Recurrent,
        *,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        layer = taken_recurrence("layer", layer)
        super().__init__(layer.dtype, layer.device)
        drawn = seeds(seed, 2)
        outputs = layer.num_layers * layer.spec.output_size
        self.start = nn.Linear(
            size("features", features),
            outputs,
            dtype=self.dtype,
            device=layer.device,
            seed=drawn[0],
        )
        self.decoder = Decoder(vocabulary, layer, dropout=dropout, seed=drawn[1])

    def __call__(self, x: Any, target: Any) -> Array:
        """Return logits ``(T, N, vocabulary)`` of what follows each symbol of ``target (T, N)``."""
        return self.decoder(target, self._state(x, train=False))[0]

    def forward(self, x: Any, target: Any) -> Array:
        """Return logits as a call does, with dropout, and keep what ``backward`` needs.

        Parameters
        ----------
        x : ndarray (N, features)
            What is written about.
        target : ndarray of int (T, N)
            The start symbol, and each symbol before the one to predict.
        """
        return self.decoder.forward(target, self._state(x, train=True))[0]

    def _state(self, x: Any, train: bool) -> Any:
        spec = self.decoder.layer.spec
        flat = apply(self.start, x, train)
        h = flat.reshape(len(flat), spec.num_layers, spec.output_size).swapaxes(0, 1)
        if not spec.has_cell_state:
            return h
        shape = (spec.num_layers, len(flat), spec.hidden_size)
        return h, self._device.zeros(shape, np.dtype(self.dtype))

    def backward(self, dlogits: Any) -> Array | None:
        """Add all gradients into ``grads`` and return that of ``x``."""
        dstate, _ = self.decoder.backward(dlogits)
        dh = dstate[0] if isinstance(dstate, tuple) else dstate
        return self.start.backward(dh.swapaxes(0, 1).reshape(dh.shape[1], -1))

    def encode(self, x: Any) -> Any:
        """Return what :meth:`stepper`'s step starts from, for vectors ``(N, features)``."""
        return self._state(x, train=False)

    def stepper(self) -> Step:
        """Return a step for :func:`sample` and :func:`beam_search`; ``encode`` gives its state."""

        def step(symbols: Array, state: Any) -> tuple[Array, Any]:
            logits, state = self.decoder(symbols[None], state)
            return logits[0], state

        return step
