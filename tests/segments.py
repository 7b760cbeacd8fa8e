"""A batch with resets cut into its segments: the same results by the definition of a reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import pairwise

import numpy as np
from cases import Case, Problem, Results

from rnncore.masks import Masks

Run = Callable[[Case, Problem], Results]
OF_STATES = ("h0", "c0", "dhn", "dcn")


def segments(problem: Problem, row: int) -> Iterator[tuple[int, int]]:
    """Yield where each segment of a row starts and ends; a row of length 0 is one of no steps."""
    T = len(problem.x) if problem.lengths is None else int(problem.lengths[row])
    inner = [t for t in range(1, T) if problem.resets[t, row]]
    yield from pairwise([0, *inner, T])


def cut(case: Case, problem: Problem, row: int, start: int, end: int) -> Problem:
    """Return one segment of one row as a problem of its own.

    The forward direction brings its state into the first segment, unless that has a reset of its
    own, and its gradient into the last; the reverse direction the other way round.
    """
    one, time = slice(row, row + 1), slice(start, end)
    first, last = _ends(problem, row, start, end)
    part = problem.but(
        x=problem.x[time, one], dy=problem.dy[time, one], lengths=None, resets=None,
        masks=_cut_masks(problem.masks, time, one),
    )  # fmt: skip
    discarded = end > 0 and bool(problem.resets[0, row])
    for name in OF_STATES:
        value = getattr(problem, name)
        if value is None:
            continue
        value = value[:, one].copy()
        enters_forward = first and not discarded if name in ("h0", "c0") else last
        enters_reverse = last if name in ("h0", "c0") else first
        directions = value.reshape(case.layers, -1, *value.shape[1:])
        directions[:, 0] *= enters_forward
        directions[:, 1:] *= enters_reverse
        setattr(part, name, value)
    return part


def _ends(problem: Problem, row: int, start: int, end: int) -> tuple[bool, bool]:
    """Tell whether a segment is its row's first, and whether it is the last."""
    T = len(problem.x) if problem.lengths is None else int(problem.lengths[row])
    return start == 0, end == T


def _cut_masks(masks: Masks | None, time: slice, one: slice) -> Masks | None:
    if masks is None:
        return None
    cut_parts = {
        part: [
            None if mask is None else mask[one] if part == "recurrent" else mask[time, one]
            for mask in getattr(masks, part)
        ]
        for part in Masks._fields
    }
    return Masks(**cut_parts)


def run_segments(case: Case, problem: Problem, run: Run) -> Results:
    """Run every segment of every row by itself and put the results together."""
    whole: Results = {}
    for row in range(case.N):
        for start, end in segments(problem, row):
            alone = case.but(T=end - start, N=1, ragged=False, resets=False)
            part = run(alone, cut(case, problem, row, start, end))
            if not whole:
                whole = _zeros(case, problem, part)
            first, last = _ends(problem, row, start, end)
            for name, value in part.items():
                if name in ("y", "dx"):
                    whole[name][start:end, row] = value[:, 0]
                elif name.startswith("d "):
                    whole[name] += value
                else:
                    _put_state(case, whole[name], name, row, value, (first, last))
            if end > 0 and problem.resets[0, row] and first:
                for name in ("dh0", "dc0"):
                    if name in whole:
                        whole[name].reshape(case.layers, -1, *whole[name].shape[1:])[:, 0, row] = 0
    return whole


def _put_state(
    case: Case, whole: np.ndarray, name: str, row: int, value: np.ndarray, ends: tuple[bool, bool]
) -> None:
    """Write what a segment says of a row's state: the forward direction ends in the last one."""
    first, last = ends
    of_start = name in ("dh0", "dc0")
    target = whole.reshape(case.layers, -1, *whole.shape[1:])
    source = value.reshape(case.layers, -1, *value.shape[1:])
    if first if of_start else last:
        target[:, 0, row] = source[:, 0, 0]
    if last if of_start else first:
        target[:, 1:, row] = source[:, 1:, 0]


def _zeros(case: Case, problem: Problem, part: Results) -> Results:
    shapes = {name: value.shape for name, value in part.items()}
    for name in shapes:
        if name in ("y", "dx"):
            shapes[name] = (case.T, case.N, shapes[name][2])
        elif not name.startswith("d "):
            shapes[name] = (shapes[name][0], case.N, shapes[name][2])
    return {name: np.zeros(shape, part[name].dtype) for name, shape in shapes.items()}


assert {field.name for field in fields(Problem)} >= {*OF_STATES, "masks", "resets"}
