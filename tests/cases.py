"""Problems for the tests: a configuration, its arrays, and what the reference makes of them.

Data are random and asymmetric, h0 differs from c0 and lengths differ. Weights are scaled so that
what enters a gate lies mostly between 0 and 3 in size: saturated gates would hide every error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tolerances import CANCELLED, LARGEST_ENTRY, UNIT_ROUNDOFF

from rnncore import reference
from rnncore.cells import CellSpec
from rnncore.masks import Masks, draw_masks

CELLS = (("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh"))
LANES = (8, 16)  # float32 numbers in a vector of AVX2 and of AVX-512
OPTIONS = (
    "resets", "peephole", "coupled", "layer_norm", "zoneout", "activations", "clip", "dropout",
    "variational", "recurrent_dropout",
)  # fmt: skip
AROUND_LANES = (1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33)


@dataclass(frozen=True)
class Case:
    """One configuration; everything else follows from it and its seed."""

    cell: str = "lstm"
    nonlinearity: str = "tanh"
    T: int = 5
    N: int = 3
    D: int = 6
    H: int = 7
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    proj_size: int = 0
    batch_first: bool = False
    ragged: bool = False
    states: bool = True
    shortest: int = 0
    dtype: str = "float32"
    seed: int = 0
    resets: bool = False
    peephole: bool = False
    coupled: bool = False
    reset_after: bool = True
    layer_norm: bool = False
    zoneout: tuple[float, float] = (0.0, 0.0)
    activations: tuple[tuple[str, float, float], ...] | None = None
    clip: float | None = None
    dropout: float = 0.0
    variational: bool = False
    recurrent_dropout: float = 0.0

    @property
    def spec(self) -> CellSpec:
        return CellSpec(
            cell=self.cell,
            input_size=self.D,
            hidden_size=self.H,
            num_layers=self.layers,
            num_directions=2 if self.bidirectional else 1,
            proj_size=self.proj_size,
            bias=self.bias,
            nonlinearity=self.nonlinearity,
            dtype=self.dtype,
            peephole=self.peephole,
            coupled=self.coupled,
            reset_after=self.reset_after,
            layer_norm=self.layer_norm,
            zoneout=self.zoneout,
            activations=self.activations,
            clip=self.clip,
        )

    def __str__(self) -> str:
        cell = self.nonlinearity if self.cell == "rnn" else self.cell
        sizes = f"T{self.T}-N{self.N}-D{self.D}-H{self.H}-L{self.layers}"
        flags = ["bidirectional", "batch_first", "ragged", "states", *OPTIONS]
        flags = [name for name in flags if getattr(self, name) and getattr(self, name) != (0, 0)]
        flags += ["nobias"] * (not self.bias) + ["reset_before"] * (not self.reset_after)
        return "-".join([cell, sizes, *([f"P{self.proj_size}"] * bool(self.proj_size)), *flags])

    def but(self, **changes: object) -> Case:
        return replace(self, **changes)


@dataclass
class Problem:
    """Time-major arrays of one case, all of its dtype."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    dy: np.ndarray
    dhn: np.ndarray
    h0: np.ndarray | None = None
    c0: np.ndarray | None = None
    dcn: np.ndarray | None = None
    lengths: np.ndarray | None = None
    resets: np.ndarray | None = None
    masks: Masks | None = None

    def but(self, **changes: object) -> Problem:
        return replace(self, **changes)


Results = dict[str, np.ndarray]
"""Arrays by name: y, hn, cn, dx, dh0, dc0, and the parameters' gradients under ``d <name>``."""


