"""Keep gradients from exploding."""

from __future__ import annotations

import math
from typing import Any

from rnncore import checks, devices
from rnncore.checks import Array
from rnncore.train.groups import Modules, named_gradients
from rnncore.train.updates import sum_of_squares


def clip_grad_norm(modules: Modules, max_norm: float, error_if_nonfinite: bool = False) -> float:
    """Scale all gradients down together where their common Euclidean norm exceeds a bound.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        Whose ``grads`` are scaled in place; a gradient under several names counts once.
    max_norm : float
        The bound; ``inf`` only measures.
    error_if_nonfinite : bool
        Whether a norm that is NaN or infinite is an error, as in PyTorch. Otherwise it is returned
        and nothing is scaled (PyTorch scales by 0 or NaN then): the caller may look and skip.

    Returns
    -------
    float
        The norm before, summed in float64 in an order that depends on no thread. Of gradients on
        a GPU it is the one number that is read back.

    Raises
    ------
    FloatingPointError
        If the norm is not finite and ``error_if_nonfinite`` is set; nothing is scaled.

    References
    ----------
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(1, 1, seed=0)
    >>> layer.grads["weight"][...] = 3; layer.grads["bias"][...] = 4
    >>> clip_grad_norm(layer, 1.0)
    5.0
    >>> round(float(layer.grads["bias"][0]), 4)
    0.8
    """
    max_norm = checks.bound("max_norm", max_norm)
    grads = [grad for _, _, grad in named_gradients(modules)]
    norm = math.sqrt(_total(grads))
    if not math.isfinite(norm) and error_if_nonfinite:
        raise FloatingPointError(f"gradients: expected a finite norm, got {norm}")
    if math.isfinite(norm) and norm > max_norm:
        for grad in grads:
            with devices.of(grad).entered():
                grad *= grad.dtype.type(max_norm / norm)
    return norm


def _total(grads: list[Array]) -> float:
    """Return the sum of all squares; one number comes back from each device."""
    totals: dict[str, Any] = {}
    for grad in grads:
        device = devices.of(grad)
        with device.entered():
            totals[device.name] = totals.get(device.name, 0.0) + sum_of_squares(grad)
    return sum(map(float, totals.values()))


def clip_grad_value(modules: Modules, max_value: float) -> None:
    """Clamp every entry of every gradient into ``[-max_value, max_value]``, in place.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        Whose ``grads`` are clamped; NaN stays NaN.
    max_value : float
        The bound.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(1, 1, seed=0)
    >>> layer.grads["bias"][...] = -7
    >>> clip_grad_value(layer, 0.5)
    >>> float(layer.grads["bias"][0])
    -0.5
    """
    max_value = checks.bound("max_value", max_value)
    for _, _, grad in named_gradients(modules):
        device = devices.of(grad)
        with device.entered():
            device.xp.clip(grad, -max_value, max_value, out=grad)
