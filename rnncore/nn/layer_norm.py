"""Normalise the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, flag, real, size
from rnncore.nn import checks
from rnncore.nn.module import Module


class LayerNorm(Module):
    r"""Give the last axis mean 0 and variance 1, then a gain and a bias.

    .. math:: y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \epsilon}} \cdot weight + bias

    with the mean of squared deviations as the variance.

    Parameters
    ----------
    features : int
        Size of the last axis.
    eps : float
        Added to the variance.
    bias : bool
        Whether a bias is added.
    dtype : {"float32", "float64"}
        Type of parameters, ``x`` and ``y``.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.

    Attributes
    ----------
    params : mapping
        ``weight (features,)``, ones at first, and ``bias (features,)``, zeros.

    References
    ----------
    Ba, Kiros and Hinton, Layer normalization, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> LayerNorm(3, dtype="float64")(np.array([[1.0, 2.0, 3.0]])).round(3).tolist()
    [[-1.225, 0.0, 1.225]]
    """

    def __init__(
        self,
        features: int,
        eps: float = 1e-5,
        bias: bool = True,
        *,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(dtype, device)
        self._size = size("features", features)
        self.eps = real("eps", eps)
        if self.eps < 0:
            raise ValueError(f"eps: expected at least 0, got {self.eps}")
        self.bias = flag("bias", bias)
        self._add_parameter("weight", np.ones(self._size))
        if self.bias:
            self._add_parameter("bias", np.zeros(self._size))

    @property
    def features(self) -> tuple[int, int]:
        """Sizes of the last axis that go in and come out."""
        return self._size, self._size

    def __call__(self, x: Any) -> Array:
        """Return the normalised ``x (..., features)``."""
        return self._scale(self._normalise(x)[0])

    def forward(self, x: Any) -> Array:
        """Normalise as a call does, and keep what ``backward`` needs."""
        normal, inverse = self._normalise(x)
        y = self._scale(normal)
        self._kept = (normal, inverse)
        return y

    def _normalise(self, x: Any) -> tuple[Array, Array]:
        # Contiguous: NumPy's sums then have one order, whatever the strides were.
        taken = checks.float_array(self._device, "x", x, self._numpy_dtype, self._size)
        xp = self._device.xp
        given = xp.ascontiguousarray(taken)
        less = given - given.mean(axis=-1, keepdims=True)
        variance = xp.square(less).mean(axis=-1, keepdims=True)
        inverse = 1 / xp.sqrt(variance + given.dtype.type(self.eps))
        return xp.multiply(less, inverse, out=less), inverse

    def _scale(self, normal: Array) -> Array:
        y = normal * self._own_params["weight"]
        if self.bias:
            y += self._own_params["bias"]
        return y

    def backward(self, dy: Any) -> Array:
        """Add the gradients of the parameters into ``grads`` and return that of ``x``.

        Parameters
        ----------
        dy : ndarray (..., features)
            Gradient of ``forward``'s result.
        """
        if self._kept is not None:
            dy = checks.shaped(self._device, "dy", dy, self._numpy_dtype, self._kept[0].shape)
        normal, inverse = self._take_kept()
        dy = self._device.xp.ascontiguousarray(dy)
        rows = dy.reshape(-1, self._size)
        self._own_grads["weight"] += (rows * normal.reshape(-1, self._size)).sum(axis=0)
        if self.bias:
            self._own_grads["bias"] += rows.sum(axis=0)
        dnormal = dy * self._own_params["weight"]
        along = (dnormal * normal).mean(axis=-1, keepdims=True)
        dx: Array = dnormal - dnormal.mean(axis=-1, keepdims=True) - normal * along
        dx *= inverse
        return dx

    def _config(self) -> dict[str, Any]:
        """Return what builds an equal module."""
        return {
            "type": "LayerNorm",
            "features": self._size,
            "eps": self.eps,
            "bias": self.bias,
            "dtype": self.dtype,
            "device": self.device,
        }

    def _options(self) -> str:
        return f"{self._size}, eps={self.eps}, bias={self.bias}, dtype={self.dtype!r}"
