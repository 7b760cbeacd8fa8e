"""The shapes that speed is judged on, and their names on the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rnncore.cells import CellSpec
from rnncore.checks import Array

CELLS = ("RNN", "LSTM", "GRU")
LENGTHS = ("equal", "half", "quarter", "onelong")
"""How long rows are: all T, uniform in T/2..T, in T/4..T, or one of T and the rest of T/16."""


@dataclass(frozen=True)
class Case:
    """One layer or stack over one batch of sequences.

    Parameters
    ----------
    cell : {"RNN", "LSTM", "GRU"}
        The layer.
    T, N, D, H : int
        Steps, rows, inputs, units.
    layers, directions : int
        Depth, and 1 or 2.
    lengths : {"equal", "half", "quarter", "onelong"}
        How ragged the rows are; see ``LENGTHS``.
    """

    cell: str
    T: int
    N: int
    D: int
    H: int
    layers: int = 1
    directions: int = 1
    lengths: str = "equal"

    def __str__(self) -> str:
        text = f"{self.cell} T={self.T} N={self.N} D={self.D} H={self.H}"
        if self.layers > 1:
            text += f" x{self.layers}"
        if self.directions == 2:
            text += " bidirectional"
        return text + (f" lengths={self.lengths}" if self.ragged else "")

    @property
    def ragged(self) -> bool:
        """Whether rows differ in length."""
        return self.lengths != "equal"

    @property
    def equal(self) -> Case:
        """The same with rows of equal length."""
        return replace(self, lengths="equal")

    @cached_property
    def row_lengths(self) -> Array | None:
        """Length of each row, the same on every run; None where all are T."""
        if not self.ragged:
            return None
        if self.lengths == "onelong":
            lengths = np.full(self.N, max(1, self.T // 16), np.int64)
        else:
            least = max(1, self.T // {"half": 2, "quarter": 4}[self.lengths])
            lengths = np.random.default_rng(0).integers(least, self.T, self.N, endpoint=True)
        lengths[self.N // 2] = self.T
        return lengths

    @property
    def tokens(self) -> int:
        """Steps of all rows together."""
        return self.T * self.N if self.row_lengths is None else int(self.row_lengths.sum())

    def spec(self, dtype: str) -> CellSpec:
        """Return the recurrence with its parameters' shapes."""
        return CellSpec(
            self.cell.lower(), self.D, self.H, self.layers, self.directions, dtype=dtype
        )

    @property
    def weights(self) -> int:
        """Number of entries of the weight matrices, biases left out."""
        shapes = self.spec("float32").param_shapes()
        return sum(shape[0] * shape[1] for shape in shapes.values() if len(shape) == 2)

    @property
    def recurrent_weights(self) -> int:
        """Those of them that one layer needs in every step: of ``weight_hh``, in all directions."""
        return self.directions * self.spec("float32").num_gates * self.H * self.H

    @property
    def operations(self) -> int:
        """Operations of the matrix products in one forward pass, two a multiply-add."""
        return 2 * self.tokens * self.weights


# What people run: from one step of a small layer to speech and language models.
LISTED = (
    Case("LSTM", 1, 1, 64, 128),
    Case("GRU", 200, 1, 16, 32),
    Case("LSTM", 100, 1, 256, 256),
    Case("LSTM", 50, 1, 512, 1024),
    Case("LSTM", 128, 64, 9, 64, layers=2),
    Case("LSTM", 50, 50, 128, 512, layers=2),
    Case("LSTM", 35, 20, 650, 650, layers=2),
    Case("LSTM", 300, 8, 80, 320, layers=2, directions=2),
    Case("GRU", 50, 32, 512, 512),
    Case("RNN", 50, 16, 1760, 1760),
    Case("LSTM", 25, 32, 1024, 1024),
    Case("GRU", 25, 16, 1536, 1536),
    Case("GRU", 2000, 4, 16, 128),
    Case("RNN", 64, 128, 128, 256),
)

# The recurrent part alone: one input makes the projection a small part of the work, and sequences
# are long enough for what a call costs once (about 20 us with two threads) not to count.
RECURRENT = (
    Case("LSTM", 50, 50, 1, 512),
    Case("LSTM", 50, 20, 1, 650),
    Case("LSTM", 100, 64, 1, 64),
    Case("LSTM", 400, 1, 1, 256),
    Case("LSTM", 100, 1, 1, 1024),
)

