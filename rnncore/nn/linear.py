"""An affine map of the last axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array, flag, size
from rnncore.nn import arrays, checks
from rnncore.nn.module import Module
from rnncore.nn.tying import Shared


class Linear(Module):
    """Map the last axis: ``y = x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of ``x`` and ``y``.
    bias : bool
        Whether a bias is added.
    weight : Module, optional
        An :class:`Embedding` or another ``Linear`` whose ``weight (out_features, in_features)`` is
        this layer's weight too. It stays the other module's parameter, in ``params`` once: this
        layer's ``backward`` adds into the other's gradient (Press and Wolf 2017).
    dtype : {"float32", "float64"}
        Type of parameters, ``x`` and ``y``.
    device : {"cpu", "cuda", "cuda:0", ...}
        Where they are.
    seed : int, optional
        Of the initial values, drawn from U(-1/sqrt(in_features), 1/sqrt(in_features)).

    Attributes
    ----------
    params : mapping
        ``weight (out_features, in_features)``, unless it is another module's, and
        ``bias (out_features,)``.

    References
    ----------
    Press and Wolf, Using the output embedding to improve language models, 2017.

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
        weight: Module | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype, device)
        self.in_features = size("in_features", in_features)
        self.out_features = size("out_features", out_features)
        self.bias = flag("bias", bias)
        shape = (self.out_features, self.in_features)
        draw, bound = np.random.default_rng(seed), 1 / np.sqrt(self.in_features)
        if weight is None:
            self._add_parameter("weight", draw.uniform(-bound, bound, shape))
        else:
            self._shared["weight"] = _shared_weight(weight, shape, self.dtype, self.device)
        if self.bias:
            self._add_parameter("bias", draw.uniform(-bound, bound, self.out_features))

    @property
    def features(self) -> tuple[int, int]:
        """Sizes of the last axis that go in and come out."""
        return self.in_features, self.out_features

    @property
    def weight(self) -> Array:
        """The matrix ``(out_features, in_features)``, be it this layer's or another's."""
        return self._tied_weight().value if self._shared else self._own_params["weight"]

    def _tied_weight(self) -> Shared:
        """Return the weight of another module, which must be where this one is."""
        shared = self._shared["weight"]
        if shared.owner._device is not self._device:
            raise RuntimeError(
                f"weight: expected its owner on {self.device}, as this layer is, got "
                f"{shared.owner.device}; move the model that has both"
            )
        return shared

    def __call__(self, x: Any) -> Array:
        """Return ``y (..., out_features)`` of ``x (..., in_features)``."""
        taken = checks.float_array(self._device, "x", x, self._numpy_dtype, self.in_features)
        return arrays.affine(taken, self.weight, self._own_params.get("bias"))

    def forward(self, x: Any) -> Array:
        """Map as a call does, and keep ``x`` for ``backward``; it must not change until then."""
        taken = checks.float_array(self._device, "x", x, self._numpy_dtype, self.in_features)
        y = arrays.affine(taken, self.weight, self._own_params.get("bias"))
        self._kept = (taken,)
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
            dy = checks.shaped(self._device, "dy", dy, self._numpy_dtype, shape)
        (x,) = self._take_kept()
        dweight = self._tied_weight().grad if self._shared else self._own_grads["weight"]
        dbias = self._own_grads.get("bias")
        return arrays.affine_backward(x, self.weight, dy, dweight, dbias, need_dx)

    def _config(self) -> dict[str, Any]:
        if self._shared:
            raise ValueError(
                "weight: expected this layer's own to describe it alone, got one tied to "
                f"{self._shared['weight'].owner!r}; train.save_checkpoint keeps ties"
            )
        return self._frozen_config(self.dtype)

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        return {
            "type": "Linear",
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "dtype": dtype,
            "device": self.device,
        }

    def _frozen_values(self) -> dict[str, Array]:
        return {"weight": self.weight, **self._own_params}

    def _options(self) -> str:
        tied = f"weight={type(self._shared['weight'].owner).__name__}, " if self._shared else ""
        return (
            f"{self.in_features}, {self.out_features}, bias={self.bias}, {tied}dtype={self.dtype!r}"
        )


def _shared_weight(owner: object, shape: tuple[int, int], dtype: str, device: str) -> Shared:
    """Return the weight of another module, if it may serve as a matrix of ``shape``."""
    if not isinstance(owner, Module):
        raise TypeError(
            f"weight: expected a module with a weight, as an Embedding, got {type(owner).__name__}"
        )
    if "weight" in owner._shared:
        shared = owner._shared["weight"]
    elif "weight" in owner._own_params:
        shared = Shared(owner, "weight")
    else:
        raise ValueError(f"weight: expected a module with a trained weight, got {owner!r}")
    if shared.value.shape != shape:
        raise ValueError(f"weight: expected {shape}, got {shared.value.shape} of {owner!r}")
    if shared.value.dtype != dtype:
        raise TypeError(f"weight: expected dtype {dtype}, got {shared.value.dtype} of {owner!r}")
    if shared.owner.device != device:
        raise ValueError(f"weight: expected device {device}, got {shared.owner.device}")
    return shared
