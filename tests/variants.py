"""The options of the cells, one by one and together, as cases for the tests."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from cases import Case, Problem, draw

from rnncore.cells import PLAIN_ACTIVATIONS

SIZES = {
    "T": 4, "N": 3, "D": 3, "H": 3, "layers": 2, "bidirectional": True, "dtype": "float64",
}  # fmt: skip

COMMON: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "layer norm": {"layer_norm": True},
    "zoneout": {"zoneout": (0.4, 0.0)},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "variational": {"dropout": 0.3, "variational": True},
    "clip": {"clip": 0.7},
}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "rnn": COMMON | {"activations": {"activations": (("Softsign", 0.0, 0.0),)}},
    "lstm": COMMON
    | {
        "zoneout": {"zoneout": (0.4, 0.3)},
        "activations": {
            "activations": (("Softsign", 0.0, 0.0), ("Elu", 1.0, 0.0), ("ScaledTanh", 1.2, 0.7))
        },
        "peephole": {"peephole": True},
        "coupled": {"coupled": True},
        "projected": {"proj_size": 2},
    },
    "gru": COMMON
    | {
        "activations": {"activations": (("Affine", 0.3, 0.4), ("Softplus", 0.0, 0.0))},
        "reset before": {"reset_after": False},
    },
}
# Those with a slope everywhere: what random data may be differentiated through.
SMOOTH_GATES = (
    ("Sigmoid", 0.0, 0.0), ("Softsign", 0.0, 0.0), ("ScaledTanh", 0.9, 0.8), ("Affine", 0.3, 0.4),
)  # fmt: skip
SMOOTH = (
    ("Tanh", 0.0, 0.0), ("Softsign", 0.0, 0.0), ("Elu", 1.0, 0.0), ("Softplus", 0.0, 0.0),
    ("ScaledTanh", 1.1, 0.7), ("Affine", 0.5, 0.1),
)  # fmt: skip

ALONE = [(cell, name) for cell, options in OPTIONS.items() for name in options]
PAIRS = [
    (cell, one, other)
    for cell, options in OPTIONS.items()
    for one, other in itertools.combinations(list(options)[1:], 2)
]


def case_of(cell: str, *names: str, **sizes: Any) -> Case:
    """Return the case of a cell with some of its options, ragged and with resets."""
    options = {key: value for name in names for key, value in OPTIONS[cell][name].items()}
    return Case(cell=cell, ragged=True, resets=True, **{**SIZES, **options, **sizes})


def random_case(seed: int, **sizes: Any) -> Case:
    """Draw a cell and which of its options it has."""
    rng = np.random.default_rng([2024, seed])
    cell = ("rnn", "lstm", "gru")[seed % 3]
    chosen = [name for name in OPTIONS[cell] if rng.integers(2)]
    case = case_of(cell, *chosen, **sizes).but(seed=seed)
    if case.activations is None:
        return case
    gates = SMOOTH_GATES[rng.integers(len(SMOOTH_GATES))]
    others = [SMOOTH[i] for i in rng.integers(len(SMOOTH), size=len(case.activations) - 1)]
    activations = (gates, *others) if others else (SMOOTH[rng.integers(len(SMOOTH))],)
    if tuple(name for name, _, _ in activations) == PLAIN_ACTIVATIONS[cell]:
        activations = None  # what a layer makes of the cell's own
    return case.but(activations=activations)


def draw_ragged(case: Case) -> Problem:
    """Return a case's arrays with lengths that differ, a full one among them."""
    problem = draw(case)
    problem.lengths = np.array([case.T - 2, case.T, case.T - 1])
    return problem