RAGGED = Case("LSTM", 100, 32, 128, 256)

# Where a GPU's regimes and cuDNN's algorithms change: sequences are long enough for what a step
# costs to show, the last two as short as DeepBench's. cuDNN keeps weights on the chip for one layer
# in one direction with sizes of whole 128s in float16, or for small H, and never for rows of
# different lengths.
GPU = (
    Case("LSTM", 512, 16, 512, 512),
    Case("LSTM", 1024, 16, 768, 768),
    Case("LSTM", 512, 64, 1024, 1024),
    Case("GRU", 512, 32, 256, 256),
    Case("GRU", 512, 32, 1024, 1024),
    Case("LSTM", 512, 16, 512, 512, directions=2),
    Case("LSTM", 512, 16, 512, 512, layers=4),
    Case("LSTM", 512, 12, 200, 200),
    Case("LSTM", 512, 20, 600, 600),
    Case("LSTM", 512, 48, 160, 160),
    Case("LSTM", 512, 16, 32, 32),
    Case("LSTM", 512, 16, 128, 128),
    Case("GRU", 512, 8, 64, 64),
    Case("LSTM", 500, 32, 512, 512, lengths="quarter"),
    Case("GRU", 500, 32, 512, 512, lengths="onelong"),
    Case("LSTM", 512, 16, 2048, 2048),
    Case("LSTM", 64, 256, 1024, 1024),
    Case("GRU", 100, 32, 2816, 2816),
    Case("LSTM", 25, 16, 512, 512),
    Case("LSTM", 150, 16, 256, 256),
)

SETS: dict[str, tuple[Case, ...]] = {
    "listed": LISTED,
    "recurrent": RECURRENT,
    "steps": tuple(Case("LSTM", T, 1, 64, 128) for T in (100, 1_000, 10_000, 100_000)),
    "batch": tuple(Case("LSTM", 50, N, 128, 256) for N in (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    "hidden": tuple(Case("LSTM", 25, 16, H, H) for H in (16, 32, 64, 128, 256, 512, 1024, 2048)),
    "ragged": (
        *(replace(RAGGED, lengths=lengths) for lengths in LENGTHS),
        *(replace(RAGGED, directions=2, lengths=lengths) for lengths in ("half", "onelong")),
    ),
    "gpu": GPU,
    "threads": tuple(case for case in LISTED if case.N >= 16 and case.H >= 256),
}
"""Named sets of shapes; ``threads`` is run with one thread and with all, and without peers."""


@dataclass(frozen=True)
class Shapes:
    """Some cases, and the text they were asked for by."""

    text: str
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The set's name, or "custom"."""
        return self.text if self.text in SETS else "custom"


def parse(text: str) -> Shapes:
    """Return the cases of a set's name or of one specification.

    Parameters
    ----------
    text : str
        A key of ``SETS``, or ``CELL:T,N,D,H[,layers[,directions[,lengths]]]``.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> print(parse("LSTM:50,16,128,512,2,1,half").cases[0])
    LSTM T=50 N=16 D=128 H=512 x2 lengths=half
    """
    if text in SETS:
        return Shapes(text, SETS[text])
    cell, _, rest = text.partition(":")
    sizes = rest.split(",")
    lengths = sizes.pop() if sizes[-1] in LENGTHS else "equal"
    if cell not in CELLS or not 4 <= len(sizes) <= 6 or not all(map(_positive, sizes)):
        raise ValueError(
            f"shapes: expected one of {', '.join(SETS)}, or CELL:T,N,D,H[,layers[,directions"
            f"[,lengths]]] with CELL one of {', '.join(CELLS)}, got {text!r}"
        )
    steps, rows, inputs, units, layers, directions = [*map(int, sizes), 1, 1][:6]
    if directions > 2:
        raise ValueError(f"shapes: expected 1 or 2 directions, got {directions} in {text!r}")
    case = Case(cell, steps, rows, inputs, units, layers, directions, lengths)
    return Shapes(text, (case,))


def _positive(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0
