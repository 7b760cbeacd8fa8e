"""Small experiments that show gradients vanish and explode, and what helps."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnncore as rc
from rnncore import nn
from rnncore.checks import Array
from rnncore.diagnose.gradient_flow import gradient_flow
from rnncore.diagnose.measures import recurrent_spectra
from rnncore.train import SGD, History, clip_grad_norm


def with_radius(layer: Any, radius: float) -> Any:
    """Scale the recurrent weights of a one-layer RNN to a spectral radius; return the layer.

    Examples
    --------
    >>> layer = with_radius(rc.RNN(2, 8, dtype="float64", seed=0), 1.5)
    >>> round(recurrent_spectra(layer)["weight_hh_l0"]["h"].spectral_radius, 6)
    1.5
    """
    weight = layer.params["weight_hh_l0"]
    weight *= radius / recurrent_spectra(layer)["weight_hh_l0"]["h"].spectral_radius
    return layer


def cell_flows(
    steps: int = 100, hidden: int = 64, batch: int = 16, seed: int = 0
) -> dict[str, Array]:
    """Measure how one loss at the end of a sequence reaches back in different cells.

    RNNs whose recurrent weights have spectral radius 0.8 and 2, a GRU and an LSTM as they are
    drawn, and both with their gates biased to keep what they carry, all on the same noise.

    Parameters
    ----------
    steps, hidden, batch : int
        ``T``, ``H`` and ``N``.
    seed : int
        Of weights and inputs.

    Returns
    -------
    dict of str to ndarray (T,)
        Norm of what crosses into each step, of h, or for an LSTM of h and c together.

    References
    ----------
    Jozefowicz, Zaremba and Sutskever, An empirical exploration of recurrent network architectures,
    2015, for the bias of the forget gate.

    Examples
    --------
    >>> flows = cell_flows(steps=30, hidden=16, batch=4)
    >>> bool(flows["RNN, radius 0.8"][0] < flows["LSTM, forget bias 4"][0])
    True
    """
    gru = rc.GRU(hidden, hidden, dtype="float64", seed=seed)
    keeping = rc.GRU(hidden, hidden, dtype="float64", seed=seed)
    keeping.params["bias_ih_l0"][hidden : 2 * hidden] += 4.0  # z near 1 keeps h
    rnns = [with_radius(rc.RNN(hidden, hidden, dtype="float64", seed=seed), r) for r in (0.8, 2.0)]
    layers = {
        "RNN, radius 0.8": rnns[0],
        "RNN, radius 2": rnns[1],
        "GRU": gru,
        "GRU, update bias 4": keeping,
        "LSTM": rc.LSTM(hidden, hidden, dtype="float64", seed=seed),
        "LSTM, forget bias 4": rc.LSTM(hidden, hidden, forget_bias=4.0, dtype="float64", seed=seed),
    }
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((steps, batch, hidden))
    dy = np.zeros_like(x)
    dy[-1] = draw.standard_normal((batch, hidden)) / hidden**0.5
    flows = {}
    for name, layer in layers.items():
        norms = gradient_flow(layer, x, dy)
        flows[name] = np.sqrt(sum(part[:, 0] ** 2 for part in norms.values()))
    return flows


def clipping_runs(
    updates: int = 300, steps: int = 30, max_norm: float = 0.5, seed: int = 1
) -> dict[str, History]:
    """Train an RNN whose gradient explodes, without clipping and with it, from the same weights.

    It learns the mean of what it reads. Where the gradient is steep, a step of it without a bound
    throws the weights far away (Pascanu et al., 2013).

    Parameters
    ----------
    updates : int
        Length of each training; one ends where its loss is no longer finite.
    steps : int
        ``T``.
    max_norm : float
        The bound of the clipped one.
    seed : int
        Of weights and inputs.

    Returns
    -------
    dict of str to History
        ``"unclipped"`` and ``"clipped"``, with mean squared errors, and norms before clipping.

    Examples
    --------
    >>> runs = clipping_runs()
    >>> runs["clipped"].losses[-1] < 0.01, len(runs["unclipped"].losses) < 300
    (True, True)
    """
    bounds = {"unclipped": np.inf, "clipped": max_norm}
    return {name: _learn_means(updates, steps, bound, seed) for name, bound in bounds.items()}


def _learn_means(updates: int, steps: int, max_norm: float, seed: int) -> History:
    rnn = with_radius(rc.RNN(1, 32, nonlinearity="relu", dtype="float64", seed=seed), 1.4)
    output = nn.Linear(32, 1, dtype="float64", seed=seed + 1)
    optimizer = SGD([rnn, output], lr=0.03)
    draw, history = np.random.default_rng(seed), History()
    for _ in range(updates):
        x = draw.random((steps, 32, 1))
        _, h = rnn.forward(x)
        error = output.forward(h[0]) - x.mean(axis=0)
        loss = float(np.square(error).mean())
        if not np.isfinite(loss):
            break
        optimizer.zero_grad()
        dh: Any = output.backward(2 * error / error.size)
        rnn.backward(None, dh[None], need_dx=False)
        history.losses.append(loss)
        history.norms.append(clip_grad_norm([rnn, output], max_norm))
        optimizer.step()
    return history
