"""Attention of several heads, each over its own projection of queries, keys and values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rnncore.checks import Array, flag, size, wrong_shape
from rnncore.layout import Extent
from rnncore.nn import arrays, sequences
from rnncore.nn.arrays import Mask
from rnncore.nn.dropout import Dropout
from rnncore.nn.linear import Linear
from rnncore.nn.sequences import SequenceModule, Taken

ROLES = ("query", "key", "value")


class _Call(NamedTuple):
    """What a gradient needs of its forward call."""

    inputs: list[Taken]
    past: Mask | None
    heads: list[Array]
    shares: Array
    dropped: Array


class MultiHeadAttention(SequenceModule):
    r"""Let every step of one sequence look at the steps of another, or of itself.

    Each of ``num_heads`` heads mixes its values by
    :math:`\mathrm{softmax}(q k^T / \sqrt{d})`, with ``d = embed_dim / num_heads``; what the heads
    mixed, side by side, goes through one more linear layer. Parameters are named and laid out as in
    ``torch.nn.MultiheadAttention``.

    Parameters
    ----------
    embed_dim : int
        ``E``: features of queries and of the result; ``num_heads`` divides it.
    num_heads : int
        Number of heads.
    dropout : float
        Probability that a share becomes zero in training.
    bias : bool
        Whether the projections have biases.
    kdim, vdim : int, optional
        Features of keys and of values; ``embed_dim`` where absent.
    batch_first : bool
        Whether sequences are ``(N, T, E)``.
    dtype : {"float32", "float64"}
        Type of parameters and arrays.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the initial values and of the dropout's masks.

    Attributes
    ----------
    params : mapping
        ``in_proj_weight (3*E, E)`` (or ``q_proj_weight (E, E)``, ``k_proj_weight (E, kdim)``,
        ``v_proj_weight (E, vdim)`` where sizes differ), ``in_proj_bias (3*E,)``,
        ``out_proj.weight (E, E)``, ``out_proj.bias (E,)``.
    weights : ndarray (N, num_heads, queries, keys)
        The shares of the last call, for attention maps; without ``N`` for unbatched sequences.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> attention = MultiHeadAttention(8, 2, seed=0)
    >>> x = np.ones((5, 3, 8), np.float32)
    >>> y = attention.forward(x, causal=True)
    >>> attention.backward(np.ones_like(y)).shape, attention.weights[0, 0, 1].round(2).tolist()
    ((5, 3, 8), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    _of_a_call = ("_kept", "weights")

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_first, dtype, device)
        self.embed_dim, self.num_heads = size("embed_dim", embed_dim), size("num_heads", num_heads)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads: expected a divisor of {embed_dim}, got {num_heads}")
        self.kdim = self.embed_dim if kdim is None else size("kdim", kdim)
        self.vdim = self.embed_dim if vdim is None else size("vdim", vdim)
        self.bias = flag("bias", bias)
        self.weights: Array | None = None
        seeds = np.random.SeedSequence(seed).generate_state(3)
        self._draw(np.random.default_rng(seeds[0]))
        common: dict[str, Any] = {"dtype": dtype, "device": device}
        self.out_proj = Linear(embed_dim, embed_dim, self.bias, **common, seed=int(seeds[1]))
        if self.bias:
            with self._device.entered():
                self.out_proj.params["bias"][...] = 0
        self.dropout = Dropout(dropout, **common, seed=int(seeds[2]))

    def _draw(self, draw: np.random.Generator) -> None:
        """Draw as PyTorch does: Glorot's uniform distribution, biases of zero."""
        shapes = {"in_proj_weight": (3 * self.embed_dim, self.embed_dim)}
        if not self._joined:
            widths = zip("qkv", self._widths, strict=True)
            shapes = {f"{role}_proj_weight": (self.embed_dim, width) for role, width in widths}
        for name, shape in shapes.items():
            bound = np.sqrt(6 / sum(shape))
            self._add_parameter(name, draw.uniform(-bound, bound, shape))
        if self.bias:
            self._add_parameter("in_proj_bias", np.zeros(3 * self.embed_dim))

    @property
    def _widths(self) -> tuple[int, int, int]:
        return self.embed_dim, self.kdim, self.vdim

    @property
    def _joined(self) -> bool:
        return self.kdim == self.vdim == self.embed_dim

    def _projection(self, own: dict[str, Array], role: int) -> tuple[Array, Array | None]:
        """Return weight and bias of query (0), key (1) or value (2), as views."""
        rows = slice(role * self.embed_dim, (role + 1) * self.embed_dim)
        bias = own["in_proj_bias"][rows] if self.bias else None
        if self._joined:
            return own["in_proj_weight"][rows], bias
        return own[f"{'qkv'[role]}_proj_weight"], bias

    def __call__(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        lengths: object = None,
        causal: bool = False,
    ) -> Array:
        """Attend without dropout.

        Parameters
        ----------
        query : ndarray (T, N, E) or unbatched (T, E)
            What looks; ``(N, T, E)`` with ``batch_first``.
        key : ndarray (S, N, kdim), optional
            What is looked at; the queries themselves if None.
        value : ndarray (S, N, vdim), optional
            What is mixed; the keys if None.
        lengths : N integers, optional
            Length of each sequence of keys, from 0 to S. Nothing past it is seen, be it NaN; a
            query that sees no key mixes zeros.
        causal : bool
            Whether the query of step t sees keys up to step t alone.

        Returns
        -------
        ndarray of the queries' shape
        """
        return self._run(query, key, value, lengths, causal, keep=False)

    def forward(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        lengths: object = None,
        causal: bool = False,
    ) -> Array:
        """Attend as a call does, with dropout, and keep what ``backward`` needs."""
        return self._run(query, key, value, lengths, causal, keep=True)

    def backward(self, dy: Any) -> Any:
        """Add the gradients of the parameters into ``grads`` and return those of the inputs.

        Parameters
        ----------
        dy : ndarray of the queries' shape
            Gradient of ``forward``'s result.

        Returns
        -------
        dquery : ndarray
            Or a tuple with ``dkey``, and ``dvalue``, if ``forward`` was given them: one gradient
            for each array, which has the parts of all the roles that it played.
        """
        if self._kept is not None:
            extent = self._kept.inputs[0].extent
            dy = sequences.take_gradient(self._layout, "dy", dy, extent, self.embed_dim)
        call: _Call = self._take_kept()
        q, k, v = call.heads
        dmerged: Any = self.out_proj.backward(dy)
        dcontext = self._split(dmerged)
        dshares = self.dropout.backward(arrays.matmul(dcontext, v, transposed=True))
        dscores = arrays.softmax_backward(call.shares, dshares)
        dheads = (
            arrays.matmul(dscores, k),
            arrays.matmul(dscores.swapaxes(2, 3), q),
            arrays.matmul(call.dropped.swapaxes(2, 3), dcontext),
        )
        given: list[Array] = []
        for role, dhead in enumerate(dheads):
            scale = self._scale if role == 0 else self._scale.dtype.type(1)
            part = self._project_backward(call, role, self._merge(dhead) * scale)
            if role < len(call.inputs):
                given.append(part)
            else:
                given[-1] = given[-1] + part
        returned = [
            sequences.give(self._layout, gradient, taken.extent)
            for gradient, taken in zip(given, call.inputs, strict=True)
        ]
        return returned[0] if len(returned) == 1 else tuple(returned)

    def _project_backward(self, call: _Call, role: int, gradient: Array) -> Array:
        taken = call.inputs[min(role, len(call.inputs) - 1)]
        values = taken.values if role == 0 else sequences.without(taken.values, call.past)
        weight, _ = self._projection(self._own_params, role)
        dweight, dbias = self._projection(self._own_grads, role)
        dx = arrays.affine_backward(values, weight, gradient, dweight, dbias)
        assert dx is not None
        return dx

    @property
    def _scale(self) -> Any:
        return np.dtype(self.dtype).type(1 / np.sqrt(self.embed_dim // self.num_heads))

    def _take(self, query: Any, key: Any, value: Any) -> list[Taken]:
        """Return the arrays that were given, checked against each other."""
        if key is None and value is not None:
            raise ValueError("key: expected an array beside value, got None")
        inputs: list[Taken] = []
        for name, array, width in zip(ROLES, (query, key, value), self._widths, strict=True):
            if array is None and inputs:
                if width != inputs[-1].values.shape[2]:
                    raise ValueError(f"{name}: expected an array of {width} features, got None")
                continue
            inputs.append(sequences.take(self._layout, name, array, width))
            sequences.beside(name, inputs[-1], inputs[0])
        if len(inputs) == 3 and inputs[2].extent != inputs[1].extent:
            wrong_shape("value", f"as many steps as key, {inputs[1].extent.steps}", np.shape(value))
        return inputs

    def _run(
        self, query: Any, key: Any, value: Any, lengths: object, causal: bool, keep: bool
    ) -> Array:
        inputs = self._take(query, key, value)
        seen: Extent = inputs[min(1, len(inputs) - 1)].extent
        past = sequences.past_lengths(self._layout, lengths, seen)
        steps = inputs[0].extent.steps
        hidden = sequences.hidden_keys(
            self._layout, past, steps, seen.steps, flag("causal", causal)
        )
        heads = []
        for role in range(3):
            values = inputs[min(role, len(inputs) - 1)].values
            values = values if role == 0 else sequences.without(values, past)
            heads.append(
                self._split(arrays.affine(values, *self._projection(self._own_params, role)))
            )
        heads[0] = heads[0] * self._scale
        scores = arrays.matmul(heads[0], heads[1], transposed=True)
        shares = arrays.softmax(scores, None if hidden is None else hidden[:, None])
        dropped = self.dropout.forward(shares) if keep else shares
        context = self._merge(arrays.matmul(dropped, heads[2]))
        y = self.out_proj.forward(context) if keep else self.out_proj(context)
        if keep:
            self._kept = _Call(inputs, past, heads, shares, dropped)
        self.weights = shares if inputs[0].extent.batched else shares[0]
        return sequences.give(self._layout, y, inputs[0].extent)

    def _split(self, values: Array) -> Array:
        """Return ``(N, T, E)`` as ``(N, heads, T, d)``."""
        rows, steps, _ = values.shape
        width = self.embed_dim // self.num_heads
        return values.reshape(rows, steps, self.num_heads, width).swapaxes(1, 2)

    def _merge(self, heads: Array) -> Array:
        """Return ``(N, heads, T, d)`` as ``(N, T, E)``."""
        rows, _, steps, _ = heads.shape
        return heads.swapaxes(1, 2).reshape(rows, steps, self.embed_dim)

    def _options(self) -> str:
        sizes = "" if self._joined else f", kdim={self.kdim}, vdim={self.vdim}"
        return (
            f"{self.embed_dim}, {self.num_heads}, bias={self.bias}{sizes}, "
            f"batch_first={self.batch_first}, dtype={self.dtype!r}"
        )
