"""Write a sequence from a state, and from what else there is to see."""

from __future__ import annotations

from typing import Any, NamedTuple

from rnncore import nn
from rnncore.checks import Array
from rnncore.devices import namespace
from rnncore.layers.recurrent import Recurrent
from rnncore.models.parts import apply, seeds, taken_layer


class Seen(NamedTuple):
    """What every step of a decoder sees beside the symbols before it; also its gradient."""

    context: Array | None = None
    """``(1, N, C)``, before the layer and after it."""
    memory: Array | None = None
    """``(S, N, M)``, what attention mixes."""
    lengths: Array | None = None
    """``(1, N)``, of the memory's rows."""


NOTHING = Seen()


def taken_recurrence(name: str, layer: Any, *, one_direction: bool = True) -> Recurrent:
    """Return an RNN, LSTM or GRU whose state another can start from, or that can start there."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"{name}: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
    taken_layer(name, layer)
    if one_direction and layer.bidirectional:
        raise ValueError(f"{name}: expected one direction, got {layer!r}")
    return layer


class Decoder(nn.Module):
    """Predict each symbol of a sequence from those before it and from where it starts.

    Parameters
    ----------
    vocabulary : int
        Number of symbols.
    layer : RNN, LSTM or GRU
        Of one direction, not stateful; its input is a symbol's vector and the context.
    context : int
        Size of a vector that every step sees, before the layer and after it; 0 for none.
    attention : module, optional
        ``mixed = forward(y, memory, lengths=...)`` and ``dy, dmemory = backward(dmixed)``. What it
        mixes stands beside the layer's output before the last linear map.
    memory : int
        Size of a vector of the memory.
    dropout : float
        Probability of a zero before the recurrent layer and after it.
    seed : int, optional
        Of everything but the layer and the attention.
    """

    def __init__(
        self,
        vocabulary: int,
        layer: Recurrent,
        *,
        context: int = 0,
        attention: Any = None,
        memory: int = 0,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        layer = taken_recurrence("decoder", layer)
        if layer.input_size <= context:
            raise ValueError(
                f"decoder: expected an input_size above {context}, the context's, "
                f"got {layer.input_size}"
            )
        super().__init__(layer.dtype, layer.device)
        drawn, self.context = seeds(seed, 4), context
        common: Any = {"dtype": layer.dtype, "device": layer.device}
        width = layer.input_size - context
        self.embedding = nn.Embedding(vocabulary, width, **common, seed=drawn[0])
        self.input_dropout = nn.Dropout(dropout, **common, seed=drawn[1])
        self.layer = layer
        self.attention = attention
        self.output_dropout = nn.Dropout(dropout, **common, seed=drawn[2])
        features = layer.output_size + context + (memory if attention is not None else 0)
        self.output = nn.Linear(features, vocabulary, **common, seed=drawn[3])

    def __call__(self, x: Any, state: Any, seen: Seen = NOTHING) -> tuple[Array, Any]:
        """Return logits ``(T, N, vocabulary)`` of what follows ``x (T, N)``, and the state."""
        return self._decode(x, state, seen, train=False)

    def forward(self, x: Any, state: Any, seen: Seen = NOTHING) -> tuple[Array, Any]:
        """Decode as a call does, with dropout, and keep what ``backward`` needs.

        Parameters
        ----------
        x : ndarray of int (T, N)
            Symbols that are read: the ones before those to predict.
        state : state of the layer, or None
            Where it starts.
        seen : Seen, optional
            What every step sees.
        """
        return self._decode(x, state, seen, train=True)

    def _decode(self, x: Any, state: Any, seen: Seen, train: bool) -> tuple[Array, Any]:
        vectors = _joined(apply(self.embedding, x, train), seen.context)
        run: Any = self.layer.forward if train else self.layer
        y, state = run(apply(self.input_dropout, vectors, train), state)
        if self.attention is not None:
            attend = self.attention.forward if train else self.attention
            lengths = None if seen.lengths is None else seen.lengths[0]
            mixed = attend(y, seen.memory, lengths=lengths)
            y = namespace(y).concatenate([y, mixed], axis=2)
        features = apply(self.output_dropout, _joined(y, seen.context), train)
        return apply(self.output, features, train), state

    def backward(self, dlogits: Any) -> tuple[Any, Seen]:
        """Add all gradients into ``grads``; return those of the first state and what was seen."""
        dfeatures = self.output_dropout.backward(self.output.backward(dlogits))
        dy, dlate = _apart(dfeatures, self.context)
        dmemory = None
        if self.attention is not None:
            dy, dmixed = _apart(dy, dy.shape[2] - self.layer.output_size)
            dquery, dmemory = self.attention.backward(dmixed)
            dy += dquery
        dx, dstate = self.layer.backward(dy)
        dvectors, dearly = _apart(self.input_dropout.backward(dx), self.context)
        self.embedding.backward(dvectors)
        dcontext = (dearly + dlate).sum(axis=0, keepdims=True) if self.context else None
        return dstate, Seen(dcontext, dmemory)


def _joined(vectors: Array, context: Array | None) -> Array:
    """Put the context at the end of every step's vector."""
    if context is None:
        return vectors
    xp = namespace(vectors)
    repeated = xp.broadcast_to(context, (*vectors.shape[:2], context.shape[2]))
    joined: Array = xp.concatenate([vectors, repeated], axis=2)
    return joined


def _apart(dvectors: Array, last: int) -> tuple[Array, Array]:
    """Return the gradient of all but the last features, and that of those."""
    cut = dvectors.shape[2] - last
    return namespace(dvectors).ascontiguousarray(dvectors[:, :, :cut]), dvectors[:, :, cut:]
