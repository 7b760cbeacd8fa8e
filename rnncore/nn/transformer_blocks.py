"""The blocks that transformers are stacks of, with the parameter names of PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rnncore.checks import Array, choice, flag, size
from rnncore.nn import arrays
from rnncore.nn.dropout import Dropout
from rnncore.nn.layer_norm import LayerNorm
from rnncore.nn.linear import Linear
from rnncore.nn.module import Module
from rnncore.nn.multi_head_attention import MultiHeadAttention


class BlockOptions(NamedTuple):
    """What all blocks of a transformer have in common."""

    embed_dim: int
    num_heads: int
    dim_feedforward: int
    dropout: float
    activation: str
    norm_first: bool
    dtype: str
    device: str


def checked_options(*values: Any) -> BlockOptions:
    """Return the options of blocks, or raise for the first that is wrong."""
    given = BlockOptions(*values)
    choice("activation", given.activation, tuple(arrays.ACTIVATIONS))
    size("dim_feedforward", given.dim_feedforward)
    flag("norm_first", given.norm_first)
    return given


class Block(Module):
    """Add to a sequence what sublayers make of it: ``x + f(norm(x))``, or ``norm(x + f(x))``.

    Sequences are ``(N, T, E)``. The first sublayer is self-attention, the last feed-forward.

    Parameters
    ----------
    options : BlockOptions
        Sizes and the like.
    seed : SeedSequence
        Of the initial values and masks.
    """

    sublayers: ClassVar[int]

    def __init__(self, options: BlockOptions, seed: np.random.SeedSequence) -> None:
        super().__init__(options.dtype, options.device)
        sublayers = self.sublayers
        width, hidden = options.embed_dim, options.dim_feedforward
        common: dict[str, Any] = {"dtype": options.dtype, "device": options.device}
        self._options_given = options
        seeds = [int(number) for number in seed.generate_state(sublayers + 5)]
        self._attention_seeds = seeds[sublayers + 3 :]
        self.linear1 = Linear(width, hidden, **common, seed=seeds[0])
        self.dropout = Dropout(options.dropout, **common, seed=seeds[1])
        self.linear2 = Linear(hidden, width, **common, seed=seeds[2])
        self._norms = [LayerNorm(width, **common) for _ in range(sublayers)]
        self._drops = [Dropout(options.dropout, **common, seed=s) for s in seeds[3:][:sublayers]]
        self.self_attn = self._make_attention(0)

    def _make_attention(self, place: int) -> MultiHeadAttention:
        options = self._options_given
        return MultiHeadAttention(
            options.embed_dim,
            options.num_heads,
            options.dropout,
            batch_first=True,
            dtype=options.dtype,
            device=options.device,
            seed=self._attention_seeds[place],
        )

    def parts(self) -> Any:
        """Yield the parts by PyTorch's names: ``norm1``, ``dropout1``, ... are the sublayers'."""
        for name, part in super().parts():
            stem, _, place = name.partition(".")
            if stem in ("_norms", "_drops"):
                name = f"{'norm' if stem == '_norms' else 'dropout'}{int(place) + 1}"
            yield name, part

    def _sublayer(self, place: int, x: Array, work: Callable[[Array], Array], train: bool) -> Array:
        norm: Any = self._norms[place].forward if train else self._norms[place]
        drop: Any = self._drops[place].forward if train else self._drops[place]
        first = self._options_given.norm_first
        y: Array = x + drop(work(norm(x))) if first else norm(x + drop(work(x)))
        return y

    def _sublayer_backward(
        self, place: int, dy: Array, work_backward: Callable[[Array], Array]
    ) -> Array:
        norm, drop = self._norms[place], self._drops[place]
        if self._options_given.norm_first:
            return dy + norm.backward(work_backward(drop.backward(dy)))
        dsum = norm.backward(dy)
        return dsum + work_backward(drop.backward(dsum))

    def _feed_forward(self, x: Array, train: bool) -> Array:
        function, _ = arrays.ACTIVATIONS[self._options_given.activation]
        if not train:
            return self.linear2(function(self.linear1(x)))
        met = self.linear1.forward(x)
        self._kept = (met,)
        return self.linear2.forward(self.dropout.forward(function(met)))

    def _feed_forward_backward(self, dy: Array) -> Array:
        _, slope = arrays.ACTIVATIONS[self._options_given.activation]
        (met,) = self._take_kept()
        dmet: Any = self.dropout.backward(self.linear2.backward(dy)) * slope(met)
        dx = self.linear1.backward(dmet)
        assert dx is not None
        return dx


class EncoderBlock(Block):
    """Self-attention, then a feed-forward layer."""

    sublayers = 2

    def run(self, x: Array, lengths: object, causal: bool, train: bool) -> Array:
        """Return the block's result of ``x (N, T, E)``."""
        attend = self.self_attn.forward if train else self.self_attn
        x = self._sublayer(0, x, lambda v: attend(v, None, None, lengths, causal), train)
        return self._sublayer(1, x, lambda v: self._feed_forward(v, train), train)

    def backward(self, dy: Array) -> Array:
        """Return the gradient of ``x``."""
        dy = self._sublayer_backward(1, dy, self._feed_forward_backward)
        return self._sublayer_backward(0, dy, self.self_attn.backward)


class DecoderBlock(Block):
    """Self-attention, attention over a memory, then a feed-forward layer."""

    sublayers = 3

    def __init__(self, options: BlockOptions, seed: np.random.SeedSequence) -> None:
        super().__init__(options, seed)
        self.multihead_attn = self._make_attention(1)

    def run(
        self, x: Array, memory: Array, lengths: tuple[Any, Any], causal: bool, train: bool
    ) -> Array:
        """Return the block's result of ``x (N, T, E)`` over ``memory (N, S, E)``."""
        attend = self.self_attn.forward if train else self.self_attn
        look = self.multihead_attn.forward if train else self.multihead_attn
        x = self._sublayer(0, x, lambda v: attend(v, None, None, lengths[0], causal), train)
        x = self._sublayer(1, x, lambda v: look(v, memory, None, lengths[1]), train)
        return self._sublayer(2, x, lambda v: self._feed_forward(v, train), train)

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """Return the gradients of ``x`` and of the memory."""
        dmemory: list[Array] = []

        def look_backward(dlooked: Array) -> Array:
            dx, part = self.multihead_attn.backward(dlooked)
            dmemory.append(part)
            given: Array = dx
            return given

        dy = self._sublayer_backward(2, dy, self._feed_forward_backward)
        dy = self._sublayer_backward(1, dy, look_backward)
        return self._sublayer_backward(0, dy, self.self_attn.backward), dmemory[0]
