"""The engine run on a problem: through the public API, and at the border to C++ itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case, Problem, Results, collect

import rnncore as rc
from rnncore.backends import cpu
from rnncore.cells import ACTIVATIONS
from rnncore.masks import Masks

LAYERS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
State = Any


def options_of(case: Case) -> dict[str, Any]:
    """Return the options of a case as the layers' constructors take them."""
    own = {
        "rnn": {"nonlinearity": case.nonlinearity},
        "lstm": {
            "proj_size": case.proj_size,
            "peephole": case.peephole,
            "coupled": case.coupled,
        },
        "gru": {"reset_after": case.reset_after},
    }
    names = (
        "bias", "batch_first", "bidirectional", "dropout", "variational", "recurrent_dropout",
        "layer_norm", "clip", "dtype", "seed",
    )  # fmt: skip
    activations = case.activations and [
        (name, *numbers[: len(ACTIVATIONS[name])]) for name, *numbers in case.activations
    ]
    return {
        **{name: getattr(case, name) for name in names},
        "zoneout": case.zoneout if case.cell == "lstm" else case.zoneout[0],
        "activations": activations,
        **own.get(case.cell, {}),
    }


def build(case: Case, problem: Problem) -> Any:
    """Return the layer of a case with the problem's weights written into its parameters."""
    layer = getattr(rc, LAYERS[case.cell])(case.D, case.H, case.layers, **options_of(case))
    assert layer.spec == case.spec
    assert list(layer.params) == list(problem.params)
    for name, value in problem.params.items():
        layer.params[name][...] = value
    return layer


def state_of(h: np.ndarray | None, c: np.ndarray | None) -> State:
    """Return a state as the API takes it: nothing, h, or (h, c)."""
    return h if c is None else (h, c)


def parts(state: State) -> tuple[np.ndarray, np.ndarray | None]:
    """Return h and c of a state; c is None where the cell has none."""
    return state if isinstance(state, tuple) else (state, None)


def turned(case: Case, array: np.ndarray) -> np.ndarray:
    """Lay a time-major array out as the layer wants it, and back."""
    return np.ascontiguousarray(array.swapaxes(0, 1)) if case.batch_first else array


def call_of(case: Case, p: Problem) -> dict[str, Any]:
    """Return the arguments of a call."""
    resets = None if p.resets is None else turned(case, p.resets)
    return {
        "x": turned(case, p.x),
        "state": state_of(p.h0, p.c0),
        "lengths": p.lengths,
        "resets": resets,
    }


def infer(case: Case, p: Problem, layer: Callable | None = None) -> Results:
    """Run inference, which has no masks; return y and the final states."""
    layer = layer or build(case, p)
    y, state = layer(**call_of(case, p))
    hn, cn = parts(state)
    results = {"y": turned(case, y), "hn": hn}
    return results if cn is None else results | {"cn": cn}


def train(case: Case, p: Problem, layer: Any = None, recompute: bool = False) -> Results:
    """Run forward and backward through the layer; return everything that comes out.

    Masks are those that the layer draws for its first call, which `cases.draw` draws as well.
    """
    layer = layer or build(case, p)
    layer.zero_grad()
    layer.rng_state = {"seed": case.seed, "calls": 0}
    y, state, tape = layer.record(**call_of(case, p), recompute=recompute)
    dx, dstate = layer.backward(turned(case, p.dy), state_of(p.dhn, p.dcn), tape=tape)
    hn, cn = parts(state)
    dh0, dc0 = parts(dstate)
    grads = {name: value.copy() for name, value in layer.grads.items()}
    return collect(turned(case, y), hn, cn, turned(case, dx), dh0, dc0, grads)


def train_at_the_border(
    case: Case,
    p: Problem,
    make: Callable[[np.ndarray], np.ndarray] = np.copy,
    threads: int = 1,
    recompute: bool = False,
) -> Results:
    """Run the extension module itself on arrays that ``make`` copies, outputs included.

    Outputs start as NaN, so that an entry nobody wrote shows; the gradients, which are added into,
    start at zero.
    """

    def empty(*shape: int) -> np.ndarray:
        return make(np.full(shape, np.nan, case.dtype))

    def copy(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else make(array)

    spec = case.spec
    h_shape, c_shape = (case.N, spec.output_size), (case.N, spec.hidden_size)
    params = [make(value) for value in p.params.values()]
    grads = [make(np.zeros_like(value)) for value in params]
    h0, c0, dhn, dcn, dy, x, resets = map(copy, (p.h0, p.c0, p.dhn, p.dcn, p.dy, p.x, p.resets))
    lengths = None if p.lengths is None else make(p.lengths.astype(np.int64))
    masks = p.masks and Masks(p.masks.inputs, *([*map(copy, part)] for part in p.masks[1:]))
    has_c = spec.has_cell_state
    y, dx = empty(case.T, case.N, spec.features), empty(case.T, case.N, case.D)
    hn, dh0 = empty(spec.state_rows, *h_shape), empty(spec.state_rows, *h_shape)
    cn = empty(spec.state_rows, *c_shape) if has_c else None
    dc0 = empty(spec.state_rows, *c_shape) if has_c else None
    packed = cpu.pack(spec, params, threads)
    tape = cpu.forward(
        packed, x, h0, c0, lengths, resets, y, hn, cn, masks, True, recompute, threads
    )
    cpu.backward(
        packed, tape, x, y, h0, c0, masks, dy, dhn, dcn, dx, dh0, dc0, grads, False, threads
    )
    return collect(y, hn, cn, dx, dh0, dc0, dict(zip(p.params, grads, strict=True)))
