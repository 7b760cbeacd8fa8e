"""A table of vectors looked up by index: trained, given, or one-hot."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rnncore import devices
from rnncore.checks import Array, flag, size
from rnncore.nn import checks, primitives
from rnncore.nn.module import Module


class Embedding(Module):
    """Look up a vector for every index: ``y = weight[x]``.

    :meth:`from_vectors` takes vectors that are known, :meth:`one_hot` needs none.

    Parameters
    ----------
    num_embeddings : int
        Number of vectors.
    embedding_dim : int
        Size of a vector.
    padding_idx : int, optional
        Index whose vector starts at zero and has no gradient; negative ones count from the end.
    dtype : {"float32", "float64"}
        Type of the vectors.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the initial values, drawn from N(0, 1).

    Attributes
    ----------
    params : mapping
        ``weight (num_embeddings, embedding_dim)`` where it is trained.

    Examples
    --------
    >>> import numpy as np
    >>> table = Embedding(10, 3, padding_idx=0, seed=0)
    >>> table(np.array([[1, 2], [2, 9]])).shape
    (2, 2, 3)
    >>> table(np.array([0])).tolist()
    [[0.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        self._prepare(num_embeddings, embedding_dim, padding_idx, dtype, device)
        draw = np.random.default_rng(seed)
        weight = draw.standard_normal((self.num_embeddings, self.embedding_dim))
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        self._add_parameter("weight", weight)

    def _prepare(
        self, count: int, width: int, padding_idx: int | None, dtype: str, device: str
    ) -> None:
        super().__init__(dtype, device)
        self.num_embeddings = size("num_embeddings", count)
        self.embedding_dim = size("embedding_dim", width)
        self.padding_idx = _padding(padding_idx, self.num_embeddings)

    @classmethod
    def from_vectors(
        cls,
        vectors: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        *,
        dtype: str | None = None,
        device: str = "cpu",
    ) -> Self:
        """Make a table of given vectors, of which it takes a copy.

        Parameters
        ----------
        vectors : ndarray (num_embeddings, embedding_dim)
            Real numbers, as from :func:`read_word2vec`.
        freeze : bool
            Whether they stay as they are: part of ``state_dict``, but neither of ``params`` nor of
            ``grads``. Otherwise they are trained.
        padding_idx : int, optional
            Index whose vector has no gradient.
        dtype : {"float32", "float64"}, optional
            Type of the table; that of the vectors, or float32 where they have another.
        device : {"cpu", "cuda", "cuda:0", ...}
            Where the table is to be, wherever the vectors are.

        Examples
        --------
        >>> import numpy as np
        >>> table = Embedding.from_vectors(np.eye(3, dtype="float32"))
        >>> table(np.array([2])).tolist(), dict(table.params)
        ([[0.0, 0.0, 1.0]], {})
        """
        given = devices.HOST.brought("vectors", vectors)
        if given.dtype.kind not in "fiu":
            raise TypeError(f"vectors: expected real numbers, got dtype {given.dtype}")
        if given.ndim != 2:
            raise ValueError(
                f"vectors: expected (num_embeddings, embedding_dim), got {given.shape}"
            )
        if dtype is None:
            dtype = given.dtype.name if given.dtype.name == "float64" else "float32"
        table = cls.__new__(cls)
        table._prepare(given.shape[0], given.shape[1], padding_idx, dtype, device)
        if flag("freeze", freeze):
            held = np.array(given, dtype=table.dtype, order="C")
            table._constants["weight"] = table._device.upload(held)
        else:
            table._add_parameter("weight", np.array(given, dtype=table.dtype))
        return table

    @classmethod
    def one_hot(
        cls,
        num_embeddings: int,
        padding_idx: int | None = None,
        *,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> Self:
        """Make a table without weights: a 1 at the index, 0 elsewhere, zeros for the padding.

        Examples
        --------
        >>> Embedding.one_hot(3)(np.array([2, 0])).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        """
        table = cls.__new__(cls)
        table._prepare(num_embeddings, num_embeddings, padding_idx, dtype, device)
        return table

    @property
    def weight(self) -> Array | None:
        """The vectors ``(num_embeddings, embedding_dim)``, None where they are one-hot."""
        return {**self._constants, **self._own_params}.get("weight")

    def __call__(self, x: Any) -> Array:
        """Return the vectors of integers ``x`` of any shape: ``x.shape + (embedding_dim,)``."""
        return self._look_up(checks.indices(self._device, "x", x, self.num_embeddings))

    def forward(self, x: Any) -> Array:
        """Look up as a call does, and keep the indices for ``backward``."""
        indices = checks.indices(self._device, "x", x, self.num_embeddings)
        y = self._look_up(indices)
        self._kept = (indices,)
        return y

    def _look_up(self, indices: npt.NDArray[np.int64]) -> Array:
        xp = self._device.xp
        if self.weight is not None:
            vectors: Array = xp.take(self.weight, indices, axis=0)
            return vectors
        flat = indices.reshape(-1)
        y = xp.zeros((len(flat), self.embedding_dim), dtype=self.dtype)
        y[xp.arange(len(flat)), flat] = 1 if self.padding_idx is None else flat != self.padding_idx
        rows: Array = y.reshape(*indices.shape, self.embedding_dim)
        return rows

    def backward(self, dy: Any) -> None:
        """Add the gradient of trained vectors into ``grads``; indices have no gradient.

        Parameters
        ----------
        dy : ndarray (..., embedding_dim)
            Gradient of ``forward``'s result.
        """
        if self._kept is not None:
            dy = self._shaped(dy)
        (indices,) = self._take_kept()
        if "weight" not in self._own_grads:
            return
        xp, flat = self._device.xp, indices.reshape(-1)
        rows = xp.ascontiguousarray(dy).reshape(-1, self.embedding_dim)
        if self.padding_idx is not None:
            counted = flat != self.padding_idx
            if xp is np:
                flat, rows = flat[counted], rows[counted]
            else:  # how many are left would have to be read back
                rows = xp.where(counted[:, None], rows, 0)
        primitives.embedding_backward(flat, rows, self._own_grads["weight"])

    def _shaped(self, dy: Any) -> Array:
        shape = (*self._kept[0].shape, self.embedding_dim)
        return checks.shaped(self._device, "dy", dy, self._numpy_dtype, shape)

    def _options(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        kind = ", one-hot" if self.weight is None else ", frozen" if self._constants else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{kind}, dtype={self.dtype!r}"


def _padding(value: int | None, count: int) -> int | None:
    """Return an index from 0 on, or None."""
    if value is None:
        return None
    place = size("padding_idx", value, minimum=-count)
    if place >= count:
        raise ValueError(f"padding_idx: expected {-count} .. {count - 1}, got {place}")
    return place % count
