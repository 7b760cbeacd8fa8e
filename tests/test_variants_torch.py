"""Every option of the cells against PyTorch modules written out by hand, through autograd."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Problem, Results, assert_results_close, collect, draw
from engine import parts, state_of
from variants import ALONE, PAIRS, case_of, random_case

from rnncore import functional
from rnncore.cells import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("backend")

SIZES = {"T": 5, "N": 4, "D": 6, "H": 7}


def train(case: Case, p: Problem) -> Results:
    """Run the functional core, to which masks can be given, on the backend in use."""
    state = state_of(p.h0, p.c0)
    y, end, tape = functional.forward(case.spec, p.params, p.x, state, masks=p.masks)
    dx, start, grads = functional.backward(case.spec, p.params, tape, p.dy, state_of(p.dhn, p.dcn))
    return collect(y, *parts(end), dx, *parts(start), grads)


def check(case: Case, problem: Problem) -> None:
    from torch_variants import run_variant

    assert_results_close(train(case, problem), run_variant(case, problem), "float64")


def whole(case: Case) -> Case:
    """Return a case without what the modules by hand lack."""
    return case.but(ragged=False, resets=False)


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_every_option_equals_the_module_by_hand(cell: str, option: str) -> None:
    case = whole(case_of(cell, option, **SIZES))
    check(case, draw(case))


@pytest.mark.parametrize(("cell", "one", "other"), PAIRS)
def test_every_pair_of_options_equals_the_module_by_hand(cell, one, other) -> None:
    case = whole(case_of(cell, one, other, **SIZES))
    check(case, draw(case))


@pytest.mark.parametrize("seed", range(40))
def test_random_combinations_equal_the_module_by_hand(seed: int) -> None:
    case = whole(random_case(seed, **SIZES))
    check(case, draw(case))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_zoneout_without_masks_is_its_expectation_with_its_gradient(cell: str) -> None:
    case = whole(case_of(cell, "zoneout", "layer norm", **SIZES))
    problem = draw(case)
    problem.masks = None
    check(case, problem)


@pytest.mark.parametrize("clip", [None, 0.8])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_activation_equals_torchs_in_every_place(cell: str, name: str, clip) -> None:
    gates = (name, *(*ACTIVATIONS[name], 0.0, 0.0)[:2])
    if name in ("Elu", "Relu", "LeakyRelu", "ThresholdedRelu", "Softplus", "Affine"):
        gates = ("HardSigmoid", 0.2, 0.5)  # unbounded gates would make states grow without end
    own = (name, *(*ACTIVATIONS[name], 0.0, 0.0)[:2])
    if name == "ThresholdedRelu":
        own = (name, 0.3, 0.0)
    chosen = {"rnn": (own,), "lstm": (gates, own, own), "gru": (gates, own)}
    case = whole(case_of(cell, "plain", **SIZES)).but(activations=chosen[cell], clip=clip)
    check(case, draw(case))


@pytest.mark.parametrize("option", ["peephole", "layer norm", "coupled"])
def test_a_missing_term_would_show(option: str) -> None:
    case = whole(case_of("lstm", option, **SIZES))
    problem, plain = draw(case), case.but(peephole=False, layer_norm=False, coupled=False)
    shared = {name: problem.params[name] for name in plain.spec.param_shapes()}
    with_it = train(case, problem)["y"]
    without = train(plain, problem.but(params=shared))["y"]
    assert np.abs(with_it - without).max() > 1e-3
