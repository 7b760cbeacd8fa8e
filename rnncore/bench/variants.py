"""The options of the cells, each alone, and what it may cost beside the plain cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import rnncore as rc
from rnncore.bench.cases import CELLS, Case
from rnncore.bench.peers.interface import Problem
from rnncore.layers.recurrent import Recurrent
from rnncore.masks import Masks, draw_masks

TITLE = "options in training, beside the plain layer and the cell written out in PyTorch"

FACTOR, SLOW_FACTOR, RECOMPUTE_FACTOR = 1.15, 1.6, 1.4
"""Times the plain layer's time that an option may take; the second where it changes the products
or has exponentials of its own, the third where gates are worked out twice."""

SEED = 0
SEGMENT = 20
"""Steps between two resets of a row, on average."""


@dataclass(frozen=True)
class Option:
    """One option of a layer or of its call.

    Parameters
    ----------
    name : str
        What tables call it.
    arguments : mapping
        What the layer is made with.
    factor : float
        Times the plain layer's time that it may take.
    call : {"", "resets", "recompute"}
        What the call is made with.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    factor: float = FACTOR
    call: str = ""

    @property
    def recomputes(self) -> bool:
        """Whether gates are worked out again in backward."""
        return self.call == "recompute"


class Shape(NamedTuple):
    """Sizes, whether peers take part, and whether all options do or those that save memory."""

    T: int
    N: int
    D: int
    H: int
    peers: bool
    all_options: bool = True


# A sequence has to be long for what `recompute` saves to show beside the weights and their sums.
SHAPES = (
    Shape(100, 8, 128, 128, peers=True),
    Shape(100, 32, 256, 256, peers=True),
    Shape(50, 32, 512, 512, peers=False),
    Shape(1000, 32, 256, 256, peers=False, all_options=False),
)

RELU = {"RNN": ("Relu",), "LSTM": ("Sigmoid", "Relu", "Tanh"), "GRU": ("Sigmoid", "Relu")}
OTHERS = {
    "RNN": ("Softsign",),
    "LSTM": ("HardSigmoid", "Softsign", "Elu"),
    "GRU": ("HardSigmoid", "Softsign"),
}
ZONEOUT = {"RNN": 0.1, "LSTM": (0.05, 0.5), "GRU": 0.1}


def options(cell: str, units: int) -> tuple[Option, ...]:
    """Return the options of a cell of H units."""
    own = {
        "RNN": (),
        "LSTM": (
            Option("peephole", {"peephole": True}),
            Option("coupled", {"coupled": True}),
            Option("projection to H/2", {"proj_size": units // 2}),
        ),
        "GRU": (Option("reset before", {"reset_after": False}, SLOW_FACTOR),),
    }
    return (
        *own[cell],
        Option("layer norm", {"layer_norm": True}, SLOW_FACTOR),
        Option("zoneout", {"zoneout": ZONEOUT[cell]}),
        Option("recurrent dropout", {"recurrent_dropout": 0.25}),
        Option("variational dropout", {"dropout": 0.25, "variational": True}),
        Option("Relu", {"activations": RELU[cell]}),
        Option(" ".join(OTHERS[cell]), {"activations": OTHERS[cell]}, SLOW_FACTOR),
        Option("clip", {"clip": 1.0}),
        Option("resets", call="resets"),
        Option("recompute", factor=RECOMPUTE_FACTOR, call="recompute"),
    )


class Variant(NamedTuple):
    """A row to come: an option at a shape, and whether peers take part."""

    option: Option
    case: Case
    peers: bool

    def __str__(self) -> str:
        return f"{self.case}, {self.option.name}"


def variants() -> Iterator[Variant]:
    """Yield every option of every cell at every shape that it is measured at."""
    for T, N, D, H, peers, all_options in SHAPES:
        for cell in CELLS:
            for option in options(cell, H):
                if all_options or option.recomputes:
                    yield Variant(option, Case(cell, T, N, D, H), peers)


class OptionProblem(Problem):
    """A case with one option, and its numbers.

    Parameters
    ----------
    option : Option
        Which.
    case : Case
        The shapes: one layer in one direction, rows of equal length.
    dtype : {"float32", "float64"}
        Of every array.
    threads : int
        How many a peer may use.
    """

    def __init__(self, option: Option, case: Case, dtype: str, threads: int) -> None:
        self.option = option
        super().__init__(case, dtype, threads, made(case, dtype, option.arguments).spec)
        if option.call == "resets":
            drawn = np.random.default_rng(SEED).random((case.T, case.N))
            self.resets = drawn < 1 / SEGMENT

    def layer(self) -> Recurrent:
        """Return the layer with the problem's weights, whose first call draws `masks`."""
        return made(self.case, self.number, self.option.arguments)

    @property
    def rates(self) -> dict[str, Any]:
        """The dropout that the layer was made with."""
        names = ("dropout", "variational", "recurrent_dropout")
        return {name: value for name, value in self.option.arguments.items() if name in names}

    @property
    def masks(self) -> Masks | None:
        """What is dropped and kept where results are compared."""
        return draw_masks(self.spec, self.case.T, self.case.N, seed=SEED, **self.rates)

    @property
    def operations(self) -> int:
        """Operations of the products of a training step; backward's are two of forward's."""
        shapes = self.spec.param_shapes().values()
        weights = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
        return 3 * 2 * self.case.tokens * weights


def made(case: Case, dtype: str, arguments: Mapping[str, Any]) -> Recurrent:
    """Return a layer whose weights and masks follow from `SEED`."""
    kind: type[Any] = getattr(rc, case.cell)
    layer: Recurrent = kind(case.D, case.H, dtype=dtype, seed=SEED, **arguments)
    return layer
