"""A table of vectors looked up by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, size
from rnncore.nn import checks, primitives
from rnncore.nn.module import Module


class Embedding(Module):
    """Look up a vector for every index: ``y = weight[x]``.

    Parameters
    ----------
    num_embeddings : int
        Number of vectors.
    embedding_dim : int
        Size of a vector.
    dtype : {"float32", "float64"}
        Type of the vectors.
    seed : int, optional
        Of the initial values, drawn from N(0, 1).

    Attributes
    ----------
    params : mapping
        ``weight (num_embeddings, embedding_dim)``.

    Examples
    --------
    >>> import numpy as np
    >>> table = Embedding(10, 3, seed=0)
    >>> table(np.array([[1, 2], [2, 9]])).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype)
        self.num_embeddings = size("num_embeddings", num_embeddings)
        self.embedding_dim = size("embedding_dim", embedding_dim)
        draw = np.random.default_rng(seed)
        self._add_parameter(
            "weight", draw.standard_normal((self.num_embeddings, self.embedding_dim))
        )

    def __call__(self, x: Any) -> Array:
        """Return the vectors of integers ``x`` of any shape: ``x.shape + (embedding_dim,)``."""
        return np.take(
            self._own_params["weight"], checks.indices("x", x, self.num_embeddings), axis=0
        )

    def forward(self, x: Any) -> Array:
        """Look up as a call does, and keep the indices for ``backward``."""
        indices = checks.indices("x", x, self.num_embeddings)
        self._kept = (indices,)
        return np.take(self._own_params["weight"], indices, axis=0)

    def backward(self, dy: Any) -> None:
        """Add the gradient of the vectors into ``grads``; indices have no gradient.

        Parameters
        ----------
        dy : ndarray (..., embedding_dim)
            Gradient of ``forward``'s result.
        """
        if self._kept is not None:
            dy = checks.shaped("dy", dy, self.dtype, (*self._kept[0].shape, self.embedding_dim))
        (indices,) = self._take_kept()
        primitives.embedding_backward(
            indices.reshape(-1),
            np.ascontiguousarray(dy).reshape(-1, self.embedding_dim),
            self._own_grads["weight"],
        )

    def _options(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, dtype={self.dtype!r}"
