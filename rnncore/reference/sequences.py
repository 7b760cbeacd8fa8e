"""Whole sequences: the loop over time, both directions, stacks, lengths and their gradients.

Rows have their own lengths. At its step s, a row of length n reads time s in the forward direction
and time n - 1 - s in the reverse one; a row takes part in the first n steps only. So nothing is
ever read past a row's end, and what stands there (NaN included) has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rnncore.cells import DIRECTION_SUFFIXES, CellSpec
from rnncore.reference.reduced import reduced
from rnncore.reference.steps import CELLS, Array, Cell, Saved, Weights

Indices = NDArray[np.intp]

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


@dataclass
class Run:
    """What one direction of one layer keeps: the rows, times and values of every step."""

    steps: list[tuple[Indices, Indices, Saved]] = field(default_factory=list)


@dataclass
class Tape:
    """What `backward` needs of a `forward` call."""

    shape: tuple[int, int, int]
    params: dict[str, Array]
    masks: list[Array | None]
    runs: list[Run]


def cell_of(spec: CellSpec) -> Cell:
    """Return the equations of a specification."""
    return CELLS[f"rnn_{spec.nonlinearity}" if spec.cell == "rnn" else spec.cell]


def suffix(layer: int, direction: int) -> str:
    """Return what ends the parameters' names of one direction of one layer."""
    return f"_l{layer}{DIRECTION_SUFFIXES[direction]}"


def weights_of(params: Mapping[str, Array], layer: int, direction: int) -> Weights:
    """Return the weights of one direction of one layer under their plain names."""
    names = {name: name + suffix(layer, direction) for name in WEIGHTS}
    return {name: params[full] for name, full in names.items() if full in params}


