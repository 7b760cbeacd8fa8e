"""Whole sequences: the loop over time, both directions, stacks, lengths and their gradients.

Rows have their own lengths. At its step s, a row of length n reads time s in the forward direction
and time n - 1 - s in the reverse one; a row takes part in the first n steps only. So nothing is
ever read past a row's end, and what stands there (NaN included) has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rnncore.cells import CellSpec
from rnncore.masks import Masks
from rnncore.reference.runs import Booleans, Indices, Run, Step, run_of
from rnncore.reference.steps import Array


@dataclass
class Tape:
    """What `backward` needs of a `forward` call."""

    shape: tuple[int, int, int]
    params: dict[str, Array]
    inputs: list[Array | None]
    runs: list[Run]


def masks_of(spec: CellSpec, masks: Masks | Sequence[ArrayLike | None] | None) -> Masks:
    """Return masks as `forward` takes them, each of every kind or None."""
    if isinstance(masks, Masks):
        return masks
    none = [None] * spec.state_rows
    inputs = [None if mask is None else np.asarray(mask) for mask in masks or []]
    return Masks(inputs or [None] * spec.num_layers, none, none, none)


def walk(lengths: Indices, resets: Booleans, direction: int) -> Iterator[Step]:
    """Yield, step after step, the rows that are alive and the time that each of them reads.

    Going forwards a row starts a segment at its reset; going backwards, at the time before one,
    unless that is the row's last.
    """
    for step in range(lengths.max(initial=0)):
        rows = np.flatnonzero(step < lengths)
        if direction:
            times = lengths[rows] - 1 - step
            starts = resets[np.minimum(times + 1, len(resets) - 1), rows] & (step > 0)
        else:
            times = np.full(rows.size, step)
            starts = resets[times, rows]
        yield Step(rows, times, starts)


def forward(
    spec: CellSpec,
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    masks: Masks | Sequence[ArrayLike | None] | None = None,
    weights: str = "full",
    resets: ArrayLike | None = None,
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
    masks : Masks, or L entries of None or (T, N, F) arrays, optional
        The entries alone each multiply the input of their layer (dropout, already scaled). Where
        no mask says what zoneout keeps, its expectation is taken.
    weights : {"full", "bfloat16", "int8"}, optional
        How matrices are held; reduced ones are for inference. See `rnncore.reference.reduced`.
    resets : (T, N) booleans, optional
        True at the first step of a segment, across whose start no state and no gradient goes.

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
    starts = np.zeros((T, N), np.bool_) if resets is None else np.array(resets, np.bool_)
    hn = np.zeros((spec.state_rows, N, P)) if h0 is None else np.array(h0, np.float64)
    cn = np.zeros((spec.state_rows, N, H)) if c0 is None else np.array(c0, np.float64)
    arrays = {name: np.array(value, np.float64) for name, value in params.items()}
    given = masks_of(spec, masks)
    factors = [None if mask is None else np.array(mask, np.float64) for mask in given.inputs]
    tape = Tape(x.shape, arrays, factors, [])
    y = x
    with np.errstate(all="ignore"):
        for layer in range(spec.num_layers):
            mask = tape.inputs[layer]
            inputs = y if mask is None else y * mask
            y = np.zeros((T, N, K * P))
            for k in range(K):
                run, at = run_of(spec, arrays, given, weights, layer, k), layer * K + k
                tape.runs.append(run)
                for step in walk(ends, starts, k):
                    rows, times, _ = step
                    h, c = run.forward(step, inputs[times, rows], hn[at, rows], cn[at, rows])
                    hn[at, rows], cn[at, rows] = h, c
                    y[times, rows, k * P : (k + 1) * P] = h
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
        One for each of ``params``; zero in rows of gates that are not in use.

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
                run = tape.runs[at]
                for step, saved in reversed(run.taken):
                    rows, times, _ = step
                    dh = dh0[at, rows] + d_out[times, rows, k * P : (k + 1) * P]
                    dx, dh0[at, rows], dc0[at, rows] = run.backward(
                        step, saved, dh, dc0[at, rows], grads
                    )
                    d_in[times, rows] += dx
            mask = tape.inputs[layer]
            d_out = d_in if mask is None else d_in * mask
    return d_out, dh0, dc0 if spec.has_cell_state else None, grads
