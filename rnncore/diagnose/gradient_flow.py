"""How far back in time a gradient reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore import checks
from rnncore.cells import carries_c
from rnncore.checks import Array
from rnncore.diagnose.chains import chains_of, recurrences_of
from rnncore.layers.recurrent import Recurrent
from rnncore.train import reversed_within


def gradient_flow(
    layer: Any, x: Array, dy: Array, state: Any = None, lengths: Any = None
) -> dict[str, Array]:
    """Measure the gradient that crosses from each time step into the one before.

    Each layer and direction runs by itself, forward and then backward one step a call; what
    ``backward`` returns as ``dstate`` at step t is the gradient of the state that entered step t:
    all of the loss that came through the recurrence from step t on. Dropout is off, and nothing of
    the layer changes.

    Parameters
    ----------
    layer : RNN, LSTM, GRU, or Stack of them
        In one direction or two.
    x : ndarray (T, N, D)
        Inputs; ``(N, T, D)`` with ``batch_first``.
    dy : ndarray (T, N, K*P)
        Gradient of the loss by the layer's output, laid out as ``x``. With zeros everywhere but
        in the last step it asks how much of one prediction's gradient is left after each step.
    state : state, optional
        Where the sequence starts; zeros if None.
    lengths : N integers, optional
        Length of each row.

    Returns
    -------
    dict of str to ndarray (T, L*K) of float64
        ``"h"``, and ``"c"`` if there is an LSTM: Euclidean norm of dL/dh (dL/dc) over the units,
        mean over the rows that are alive, at the start of each step, by layer and direction as in
        a state. A reverse direction starts step t with what comes from t+1. NaN where no row is
        alive, and as c of a layer without one.

    Raises
    ------
    TypeError
        If the layer is of another kind.
    ValueError
        If a shape is wrong.

    References
    ----------
    Bengio, Simard and Frasconi, Learning long-term dependencies with gradient descent is difficult,
    1994. Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks,
    2013.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.RNN(2, 3, seed=0)
    >>> x, dy = np.ones((4, 1, 2), np.float32), np.zeros((4, 1, 3), np.float32)
    >>> dy[-1] = 1
    >>> norms = gradient_flow(layer, x, dy)["h"][:, 0]
    >>> bool(norms[0] < norms[1] < norms[2] < norms[3])
    True
    """
    members = recurrences_of(layer)
    if layer.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    if x.ndim != 3 or dy.shape != (*x.shape[:2], layer.output_size):
        wanted = f"(T, N, {layer.output_size}) beside x {x.shape}"
        checks.wrong_shape("dy", wanted, dy.shape)
    steps, batch = x.shape[:2]
    ends = np.full(batch, steps) if lengths is None else checks.lengths(lengths, steps, batch, True)
    starts = _starts(members, state)
    chains = chains_of(layer)
    runs = []
    for directions in chains:
        layers_runs = [
            _Run(chain, x, ends, starts.pop(0), direction == 1)
            for direction, chain in enumerate(directions)
        ]
        runs.append(layers_runs)
        x = np.concatenate([run.y for run in layers_runs], axis=2)
    columns: list[dict[str, Array]] = []
    for layers_runs in reversed(runs):
        parts = np.split(dy, len(layers_runs), axis=2)
        for run, part in zip(layers_runs, parts, strict=True):
            run.backward(part)
        dy = sum(run.dx for run in layers_runs)  # type: ignore[assignment]
        columns = [run.norms for run in layers_runs] + columns
    absent = np.full(steps, np.nan)
    kinds = "hc" if any("c" in column for column in columns) else "h"
    return {
        kind: np.stack([column.get(kind, absent) for column in columns], axis=1) for kind in kinds
    }


class _Run:
    """One recurrence over a sequence, step by step."""

    def __init__(self, chain: Recurrent, x: Array, ends: Array, state: Any, reverse: bool) -> None:
        self._chain, self._ends, self._reverse = chain, ends, reverse
        x = self._turned(x)
        self._tapes, rows = [], []
        for t in range(len(x)):
            y, state, tape = chain.record(x[t : t + 1], state, lengths=self._alive(t))
            self._tapes.append(tape)
            rows.append(y)
        shape = (0, x.shape[1], chain.output_size)
        self.y = self._turned(np.concatenate([np.empty(shape, x.dtype), *rows]))

    def _alive(self, t: int) -> Array:
        return (self._ends > t).astype(np.int64)

    def _turned(self, array: Array) -> Array:
        return reversed_within(array, self._ends) if self._reverse else array

    def backward(self, dy: Array) -> None:
        """Find ``dx``, and the norms of what crosses into each step."""
        dy, dstate = np.ascontiguousarray(self._turned(dy)), None
        kinds = "hc" if carries_c(self._chain.spec.cell) else "h"
        norms = {kind: np.full((len(dy), len(self._ends)), np.nan) for kind in kinds}
        dx = np.zeros((*dy.shape[:2], self._chain.input_size), dy.dtype)
        for t in reversed(range(len(dy))):
            step, dstate = self._chain.backward(dy[t : t + 1], dstate, tape=self._tapes.pop())
            dx[t : t + 1] = step
            parts = dstate if isinstance(dstate, tuple) else (dstate,)
            for kind, part in zip(kinds, parts, strict=True):
                sizes = np.linalg.norm(part[0].astype(np.float64), axis=1)
                norms[kind][t] = np.where(self._ends > t, sizes, np.nan)
        self.dx = self._turned(dx)
        self.norms = {kind: _mean_alive(self._turned(value)) for kind, value in norms.items()}


def _mean_alive(norms: Array) -> Array:
    """Return the mean of each row's numbers that are not NaN, NaN where there are none."""
    known = ~np.isnan(norms)
    count = known.sum(axis=1)
    total = np.where(known, norms, 0).sum(axis=1)
    mean: Array = np.divide(total, count, out=np.full(len(norms), np.nan), where=count > 0)
    return mean


def _starts(members: list[Recurrent], state: Any) -> list[Any]:
    """Return the initial state of each recurrence, None for zeros."""
    states = state if isinstance(state, list) else [state]
    if state is not None and len(states) != len(members):
        raise ValueError(f"state: expected {len(members)} entries, got {len(states)}")
    starts: list[Any] = []
    for place, member in enumerate(members):
        rows = member.spec.state_rows
        given = None if state is None else states[place]
        if given is None:
            starts += [None] * rows
        elif isinstance(given, tuple):
            starts += [tuple(part[i : i + 1] for part in given) for i in range(rows)]
        else:
            starts += [given[i : i + 1] for i in range(rows)]
    return starts
