"""How far back in time a gradient reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array


def gradient_flow(layer: Any, x: Array, dy: Array, state: Any = None) -> dict[str, Array]:
    """Measure the gradient that crosses from each time step into the one before.

    The sequence runs forward one step a call and backward one step a call; what ``backward``
    returns as ``dstate`` at step t is the gradient of the state that entered step t. Nothing of
    the layer changes: gradients, state and generators are put back.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        In one direction.
    x : ndarray (T, N, D)
        Inputs; ``(N, T, D)`` with ``batch_first``.
    dy : ndarray (T, N, P)
        Gradient of the loss by the layer's output, laid out as ``x``. With zeros everywhere but
        in the last step it asks how much of one prediction's gradient is left after each step.
    state : state, optional
        Where the sequence starts.

    Returns
    -------
    dict of str to ndarray (T, L) of float64
        ``"h"``, and ``"c"`` for an LSTM: Euclidean norm of dL/dh (dL/dc) over the units, mean over
        the rows, at the start of each step and in each layer.

    Raises
    ------
    ValueError
        If the layer has two directions: its reverse one cannot run in chunks.
    """
    if layer.bidirectional:
        raise ValueError("layer: expected one direction, got bidirectional=True")
    axis = 1 if layer.batch_first else 0
    steps = x.shape[axis]
    kept = {name: value.copy() for name, value in layer.grads.items()}
    before = (layer.rng_state, layer.state if layer.stateful else None)
    if layer.stateful:
        layer.reset_state()
    try:
        tapes = []
        for t in range(steps):
            _, state, tape = layer.record(_steps(x, t, axis), state)
            tapes.append(tape)
        norms: dict[str, Array] = {}
        dstate = None
        for t in reversed(range(steps)):
            _, dstate = layer.backward(_steps(dy, t, axis), dstate, tape=tapes.pop())
            parts = dstate if isinstance(dstate, tuple) else (dstate,)
            for name, part in zip("hc", parts, strict=False):
                row = norms.setdefault(name, np.empty((steps, layer.num_layers)))[t]
                row[...] = np.linalg.norm(part.astype(np.float64), axis=2).mean(axis=1)
        return norms
    finally:
        _put_back(layer, kept, *before)


def _steps(array: Array, t: int, axis: int) -> Array:
    return array[:, t : t + 1] if axis else array[t : t + 1]


def _put_back(layer: Any, grads: dict[str, Array], rng_state: Any, state: Any) -> None:
    for name, value in grads.items():
        layer.grads[name][...] = value
    layer.rng_state = rng_state
    if layer.stateful:
        layer.reset_state()
        if state is not None:
            layer.set_state(state)
