"""Many to many of another length: read one sequence, write another."""

from __future__ import annotations

from typing import Any

from rnncore import nn
from rnncore.checks import Array, flag
from rnncore.devices import namespace
from rnncore.layers.recurrent import Recurrent
from rnncore.models.decoder import Decoder, Seen, taken_recurrence
from rnncore.models.parts import apply, as_array, seeds
from rnncore.models.search import Step


class EncoderDecoder(nn.Module):
    """Read a source, and write a target from the state that reading it left.

    Parameters
    ----------
    source_vocabulary, target_vocabulary : int
        Numbers of symbols.
    encoder : RNN, LSTM or GRU
        Of one direction, or of two whose final states are then added.
    decoder : RNN, LSTM or GRU
        Of one direction, and of the encoder's cell, depth and width.
    peeky : bool
        Whether every step of the decoder sees the encoder's last h as well, before its layer and
        after it (Cho et al., 2014); the decoder's input is then wider by the encoder's output.
    attention : module, optional
        Lets every step of the decoder look at all of the encoder's outputs, after its layer (Luong
        et al., 2015): ``forward(queries, keys, lengths=...)`` returns contexts as wide as the keys,
        ``backward`` the gradients of both, as :class:`rnncore.nn.Attention` has them. Queries are
        as wide as the decoder's output, keys as the encoder's.
    dropout : float
        Probability of a zero before and after the recurrent layers.
    seed : int, optional
        Of everything but the layers and the attention.

    Notes
    -----
    Sutskever et al. turn sources around: :class:`~rnncore.train.PairBatches` has ``reverse``, and
    :func:`~rnncore.train.reversed_within` does it for a batch at hand.

    References
    ----------
    Sutskever, Vinyals and Le, Sequence to sequence learning with neural networks, 2014. Cho et al.,
    Learning phrase representations using RNN encoder-decoder, 2014. Luong, Pham and Manning,
    Effective approaches to attention-based neural machine translation, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> model = EncoderDecoder(9, 7, rc.GRU(4, 8, seed=0), rc.GRU(4, 8, seed=1), seed=2)
    >>> source, target = np.ones((6, 3), int), np.ones((5, 3), int)
    >>> model(source, target, lengths=[6, 2, 4]).shape
    (5, 3, 7)
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        encoder: Recurrent,
        decoder: Recurrent,
        *,
        peeky: bool = False,
        attention: Any = None,
        dropout: float = 0.0,
        seed: int | None = None,
    ) -> None:
        encoder = taken_recurrence("encoder", encoder, one_direction=False)
        _check_match(encoder, taken_recurrence("decoder", decoder))
        super().__init__(encoder.dtype, encoder.device)
        drawn = seeds(seed, 3)
        common: Any = {"dtype": encoder.dtype, "device": encoder.device}
        self.embedding = nn.Embedding(
            source_vocabulary, encoder.input_size, **common, seed=drawn[0]
        )
        self.dropout = nn.Dropout(dropout, **common, seed=drawn[1])
        self.encoder = encoder
        self.peeky = flag("peeky", peeky)
        context = encoder.spec.output_size if self.peeky else 0
        self.decoder = Decoder(
            target_vocabulary,
            decoder,
            context=context,
            attention=attention,
            memory=encoder.output_size,
            dropout=dropout,
            seed=drawn[2],
        )

    def __call__(self, source: Any, target: Any, lengths: Any = None) -> Array:
        """Return logits ``(T, N, target_vocabulary)`` of what follows each symbol of a target."""
        return self._translate(source, target, lengths, train=False)

    def forward(self, source: Any, target: Any, lengths: Any = None) -> Array:
        """Return logits as a call does, with dropout, and keep what ``backward`` needs.

        Parameters
        ----------
        source : ndarray of int (S, N)
            What is read.
        target : ndarray of int (T, N)
            What the decoder is given: the start symbol, and each symbol before the one to predict.
        lengths : N integers, optional
            Of the sources.
        """
        return self._translate(source, target, lengths, train=True)

    def _translate(self, source: Any, target: Any, lengths: Any, train: bool) -> Array:
        state, seen = self._encode(source, lengths, train)
        decode: Any = self.decoder.forward if train else self.decoder
        logits: Array = decode(target, state, seen)[0]
        return logits

    def _encode(self, source: Any, lengths: Any, train: bool) -> tuple[Any, Seen]:
        vectors = apply(self.dropout, apply(self.embedding, source, train), train)
        run: Any = self.encoder.forward if train else self.encoder
        y, state = run(vectors, lengths=lengths)
        state = _both_directions(state, self.encoder)
        last = (state[0] if isinstance(state, tuple) else state)[-1:]
        context = last if self.peeky else None
        if self.decoder.attention is None:
            return state, Seen(context)
        return state, Seen(context, y, None if lengths is None else as_array(lengths)[None])

    def backward(self, dlogits: Any) -> None:
        """Add all gradients into ``grads``."""
        dstate, dseen = self.decoder.backward(dlogits)
        if dseen.context is not None:
            (dstate[0] if isinstance(dstate, tuple) else dstate)[-1:] += dseen.context
        dx, _ = self.encoder.backward(dseen.memory, _to_both_directions(dstate, self.encoder))
        self.embedding.backward(self.dropout.backward(dx))

    def encode(self, source: Any, lengths: Any = None) -> Any:
        """Return what :meth:`stepper`'s step starts from, for sources ``(S, N)``."""
        return self._encode(source, lengths, train=False)

    def stepper(self) -> Step:
        """Return a step for :func:`sample` and :func:`beam_search`; ``encode`` gives its state.

        Examples
        --------
        >>> import numpy as np
        >>> import rnncore as rc
        >>> from rnncore.models import beam_search
        >>> model = EncoderDecoder(9, 7, rc.GRU(4, 8, seed=0), rc.GRU(4, 8, seed=1), seed=2)
        >>> state = model.encode(np.array([[3], [5]]))
        >>> best = beam_search(model.stepper(), [0], 4, state=state, width=3, end=1)[0]
        >>> len(best)
        3
        """

        def step(symbols: Array, state: Any) -> tuple[Array, Any]:
            inner, seen = state
            logits, inner = self.decoder(symbols[None], inner, seen)
            return logits[0], (inner, seen)

        return step


def _check_match(encoder: Recurrent, decoder: Recurrent) -> None:
    """Refuse layers of which one cannot start from the other's state."""
    if encoder.device != decoder.device:
        raise ValueError(f"decoder: expected device {encoder.device}, got {decoder.device}")
    for name in ("cell", "num_layers", "hidden_size", "output_size", "dtype"):
        wanted, got = getattr(encoder.spec, name), getattr(decoder.spec, name)
        if wanted != got:
            raise ValueError(f"decoder: expected the encoder's {name}, {wanted!r}, got {got!r}")


def _both_directions(state: Any, encoder: Recurrent) -> Any:
    """Add the final states of a layer's two directions."""
    if isinstance(state, tuple):
        return tuple(_both_directions(part, encoder) for part in state)
    return state.reshape(encoder.num_layers, -1, *state.shape[1:]).sum(axis=1)


def _to_both_directions(dstate: Any, encoder: Recurrent) -> Any:
    """Hand the gradient of a sum of states to each of them."""
    if isinstance(dstate, tuple):
        return tuple(_to_both_directions(part, encoder) for part in dstate)
    return namespace(dstate).repeat(dstate, encoder.spec.num_directions, axis=0)
