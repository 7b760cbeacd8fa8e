"""Numbers that tell vanishing from exploding: per step, per parameter, per gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rnncore.checks import Array
from rnncore.diagnose.chains import names_of, recurrences_of
from rnncore.train.groups import Modules, named_gradients
from rnncore.train.updates import sum_of_squares


class Norms(NamedTuple):
    """Euclidean norms of one parameter."""

    value: float
    gradient: float

    @property
    def ratio(self) -> float:
        """The gradient's norm over the value's: how large a step of learning rate 1 would be."""
        return self.gradient / self.value if self.value else math.inf


def parameter_norms(modules: Modules) -> dict[str, Norms]:
    """Measure every parameter and its gradient, in float64.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        A parameter under several names comes once.

    Returns
    -------
    dict of str to Norms

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(1, 1, seed=0)
    >>> layer.params["weight"][...] = -2; layer.grads["weight"][...] = 6
    >>> norms = parameter_norms(layer)["weight"]
    >>> norms.value, norms.gradient, norms.ratio
    (2.0, 6.0, 3.0)
    """
    return {
        name: Norms(math.sqrt(sum_of_squares(param)), math.sqrt(sum_of_squares(grad)))
        for name, param, grad in named_gradients(modules)
    }


@dataclass(frozen=True)
class Spectrum:
    """What a gate's recurrent weights do to a vector that they multiply again and again."""

    singular_values: Array
    """``(min(H, P),)``, largest first: the most and the least that one product can stretch."""
    spectral_radius: float
    """Largest size of an eigenvalue: what each of many products stretches by."""


def recurrent_spectra(layer: Any) -> dict[str, dict[str, Spectrum]]:
    """Take the spectrum of the recurrent weights of every gate.

    A gradient is multiplied by these weights once a time step. In a plain RNN with tanh it must
    vanish where the largest singular value is below 1, and may explode only where it is above
    (Pascanu et al., 2013); gates are there so that the cell's own path need not pass through them.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, or Stack of them
        With a projection, the matrix is ``weight_hh @ weight_hr``, which maps a step's units to
        the next one's.

    Returns
    -------
    dict of str to dict of str to Spectrum
        By the parameter's name, then by the gate's letter.

    References
    ----------
    Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.RNN(1, 2, seed=0)
    >>> layer.params["weight_hh_l0"][...] = [[0, 2], [0.5, 0]]
    >>> spectrum = recurrent_spectra(layer)["weight_hh_l0"]["h"]
    >>> spectrum.singular_values.tolist(), spectrum.spectral_radius
    ([2.0, 0.5], 1.0)
    """
    spectra: dict[str, dict[str, Spectrum]] = {}
    members = recurrences_of(layer)
    for place, member in enumerate(members):
        prefix = f"{place}." if member is not layer else ""
        for _, end in names_of(member):
            name = f"weight_hh{end}"
            matrix = member.params[name].astype(np.float64)
            if member.spec.proj_size:
                matrix = matrix @ member.params[f"weight_hr{end}"].astype(np.float64)
            blocks = np.split(matrix, len(member.spec.gates))
            spectra[prefix + name] = {
                gate: _spectrum(block)
                for gate, block in zip(member.spec.gates, blocks, strict=True)
            }
    return spectra


def _spectrum(matrix: Array) -> Spectrum:
    values = np.linalg.svd(matrix, compute_uv=False)
    return Spectrum(values, float(np.abs(np.linalg.eigvals(matrix)).max()))


class StepRatio(NamedTuple):
    """How a gradient changes as it goes back in time."""

    per_step: float
    """Geometric mean of each step's norm over that of the step after it; below 1 it vanishes."""
    half_life: float
    """Steps in which it halves; infinite where it does not shrink."""

    @property
    def kind(self) -> str:
        """``"vanishing"``, ``"exploding"``, or ``"steady"`` within 1 % a step."""
        if self.per_step < 0.99:
            return "vanishing"
        return "exploding" if self.per_step > 1.01 else "steady"


def step_ratio(norms: Any) -> StepRatio:
    """Measure how a gradient changes from a step to the one before.

    Parameters
    ----------
    norms : array_like (T,)
        Of dL/dh by time: a forward direction's column of :func:`gradient_flow`.

    Returns
    -------
    StepRatio
        From the first and the last norm; from the first that is not zero, where a gradient has
        died out before.

    Raises
    ------
    ValueError
        If there are not two norms that are finite and not zero.

    Examples
    --------
    >>> ratio = step_ratio([1.0, 2.0, 4.0, 8.0])
    >>> ratio.per_step, ratio.half_life, ratio.kind
    (0.5, 1.0, 'vanishing')
    """
    values = np.asarray(norms, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"norms: expected (T,), got {values.shape}")
    usable = np.flatnonzero(np.isfinite(values) & (values > 0))
    if len(usable) < 2:
        raise ValueError(f"norms: expected two that are finite and not zero, got {len(usable)}")
    first, last = int(usable[0]), int(usable[-1])
    change = (math.log(values[first]) - math.log(values[last])) / (last - first)
    return StepRatio(math.exp(change), math.log(0.5) / change if change < 0 else math.inf)
