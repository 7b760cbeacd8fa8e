"""Attention of a decoder over an encoder's steps, with one head."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, choice, flag, size, wrong_shape
from rnncore.nn import arrays, sequences
from rnncore.nn.sequences import SequenceModule, Taken

KINDS = ("dot", "general", "additive")


class Attention(SequenceModule):
    r"""Mix values by how well their keys score with a query.

    With :math:`a_{ij}` the softmax over :math:`j` of the scores, the context of query :math:`i` is
    :math:`\sum_j a_{ij} v_j`. The scores are

    ========== =============================== ============================================
    kind       score of query q with key k     parameters
    ========== =============================== ============================================
    dot        :math:`q^T k` (Luong)           none
    general    :math:`q^T W k` (Luong)         ``weight (query_size, key_size)``
    additive   :math:`u^T \tanh(W q + U k)`    ``weight_query (hidden_size, query_size)``,
               (Bahdanau)                      ``weight_key (hidden_size, key_size)``,
                                               ``weight_score (hidden_size,)``
    ========== =============================== ============================================

    Parameters
    ----------
    kind : {"dot", "general", "additive"}
        How scores are made.
    query_size, key_size : int, optional
        Features of a query and of a key. ``dot`` needs none; for the others ``key_size`` is
        ``query_size`` where absent.
    hidden_size : int, optional
        Size of the sum that ``additive`` takes the tanh of; ``query_size`` where absent.
    scaled : bool
        Whether the products of ``dot`` and ``general`` are divided by the root of the number of a
        query's features, as in transformers.
    batch_first : bool
        Whether sequences are ``(N, T, F)``.
    dtype : {"float32", "float64"}
        Type of parameters and arrays.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the initial values, drawn from U(-1/sqrt(n), 1/sqrt(n)) with n the terms of a sum.

    Attributes
    ----------
    weights : ndarray (N, queries, keys)
        The shares of the last call, for attention maps: ``(N, keys)`` for one step of queries,
        ``(queries, keys)`` unbatched; None before a call.

    References
    ----------
    Luong, Pham and Manning, Effective approaches to attention-based neural machine translation,
    2015. Bahdanau, Cho and Bengio, Neural machine translation by jointly learning to align and
    translate, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> attention = Attention("general", query_size=4, key_size=6, seed=0)
    >>> queries, keys = np.ones((3, 2, 4), np.float32), np.ones((5, 2, 6), np.float32)
    >>> attention(queries, keys, lengths=[5, 2]).shape
    (3, 2, 6)
    >>> attention.weights[1, 0].tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    _of_a_call = ("_kept", "weights")

    def __init__(
        self,
        kind: str = "dot",
        query_size: int | None = None,
        key_size: int | None = None,
        hidden_size: int | None = None,
        *,
        scaled: bool = False,
        batch_first: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_first, dtype, device)
        self.kind = choice("kind", kind, KINDS)
        self.scaled = flag("scaled", scaled)
        self.weights: Array | None = None
        self.query_size, self.key_size, self.hidden_size = self._sizes(
            query_size, key_size, hidden_size
        )
        draw = np.random.default_rng(seed)
        for name, shape in self._shapes().items():
            bound = 1 / np.sqrt(shape[-1])
            self._add_parameter(name, draw.uniform(-bound, bound, shape))

    def _sizes(self, *given: int | None) -> tuple[int | None, int | None, int | None]:
        """Return the checked sizes of query, key and hidden sum, absent ones filled in."""
        names = ("query_size", "key_size", "hidden_size")
        query, key, hidden = (
            None if value is None else size(name, value)
            for name, value in zip(names, given, strict=True)
        )
        if self.kind != "additive" and hidden is not None:
            raise ValueError(f"hidden_size: has no meaning with kind={self.kind!r}")
        if self.kind == "additive" and self.scaled:
            raise ValueError("scaled: has no meaning with kind='additive'")
        if self.kind != "dot":
            if query is None:
                raise ValueError(f"query_size: expected a size with kind={self.kind!r}, got None")
            hidden = (hidden or query) if self.kind == "additive" else None
            return query, key or query, hidden
        if None not in (query, key) and query != key:
            raise ValueError(f"key_size: expected query_size={query} with kind='dot', got {key}")
        return query or key, key or query, None

    def _shapes(self) -> dict[str, Any]:
        if self.kind == "general":
            return {"weight": (self.query_size, self.key_size)}
        if self.kind == "additive":
            return {
                "weight_query": (self.hidden_size, self.query_size),
                "weight_key": (self.hidden_size, self.key_size),
                "weight_score": (self.hidden_size,),
            }
        return {}

    def __call__(self, query: Any, keys: Any, values: Any = None, lengths: object = None) -> Array:
        """Return the contexts of queries.

        Parameters
        ----------
        query : ndarray (T, N, query_size), (N, query_size) or unbatched (T, query_size)
            Queries, or one step of them.
        keys : ndarray (S, N, key_size) or unbatched (S, key_size)
            One key for each of an encoder's steps.
        values : ndarray (S, N, F) or (S, F), optional
            What is mixed; the keys themselves if None.
        lengths : N integers, optional
            Length of each sequence of keys, from 0 to S. Nothing past it is seen; a query that
            sees no key has a context of zeros.

        Returns
        -------
        ndarray (T, N, F), (N, F) or (T, F)
        """
        return self._run(query, keys, values, lengths, keep=False)

    def forward(self, query: Any, keys: Any, values: Any = None, lengths: object = None) -> Array:
        """Return the contexts as a call does, and keep what ``backward`` needs."""
        return self._run(query, keys, values, lengths, keep=True)

    def backward(self, dy: Any) -> tuple[Array, ...]:
        """Add the gradients of the parameters into ``grads`` and return those of the inputs.

        Parameters
        ----------
        dy : ndarray
            Gradient of ``forward``'s contexts.

        Returns
        -------
        dquery, dkeys : ndarray
            And ``dvalues`` if ``forward`` had values; without, ``dkeys`` has both parts.
        """
        if self._kept is not None:
            dy = self._take_dy(dy)
        queries, keys, values, one_step, past, kept, shares = self._take_kept()
        dshares = arrays.matmul(dy, sequences.without(values.values, past), transposed=True)
        dvalues = arrays.matmul(shares.swapaxes(1, 2), dy)
        dscores = arrays.softmax_backward(shares, dshares) * self._scale(queries.values)
        dquery, dkeys = self._scores_backward(dscores, kept)
        given = [self._give(dquery, queries.extent, one_step)]
        if values is keys:
            dkeys += dvalues
        given.append(sequences.give(self._layout, dkeys, keys.extent))
        if values is not keys:
            given.append(sequences.give(self._layout, dvalues, values.extent))
        return tuple(given)

    def _run(self, query: Any, keys: Any, values: Any, lengths: object, keep: bool) -> Array:
        ones, one_step = self._take_query(query, keys)
        taken_keys = self._take_any("keys", keys, self.key_size or ones.values.shape[2])
        sequences.beside("keys", taken_keys, ones)
        taken_values = taken_keys
        if values is not None:
            taken_values = self._take_any("values", values, None)
            if taken_values.extent != taken_keys.extent:
                expected = taken_keys.extent[:2]
                wrong_shape("values", f"as many as keys (S, N) = {expected}", np.shape(values))
        past = sequences.past_lengths(self._layout, lengths, taken_keys.extent)
        seen = sequences.without(taken_keys.values, past)
        scores, kept = self._scores(ones.values, seen)
        hidden = sequences.hidden_keys(
            self._layout, past, ones.extent.steps, taken_keys.extent.steps, False
        )
        shares = arrays.softmax(scores * self._scale(ones.values), hidden)
        mixed = seen if values is None else sequences.without(taken_values.values, past)
        context = arrays.matmul(shares, mixed)
        if keep:
            self._kept = (ones, taken_keys, taken_values, one_step, past, kept, shares)
        batched = ones.extent.batched
        self.weights = shares[:, 0] if one_step else shares if batched else shares[0]
        return self._give(context, ones.extent, one_step)

    def _scale(self, query: Array) -> Any:
        return query.dtype.type(1 / np.sqrt(query.shape[2]) if self.scaled else 1)

    def _scores(self, query: Array, keys: Array) -> tuple[Array, Any]:
        """Return the scores ``(N, T, S)`` and what their gradient needs."""
        own = self._own_params
        if self.kind == "dot":
            return arrays.matmul(query, keys, transposed=True), (query, keys)
        if self.kind == "general":
            met = arrays.affine(keys, own["weight"])
            return arrays.matmul(query, met, transposed=True), (query, keys, met)
        hidden = arrays.affine(query, own["weight_query"])[:, :, None]
        hidden = arrays.tanh(hidden + arrays.affine(keys, own["weight_key"])[:, None])
        return arrays.affine(hidden, own["weight_score"][None])[..., 0], (query, keys, hidden)

    def _scores_backward(self, dscores: Array, kept: Any) -> tuple[Array, Array]:
        """Add into the parameters' gradients and return those of query and keys."""
        own, grads = self._own_params, self._own_grads
        query, keys = kept[:2]
        turned = dscores.swapaxes(1, 2)
        if self.kind == "dot":
            return arrays.matmul(dscores, keys), arrays.matmul(turned, query)
        if self.kind == "general":
            dmet = arrays.matmul(turned, query)
            dkeys: Any = arrays.affine_backward(keys, own["weight"], dmet, grads["weight"])
            return arrays.matmul(dscores, kept[2]), dkeys
        hidden = kept[2]
        dhidden: Any = arrays.affine_backward(
            hidden, own["weight_score"][None], dscores[..., None], grads["weight_score"][None]
        )
        dhidden *= 1 - hidden * hidden
        parts: list[Any] = []
        for name, value, axis in (("weight_query", query, 2), ("weight_key", keys, 1)):
            total = dhidden.sum(axis=axis)
            parts.append(arrays.affine_backward(value, own[name], total, grads[name]))
        return parts[0], parts[1]

    def _take_query(self, query: Any, keys: Any) -> tuple[Taken, bool]:
        """Return the queries, and whether they are one step ``(N, query_size)``."""
        one_step = getattr(query, "ndim", 3) == 2 and getattr(keys, "ndim", 2) == 3
        if one_step:
            query = query[:, None] if self.batch_first else query[None]
        return self._take_any("query", query, self.query_size), one_step

    def _take_any(self, name: str, value: Any, features: int | None) -> Taken:
        """Return sequences of so many features, or of as many as they have."""
        if features is None:
            features = value.shape[-1] if getattr(value, "ndim", 0) > 1 else 1
        return sequences.take(self._layout, name, value, features)

    def _take_dy(self, dy: Any) -> Array:
        queries, _, values, one_step = self._kept[:4]
        if one_step and getattr(dy, "ndim", 0) == 2:
            dy = dy[:, None] if self.batch_first else dy[None]
        width = values.values.shape[2]
        return sequences.take_gradient(self._layout, "dy", dy, queries.extent, width)

    def _give(self, value: Array, extent: Any, one_step: bool) -> Array:
        return value[:, 0] if one_step else sequences.give(self._layout, value, extent)

    def _options(self) -> str:
        names = ("query_size", "key_size", "hidden_size")
        sizes = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name)]
        more = [*sizes, f"batch_first={self.batch_first}", f"dtype={self.dtype!r}"]
        return ", ".join([repr(self.kind), *(["scaled=True"] if self.scaled else []), *more])
