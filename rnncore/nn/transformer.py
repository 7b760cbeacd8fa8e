"""Transformers: stacks of attention and feed-forward layers, for peers of recurrent models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rnncore.checks import Array, flag, size
from rnncore.nn import sequences
from rnncore.nn.layer_norm import LayerNorm
from rnncore.nn.sequences import SequenceModule
from rnncore.nn.transformer_blocks import Block, DecoderBlock, EncoderBlock, checked_options


class _Transformer(SequenceModule):
    """What both have in common: the blocks, the last norm, the layout."""

    _block: ClassVar[type[EncoderBlock] | type[DecoderBlock]]
    layers: Sequence[Block]

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_layers: int = 1,
        *,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        norm_first: bool = False,
        final_norm: bool | None = None,
        batch_first: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_first, dtype, device)
        given = checked_options(
            embed_dim, num_heads, dim_feedforward, dropout, activation, norm_first,
            self.dtype, device,
        )  # fmt: skip
        self.embed_dim, self.num_layers = given.embed_dim, size("num_layers", num_layers)
        last = given.norm_first if final_norm is None else flag("final_norm", final_norm)
        seeds = np.random.SeedSequence(seed).spawn(self.num_layers)
        self.layers = [self._block(given, child) for child in seeds]
        self.norm = LayerNorm(self.embed_dim, dtype=dtype, device=device) if last else None

    def _options(self) -> str:
        return f"{self.embed_dim}, batch_first={self.batch_first}, dtype={self.dtype!r}"

    def _last(self, y: Array, past: Any, train: bool) -> Array:
        if self.norm is not None:
            y = self.norm.forward(y) if train else self.norm(y)
        return sequences.without(y, past)

    def _take_dy(self, dy: Any) -> Any:
        """Return the checked gradient, zero past the ends, through the last norm."""
        if self._kept is not None:
            dy = sequences.take_gradient(self._layout, "dy", dy, self._kept[0], self.embed_dim)
        kept = self._take_kept()
        dy = sequences.without(dy, kept[1])
        return kept, dy if self.norm is None else self.norm.backward(dy)


class TransformerEncoder(_Transformer):
    """Let all steps of a sequence look at each other, several times over.

    Each of ``num_layers`` blocks is self-attention and a feed-forward layer, with dropout, layer
    norm and a sum around each. Parameters are named as in ``torch.nn.TransformerEncoder``.

    Parameters
    ----------
    embed_dim : int
        ``E``: features of a step, in and out.
    num_heads : int
        Heads of the attention.
    num_layers : int
        Number of blocks.
    dim_feedforward : int
        Hidden size of the feed-forward layers.
    dropout : float
        Probability of a zero, for shares of attention, hidden activations and sublayers' results.
    activation : {"relu", "gelu"}
        Of the feed-forward layers.
    norm_first : bool
        Whether sublayers normalise what they read (``x + f(norm(x))``) instead of the sum.
    final_norm : bool, optional
        Whether a last layer norm follows the blocks; ``norm_first`` where absent.
    batch_first : bool
        Whether sequences are ``(N, T, E)``.
    dtype : {"float32", "float64"}
        Type of parameters and arrays.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the initial values and of the dropout's masks.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017; for ``norm_first``, Xiong et al., On layer
    normalization in the transformer architecture, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = TransformerEncoder(8, 2, num_layers=2, dim_feedforward=16, seed=0)
    >>> y = encoder.forward(np.ones((5, 3, 8), np.float32), lengths=[5, 2, 0])
    >>> encoder.backward(np.ones_like(y)).shape, float(abs(y[2:, 1]).max())
    ((5, 3, 8), 0.0)
    """

    _block = EncoderBlock
    layers: Sequence[EncoderBlock]

    def __call__(self, x: Any, lengths: object = None, causal: bool = False) -> Array:
        """Encode without dropout.

        Parameters
        ----------
        x : ndarray (T, N, E) or unbatched (T, E)
            ``(N, T, E)`` with ``batch_first``.
        lengths : N integers, optional
            Length of each sequence. What lies past it is not seen; the result there is zero.
        causal : bool
            Whether a step sees itself and those before it alone.

        Returns
        -------
        ndarray of ``x``'s shape
        """
        return self._run(x, lengths, causal, train=False)

    def forward(self, x: Any, lengths: object = None, causal: bool = False) -> Array:
        """Encode as a call does, with dropout, and keep what ``backward`` needs."""
        return self._run(x, lengths, causal, train=True)

    def backward(self, dy: Any) -> Array:
        """Add the gradients of the parameters into ``grads`` and return that of ``x``.

        Parameters
        ----------
        dy : ndarray of ``x``'s shape
            Gradient of ``forward``'s result.
        """
        (extent, past), dy = self._take_dy(dy)
        for block in reversed(self.layers):
            dy = block.backward(dy)
        return sequences.give(self._layout, sequences.without(dy, past), extent)

    def _run(self, x: Any, lengths: object, causal: bool, train: bool) -> Array:
        taken = sequences.take(self._layout, "x", x, self.embed_dim)
        past = sequences.past_lengths(self._layout, lengths, taken.extent)
        causal = flag("causal", causal)
        y, ends = sequences.without(taken.values, past), _ends(past)
        for block in self.layers:
            y = block.run(y, ends, causal, train)
        y = self._last(y, past, train)
        if train:
            self._kept = (taken.extent, past)
        return sequences.give(self._layout, y, taken.extent)


class TransformerDecoder(_Transformer):
    """Let a sequence look at its own past and at a memory, several times over.

    Each of ``num_layers`` blocks is causal self-attention, attention over the memory (an encoder's
    result) and a feed-forward layer. Parameters are named as in ``torch.nn.TransformerDecoder``.

    Parameters
    ----------
    embed_dim, num_heads, num_layers, dim_feedforward, dropout, activation, norm_first, final_norm,\
 batch_first, dtype, device, seed
        As :class:`TransformerEncoder` has them.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> decoder = TransformerDecoder(8, 2, num_layers=2, dim_feedforward=16, seed=0)
    >>> x, memory = np.ones((4, 3, 8), np.float32), np.ones((5, 3, 8), np.float32)
    >>> y = decoder.forward(x, memory, memory_lengths=[5, 2, 4])
    >>> dx, dmemory = decoder.backward(np.ones_like(y))
    >>> dx.shape, dmemory.shape
    ((4, 3, 8), (5, 3, 8))
    """

    _block = DecoderBlock
    layers: Sequence[DecoderBlock]

    def __call__(
        self,
        x: Any,
        memory: Any,
        lengths: object = None,
        memory_lengths: object = None,
        causal: bool = True,
    ) -> Array:
        """Decode without dropout.

        Parameters
        ----------
        x : ndarray (T, N, E) or unbatched (T, E)
            What is decoded; ``(N, T, E)`` with ``batch_first``.
        memory : ndarray (S, N, E) or unbatched (S, E)
            What is looked at.
        lengths : N integers, optional
            Length of each sequence of ``x``. The result past it is zero.
        memory_lengths : N integers, optional
            Length of each sequence of the memory. What lies past it is not seen.
        causal : bool
            Whether a step of ``x`` sees itself and those before it alone.

        Returns
        -------
        ndarray of ``x``'s shape
        """
        return self._run(x, memory, (lengths, memory_lengths), causal, train=False)

    def forward(
        self,
        x: Any,
        memory: Any,
        lengths: object = None,
        memory_lengths: object = None,
        causal: bool = True,
    ) -> Array:
        """Decode as a call does, with dropout, and keep what ``backward`` needs."""
        return self._run(x, memory, (lengths, memory_lengths), causal, train=True)

    def backward(self, dy: Any) -> tuple[Array, Array]:
        """Add the gradients of the parameters into ``grads`` and return those of the inputs.

        Parameters
        ----------
        dy : ndarray of ``x``'s shape
            Gradient of ``forward``'s result.

        Returns
        -------
        dx, dmemory : ndarray
        """
        (extent, past, seen, unseen), dy = self._take_dy(dy)
        dmemory: Any = None
        for block in reversed(self.layers):
            dy, part = block.backward(dy)
            dmemory = part if dmemory is None else dmemory + part
        dx = sequences.give(self._layout, sequences.without(dy, past), extent)
        return dx, sequences.give(self._layout, sequences.without(dmemory, unseen), seen)

    def _run(
        self, x: Any, memory: Any, lengths: tuple[object, object], causal: bool, train: bool
    ) -> Array:
        taken = sequences.take(self._layout, "x", x, self.embed_dim)
        looked_at = sequences.take(self._layout, "memory", memory, self.embed_dim)
        sequences.beside("memory", looked_at, taken)
        past = sequences.past_lengths(self._layout, lengths[0], taken.extent)
        unseen = sequences.past_lengths(
            self._layout, lengths[1], looked_at.extent, "memory_lengths"
        )
        causal = flag("causal", causal)
        y, ends = sequences.without(taken.values, past), (_ends(past), _ends(unseen))
        for block in self.layers:
            y = block.run(y, looked_at.values, ends, causal, train)
        y = self._last(y, past, train)
        if train:
            self._kept = (taken.extent, past, looked_at.extent, unseen)
        return sequences.give(self._layout, y, taken.extent)


def _ends(past: Any) -> Any:
    """Return the lengths that a mask of what lies past them tells."""
    return None if past is None else (~past).sum(axis=1)