def walk(lengths: Indices, direction: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield, step after step, the rows that are alive and the time that each of them reads."""
    for step in range(lengths.max(initial=0)):
        rows = np.flatnonzero(step < lengths)
        yield rows, (lengths[rows] - 1 - step if direction else np.full(rows.size, step))


def forward(
    spec: CellSpec,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masks: Sequence[ArrayLike | None] | None = None,
    weights: str = "full",
) -> tuple[Array, Array, Array | None, Tape]:
    """Run a stack of recurrent layers over whole sequences.

    Parameters
    ----------
    spec : CellSpec
        Cell, sizes and options.
    params : mapping of str to array
        Under PyTorch's names, as in ``spec.param_shapes()``.
    x : (T, N, D) array
        Sequences, time first.
    h0 : (L*K, N, P) array, optional
        Initial outputs; zero where absent.
    c0 : (L*K, N, H) array, optional
        Initial cell states of an LSTM; zero where absent.
    lengths : (N,) integers, optional
        The steps of each row, from 0 to T; all T where absent.
    masks : L entries of None or (T, N, F) arrays, optional
        Each multiplies the input of its layer (dropout, already scaled).
    weights : {"full", "bfloat16", "int8"}, optional
        How matrices are held; reduced ones are for inference. See `rnncore.reference.reduced`.

    Returns
    -------
    y : (T, N, K*P) float64 array
        Outputs of the last layer; zero past a row's length.
    hn : (L*K, N, P) float64 array
        Each row's state after its last step.
    cn : (L*K, N, H) float64 array or None
        The same for the cell state of an LSTM.
    tape : Tape
        For `backward`.
    """
    x = np.asarray(x, np.float64)
    T, N, _ = x.shape
    K, P, H = spec.num_directions, spec.output_size, spec.hidden_size
    ends: Indices = np.full(N, T) if lengths is None else np.array(lengths, np.intp)
    hn = np.zeros((spec.state_rows, N, P)) if h0 is None else np.array(h0, np.float64)
    cn = np.zeros((spec.state_rows, N, H)) if c0 is None else np.array(c0, np.float64)
    arrays = {name: np.array(value, np.float64) for name, value in params.items()}
    held: dict[str, Any] = {name: reduced(weights, value) for name, value in arrays.items()}
    factors = [None if m is None else np.array(m, np.float64) for m in masks or []]
    tape = Tape(x.shape, arrays, factors or [None] * spec.num_layers, [])
    y = x
    with np.errstate(all="ignore"):
        for layer in range(spec.num_layers):
            mask = tape.masks[layer]
            inputs = y if mask is None else y * mask
            y = np.zeros((T, N, K * P))
            for k in range(K):
                run, at = Run(), layer * K + k
                tape.runs.append(run)
                own = weights_of(held, layer, k)
                for rows, times in walk(ends, k):
                    h, c, saved = cell_of(spec).forward(
                        own, inputs[times, rows], hn[at, rows], cn[at, rows]
                    )
                    hn[at, rows], cn[at, rows] = h, c
                    y[times, rows, k * P : (k + 1) * P] = h
                    run.steps.append((rows, times, saved))
    return y, hn, cn if spec.has_cell_state else None, tape


def backward(
    spec: CellSpec,
    params: Mapping[str, ArrayLike],
    tape: Tape,
    dy: ArrayLike | None = None,
    dhn: ArrayLike | None = None,
    dcn: ArrayLike | None = None,
) -> tuple[Array, Array, Array | None, dict[str, Array]]:
    """Return the gradients of a `forward` call, back through time and layers.

    Parameters
    ----------
    spec : CellSpec
        As in `forward`.
    params : mapping of str to array
        As in `forward`; its keys are those of the returned gradients, its values were taken then.
    tape : Tape
        What `forward` returned. It is not changed.
    dy : (T, N, K*P) array, optional
        Gradient of y; zero where absent. Not read past a row's length.
    dhn : (L*K, N, P) array, optional
        Gradient of hn; zero where absent.
    dcn : (L*K, N, H) array, optional
        Gradient of cn; zero where absent.

    Returns
    -------
    dx : (T, N, D) float64 array
        Zero past a row's length.
    dh0 : (L*K, N, P) float64 array
        For a row of length 0, dhn itself.
    dc0 : (L*K, N, H) float64 array or None
        The same for the cell state of an LSTM.
    grads : dict of str to float64 array
        One for each of ``params``.

    Notes
    -----
    With ``s(t)`` the step's function, ``h[t] = s(x[t], h[t-1])``, the total gradient of h[t] is
    that of y[t] plus what step t+1 hands back; the step's own backward does the rest (Werbos 1990).
    """
    T, N, _ = tape.shape
    K, P, H = spec.num_directions, spec.output_size, spec.hidden_size
    dh0 = np.zeros((spec.state_rows, N, P)) if dhn is None else np.array(dhn, np.float64)
    dc0 = np.zeros((spec.state_rows, N, H)) if dcn is None else np.array(dcn, np.float64)
    d_out = np.zeros((T, N, K * P)) if dy is None else np.array(dy, np.float64)
    grads = {name: np.zeros_like(tape.params[name]) for name in params}
    with np.errstate(all="ignore"):
        for layer in reversed(range(spec.num_layers)):
            d_in = np.zeros((T, N, spec.layer_input_size(layer)))
            for k in range(K):
                at = layer * K + k
                own = weights_of(tape.params, layer, k)
                for rows, times, saved in reversed(tape.runs[at].steps):
                    dh = dh0[at, rows] + d_out[times, rows, k * P : (k + 1) * P]
                    dx, dh0[at, rows], dc0[at, rows], d_own = cell_of(spec).backward(
                        own, saved, dh, dc0[at, rows]
                    )
                    d_in[times, rows] += dx
                    for name, value in d_own.items():
                        grads[name + suffix(layer, k)] += value
            mask = tape.masks[layer]
            d_out = d_in if mask is None else d_in * mask
    return d_out, dh0, dc0 if spec.has_cell_state else None, grads
