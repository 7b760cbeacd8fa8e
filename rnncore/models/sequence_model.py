"""What most models are: embedding, dropout, a recurrent layer, dropout, a linear map."""

from __future__ import annotations

from typing import Any, ClassVar

from rnncore import nn
from rnncore.checks import Array
from rnncore.layers.base import Layer
from rnncore.models.parts import apply, seeds, taken_layer


class SequenceModel(nn.Module):
    """Hold the parts of a model and run them up to the recurrent layer's output and back.

    A subclass says what becomes of that output.

    Parameters
    ----------
    layer : layer
        Any recurrent layer or stack that takes time first, and is not stateful unless the subclass
        says so. The model works on this very layer.
    outputs : int
        Size of the last linear map's result.
    vocabulary : int, optional
        Number of symbols, where inputs are indices ``(T, N)``; an embedding of the layer's input
        size then comes first. Without, inputs are vectors ``(T, N, D)``.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer.
    """

    _takes_stateful: ClassVar[bool] = False

    def __init__(
        self,
        layer: Layer,
        outputs: int,
        *,
        vocabulary: int | None = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        layer = taken_layer("layer", layer, self._takes_stateful)
        super().__init__(layer.dtype, layer.device)
        drawn = seeds(seed, 4)
        common: Any = {"dtype": layer.dtype, "device": layer.device}
        self.embedding: nn.Embedding | None = None
        if vocabulary is not None:
            self.embedding = nn.Embedding(vocabulary, layer.input_size, **common, seed=drawn[0])
        self.input_dropout = nn.Dropout(dropout, **common, seed=drawn[1])
        self.layer = layer
        self.output_dropout = nn.Dropout(dropout, **common, seed=drawn[2])
        self.output = nn.Linear(layer.output_size, outputs, **common, seed=drawn[3])

    def _enter(self, x: Any, train: bool) -> Array:
        """Return what the recurrent layer reads."""
        if self.embedding is not None:
            x = apply(self.embedding, x, train)
        return apply(self.input_dropout, x, train)

    def _run(self, x: Any, lengths: Any, train: bool) -> Array:
        """Return what the recurrent layer puts out."""
        x = self._enter(x, train)
        y: Array = (self.layer.forward if train else self.layer)(x, lengths=lengths)[0]
        return y

    def _leave(self, features: Array, train: bool) -> Array:
        """Return what dropout and the linear map make of features."""
        return apply(self.output, apply(self.output_dropout, features, train), train)

    def _leave_back(self, dy: Any) -> Array:
        """Take the gradient of ``_leave``'s result back to the features."""
        dfeatures: Array = self.output_dropout.backward(self.output.backward(dy))
        return dfeatures

    def _run_back(self, dy: Array) -> Array | None:
        """Take the gradient of ``_run``'s result back to ``x``; None where x is indices."""
        dx, _ = self.layer.backward(dy)
        dx = self.input_dropout.backward(dx)
        if self.embedding is None:
            return dx
        self.embedding.backward(dx)
        return None
