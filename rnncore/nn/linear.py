"""An affine map of the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, flag, size
from rnncore.nn import checks, primitives
from rnncore.nn.module import Module


class Linear(Module):
    """Map the last axis: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of ``x`` and ``y``.
    bias : bool
        Whether a bias is added.
    dtype : {"float32", "float64"}
        Type of parameters, ``x`` and ``y``.
    seed : int, optional
        Of the initial values, drawn from U(-1/sqrt(in_features), 1/sqrt(in_features)).

    Attributes
    ----------
    params : mapping
        ``weight (out_features, in_features)`` and ``bias (out_features,)``.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Linear(3, 2, seed=0)
    >>> y = layer.forward(np.ones((5, 4, 3), np.float32))
    >>> layer.backward(np.ones_like(y)).shape
    (5, 4, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype)
        self.in_features = size("in_features", in_features)
        self.out_features = size("out_features", out_features)
        self.bias = flag("bias", bias)
        draw, bound = np.random.default_rng(seed), 1 / np.sqrt(self.in_features)
        self._add_parameter(
            "weight", draw.uniform(-bound, bound, (self.out_features, self.in_features))
        )
        if self.bias:
            self._add_parameter("bias", draw.uniform(-bound, bound, self.out_features))

    def _apply(self, x: Array) -> Array:
        rows = np.ascontiguousarray(x).reshape(-1, self.in_features)
        out = np.empty((rows.shape[0], self.out_features), dtype=self.dtype)
        primitives.linear_forward(
            rows, self._own_params["weight"], self._own_params.get("bias"), out
        )
        return out.reshape(*x.shape[:-1], self.out_features)

    def __call__(self, x: Any) -> Array:
        """Return ``y (..., out_features)`` of ``x (..., in_features)``."""
        return self._apply(checks.float_array("x", x, self.dtype, self.in_features))

    def forward(self, x: Any) -> Array:
        """Map as a call does, and keep ``x`` for ``backward``; it must not change until then."""
        array = checks.float_array("x", x, self.dtype, self.in_features)
        y = self._apply(array)
        self._kept = (array,)
        return y

    def backward(self, dy: Any, need_dx: bool = True) -> Array | None:
        """Add the gradients of the parameters into ``grads`` and return that of ``x``.

        Parameters
        ----------
        dy : ndarray (..., out_features)
            Gradient of ``forward``'s result.
        need_dx : bool
            Whether ``dx`` is computed.

        Returns
        -------
        ndarray (..., in_features) or None
        """
        if self._kept is not None:
            shape = (*self._kept[0].shape[:-1], self.out_features)
            dy = checks.shaped("dy", dy, self.dtype, shape)
        (x,) = self._take_kept()
        dx = np.empty(x.shape, dtype=self.dtype) if need_dx else None
        primitives.linear_backward(
            np.ascontiguousarray(x).reshape(-1, self.in_features),
            self._own_params["weight"],
            np.ascontiguousarray(dy).reshape(-1, self.out_features),
            None if dx is None else dx.reshape(-1, self.in_features),
            self._own_grads["weight"],
            self._own_grads.get("bias"),
        )
        return dx

    def _options(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias}, dtype={self.dtype!r}"