def draw_params(spec: CellSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw weights for gate inputs of about unit size, and a contractive recurrence."""
    params = {}
    living = spec.cell == "rnn" and spec.nonlinearity == "relu"
    for name, shape in spec.param_shapes().items():
        if name.startswith(("bias", "peephole")):
            spread = 0.5
        elif name.startswith("norm"):
            spread = 0.3
        elif name.startswith("weight_ih"):
            spread = np.sqrt(3.0 / shape[1])
        else:
            spread = 1.5 / np.sqrt(shape[1])
        low = 0.0 if living and name.startswith("bias") else -spread
        centre = 1.0 if name.startswith("norm") and "bias" not in name else 0.0
        params[name] = (centre + rng.uniform(low, spread, shape)).astype(spec.dtype)
    return params


def draw(case: Case) -> Problem:
    """Return the arrays of a case."""
    spec, rng = case.spec, np.random.default_rng([case.seed, case.T, case.N, case.D, case.H])

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(case.dtype)

    problem = Problem(
        params=draw_params(spec, rng),
        x=normal(case.T, case.N, case.D),
        dy=normal(case.T, case.N, spec.features),
        dhn=normal(spec.state_rows, case.N, spec.output_size),
    )
    if spec.has_cell_state:
        problem.dcn = normal(spec.state_rows, case.N, case.H)
    if case.states:
        problem.h0 = np.tanh(normal(spec.state_rows, case.N, spec.output_size))
        if spec.has_cell_state:
            problem.c0 = 1.5 * normal(spec.state_rows, case.N, case.H)
    if case.ragged:
        problem.lengths = rng.integers(case.shortest, case.T + 1, case.N)
    if case.resets:
        problem.resets = rng.random((case.T, case.N)) < 0.3
    problem.masks = masks_of_call(case, 0)
    return problem


def input_masks(case: Case, entries: Sequence[np.ndarray | None]) -> Masks:
    """Return masks that act on the layers' inputs alone."""
    none = [None] * case.spec.state_rows
    return Masks(entries, none, none, none)


def masks_of_call(case: Case, call: int) -> Masks | None:
    """Return the masks that the layer of a case draws for one of its training calls."""
    return draw_masks(
        case.spec,
        case.T,
        case.N,
        dropout=case.dropout,
        variational=case.variational,
        recurrent_dropout=case.recurrent_dropout,
        seed=case.seed,
        call=call,
    )


def forward_reference(case: Case, problem: Problem) -> tuple:
    """Run the float64 reference forward on the problem's own values."""
    p = problem
    return reference.forward(
        case.spec, p.params, p.x, p.h0, p.c0, p.lengths, p.masks, resets=p.resets
    )


def run_reference(case: Case, problem: Problem) -> Results:
    """Run the float64 reference forward and backward on the problem's own values."""
    p = problem
    y, hn, cn, tape = forward_reference(case, p)
    dx, dh0, dc0, grads = reference.backward(case.spec, p.params, tape, p.dy, p.dhn, p.dcn)
    return collect(y, hn, cn, dx, dh0, dc0, grads)


def collect(
    y: np.ndarray,
    hn: np.ndarray,
    cn: np.ndarray | None,
    dx: np.ndarray,
    dh0: np.ndarray,
    dc0: np.ndarray | None,
    grads: dict[str, np.ndarray],
) -> Results:
    """Put everything a run returned under its name."""
    results = {"y": y, "hn": hn, "dx": dx, "dh0": dh0}
    if cn is not None and dc0 is not None:
        results |= {"cn": cn, "dc0": dc0}
    return results | {f"d {name}": value for name, value in grads.items()}


def what(name: str) -> str:
    """Tell results of the forward pass from gradients."""
    return "forward" if name in ("y", "hn", "cn") else "gradient"


def related(name: str) -> tuple[str, ...]:
    """Return the names of the results that hold the same quantity."""
    return ("y", "hn") if name in ("y", "hn") else (name,)


def largest_given(problem: Problem) -> float:
    """Return the largest entry of the gradients that a problem's backward call is given."""
    given = (problem.dy, problem.dhn, problem.dcn)
    return max(float(np.abs(d).max(initial=0.0)) for d in given if d is not None)


def assert_results_close(
    actual: Results, expected: Results, dtype: str, problem: Problem | None = None
) -> None:
    """Compare every array with its tolerance, relative to the largest entry expected.

    y and hn hold the same quantity, so the largest of both counts: hn alone may be a single number
    that has lost most of its digits to cancellation. For gradients that may have lost theirs, tell
    of the `problem`: they may be off by some roundings of what it gives to backward.
    """
    assert actual.keys() == expected.keys()
    cancelled = CANCELLED * UNIT_ROUNDOFF[dtype] * largest_given(problem) if problem else 0.0
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        assert actual[name].dtype == dtype, name
        assert np.isfinite(value).all(), name
        error = np.abs(actual[name] - value).max(initial=0.0)
        scale = max(np.abs(expected[n]).max(initial=1e-30) for n in related(name))
        allowed = LARGEST_ENTRY[dtype, what(name)] * scale
        allowed += cancelled if what(name) == "gradient" else 0.0
        assert error <= allowed, f"{name}: off by {error:.3g}, allowed {allowed:.3g}"


def assert_same_bits(actual: Results, expected: Results) -> None:
    """Compare every array byte by byte."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_array_same_bits(actual[name], value, name)


def assert_array_same_bits(actual: np.ndarray, expected: np.ndarray, name: str = "") -> None:
    """Compare two arrays byte by byte, so that zeros have signs and NaN equals itself."""
    assert actual.shape == expected.shape, name
    assert actual.dtype == expected.dtype, name
    unsigned = f"u{actual.dtype.itemsize}"
    left = np.ascontiguousarray(actual).view(unsigned)
    right = np.ascontiguousarray(expected).view(unsigned)
    different = np.argwhere(left != right)
    assert not len(different), (
        f"{name}: {len(different)} of {actual.size} entries differ in their bits, first "
        f"{actual[tuple(different[0])]!r} != {expected[tuple(different[0])]!r} at {different[0]}"
    )
