"""Random configurations against PyTorch in float64: outputs, states and every gradient."""

from __future__ import annotations

import numpy as np
import pytest
from cases import AROUND_LANES, CELLS, Case, assert_results_close, draw
from engine import train

from rnncore import _rnncore

CONFIGURATIONS = 224


def draw_case(seed: int) -> Case:
    """Draw one configuration; widths walk through every residue of 32 and then go around lanes."""
    rng = np.random.default_rng([2013, seed])
    cell, kind = CELLS[seed % 4]
    hidden = 1 + seed // 4 if seed // 4 < 34 else int(rng.choice([35, 47, 48, 49, 63, 64, 65, 70]))
    proj_size = (
        int(rng.integers(1, hidden)) if cell == "lstm" and hidden > 1 and seed % 3 == 0 else 0
    )
    lengths = rng.integers(2) == 1
    return Case(
        cell=cell,
        nonlinearity=kind,
        T=int(rng.choice([1, 2, 3, 5, 8, 13])),
        N=int(rng.choice([1, 2, 3, 4, 5, 7, 9, 13])),
        D=int(rng.choice(AROUND_LANES)),
        H=hidden,
        layers=int(rng.integers(1, 4)),
        bidirectional=bool(rng.integers(2)),
        bias=bool(rng.integers(4)),
        proj_size=proj_size,
        batch_first=bool(rng.integers(2)),
        ragged=bool(lengths),
        shortest=1,  # pack_padded_sequence takes no empty sequence; test_lengths has them
        states=bool(rng.integers(4)),
        seed=seed,
    )


CASES = [draw_case(seed) for seed in range(CONFIGURATIONS)]


def test_the_configurations_cover_what_they_should() -> None:
    assert len(set(CASES)) >= 200
    assert {case.H for case in CASES} >= {*range(1, 35), 63, 64, 65}
    assert {case.D for case in CASES} == set(AROUND_LANES)
    assert {case.layers for case in CASES} == {1, 2, 3}
    for name in ("bidirectional", "batch_first", "bias", "ragged", "states"):
        both = [sum(getattr(case, name) is value for case in CASES) for value in (True, False)]
        assert min(both) >= 20, name
    assert sum(case.proj_size > 0 for case in CASES) >= 15
    assert {case.cell for case in CASES if case.ragged and case.bidirectional} >= {"lstm", "gru"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_and_gradients_equal_torchs(case: Case) -> None:
    from torch_oracle import run_torch

    problem = draw(case)
    assert_results_close(train(case, problem), run_torch(case, problem), "float32")
    double = case.but(dtype="float64")
    problem = draw(double)
    assert_results_close(train(double, problem), run_torch(double, problem), "float64")


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_outputs_and_gradients_equal_torchs_on_every_instruction_set(case: Case, isa: str) -> None:
    from torch_oracle import run_torch

    assert _rnncore.isa() == isa
    problem = draw(case)
    assert_results_close(train(case, problem), run_torch(case, problem), "float32")
