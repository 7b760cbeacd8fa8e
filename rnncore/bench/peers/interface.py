"""Say what a peer is: someone who is given a problem and returns work to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rnncore.bench.cases import Case
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.initializers import draw_params

if TYPE_CHECKING:
    from rnncore.bench.variants import OptionProblem

CHECKED_STEPS = 8
"""Steps of a stream that are compared before it is timed."""

Arrays = dict[str, Array]


class Refused(Exception):
    """Report why a peer does not run a problem; a row shows it."""


@dataclass(frozen=True)
class Work:
    """What a peer does for a problem, ready to be timed.

    Parameters
    ----------
    run : callable
        What is timed.
    check : callable
        Does the same once and returns what came out as NumPy arrays: ``y``, and for training
        ``dx`` and the gradients by the parameters' names.
    note : str
        What a reader of the row must know.
    tape_bytes : int, optional
        What a training step keeps between forward and backward.
    clock : callable, optional
        Returns the seconds of one run where ``run`` cannot be timed from Python.
    """

    run: Callable[[], object]
    check: Callable[[], Arrays]
    note: str = ""
    tape_bytes: int | None = None
    clock: Callable[[], float] | None = None


class Problem:
    """One case with its numbers, the same for all who run it.

    Parameters
    ----------
    case : Case
        The shapes.
    dtype : {"float32", "float64", "bfloat16", "int8"}
        How a peer may hold weights. Arrays here are float64 for float64 and float32 for the rest.
    threads : int
        How many a peer may use.
    spec : CellSpec, optional
        The recurrence where it is not the case's plain one.
    """

    resets: Array | None = None

    def __init__(self, case: Case, dtype: str, threads: int, spec: CellSpec | None = None) -> None:
        self.case, self.dtype, self.threads = case, dtype, threads
        self.number = "float64" if dtype == "float64" else "float32"
        self.spec: CellSpec = spec or case.spec(self.number)
        self.weights = draw_params(self.spec, 0, 0.0)
        draw = np.random.default_rng(0)
        self.x = draw.standard_normal((case.T, case.N, case.D)).astype(self.number)
        dy = draw.standard_normal((case.T, case.N, self.spec.features)).astype(self.number)
        self.dy = self.masked(dy)
        self.lengths = case.row_lengths

    def masked(self, y: Array) -> Array:
        """Return ``y (T, N, F)`` with zeros past each row's length."""
        if self.case.row_lengths is None:
            return y
        inside = np.arange(self.case.T)[:, None] < self.case.row_lengths
        return np.where(inside[:, :, None], y, 0)

    @cached_property
    def padded_note(self) -> str:
        """The note of a peer that runs rows of different lengths as if all had T steps.

        Raises
        ------
        Refused
            If that would be another result: a reverse direction starts at a row's end.
        """
        if not self.case.ragged:
            return ""
        if self.case.directions == 2:
            raise Refused("takes no lengths, and padded rows are another result backwards")
        return "padded rows"

    @cached_property
    def stream_x(self) -> Array:
        """Input ``(S, N, D)`` of the steps that are compared before streaming is timed."""
        return self.x[:CHECKED_STEPS]

    def layer_weights(self, layer: int, direction: int) -> list[Array]:
        """Return ``weight_ih, weight_hh, bias_ih, bias_hh`` of one layer and direction."""
        return [self.weights[name] for name in self.layer_names(layer, direction)]

    def layer_names(self, layer: int, direction: int) -> list[str]:
        """Return the names of those."""
        end = f"l{layer}" + ("_reverse" if direction else "")
        return [f"{part}_{end}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def need(self, *dtypes: str) -> None:
        """Refuse the problem unless its dtype is one of these."""
        if self.dtype not in dtypes:
            raise Refused(f"no {self.dtype}")


class Peer(Protocol):
    """Someone who runs recurrences; what it has no word for, it refuses.

    Attributes
    ----------
    name : str
        What rows call it.
    version : str
        That of the package behind it.
    """

    name: str
    version: str

    def inference(self, problem: Problem) -> Work:
        """Return a whole sequence forward, weights frozen."""
        raise Refused("no inference")

    def training(self, problem: Problem) -> Work:
        """Return forward and backward with dx and the gradients of all weights."""
        raise Refused("no training")

    def streaming(self, problem: Problem) -> Work:
        """Return one step of a batch whose state is kept between calls."""
        raise Refused("no streaming")

    def first(self, problem: Problem) -> Work:
        """Return making the session or engine from its weights, and one call of it."""
        raise Refused("no session to make")

    def option(self, problem: OptionProblem) -> Work:
        """Return forward and backward of a cell with an option, masks drawn anew every time."""
        raise Refused("no cells with options")


def sequence_check(run: Callable[[], Any], problem: Problem) -> Callable[[], Arrays]:
    """Return a check for a `run` that returns y, which may be padded."""
    return lambda: {"y": problem.masked(np.asarray(run()))}
