"""The engine's gradients against its own central differences, option by option and together."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Problem
from engine import train_at_the_border
from finite_differences import (
    assert_gradients_match_along_directions,
    assert_gradients_match_differences,
)
from variants import ALONE, PAIRS, case_of, draw_ragged, random_case

from rnncore import functional

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def run(case: Case, p: Problem) -> Outputs:
    """Run the engine forward alone."""
    state = p.h0 if p.c0 is None else (p.h0, p.c0)
    y, end, _ = functional.forward(
        case.spec, p.params, p.x, state, p.lengths, p.resets, masks=p.masks, keep=False
    )
    return (y, *end) if isinstance(end, tuple) else (y, end, None)


def check_along_directions(case: Case, problem: Problem, seed: int = 0) -> None:
    actual = train_at_the_border(case, problem, threads=2, recompute=seed % 2 == 1)
    assert_gradients_match_along_directions(problem, lambda p: run(case, p), actual, seed)


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_gradients_of_every_option_equal_differences_of_every_entry(cell: str, option: str) -> None:
    case = case_of(cell, option)
    problem = draw_ragged(case)
    actual = train_at_the_border(case, problem)
    assert_gradients_match_differences(problem, lambda p: run(case, p), actual)


@pytest.mark.parametrize(("cell", "one", "other"), PAIRS)
def test_gradients_of_every_pair_of_options_equal_differences(cell, one, other) -> None:
    case = case_of(cell, one, other)
    check_along_directions(case, draw_ragged(case))


@pytest.mark.parametrize("seed", range(100))
def test_gradients_of_random_combinations_equal_differences(seed: int) -> None:
    case = random_case(seed, H=9, D=5)
    problem = draw_ragged(case)
    if seed % 4 == 0:
        problem.masks = None  # zoneout by its expectation, which has a gradient too
    check_along_directions(case, problem, seed)
