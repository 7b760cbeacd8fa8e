"""The engine run on a problem: through the public API, and at the border to C++ itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case, Problem, Results, collect

import rnncore as rc
from rnncore import _rnncore

LAYERS = {"rnn": rc.RNN, "lstm": rc.LSTM, "gru": rc.GRU}
State = Any


def build(case: Case, problem: Problem) -> Any:
    """Return the layer of a case with the problem's weights written into its parameters."""
    extra = {"rnn": {"nonlinearity": case.nonlinearity}, "lstm": {"proj_size": case.proj_size}}
    layer = LAYERS[case.cell](
        case.D,
        case.H,
        case.layers,
        bias=case.bias,
        batch_first=case.batch_first,
        bidirectional=case.bidirectional,
        dtype=case.dtype,
        **extra.get(case.cell, {}),
    )
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


def infer(case: Case, p: Problem, layer: Callable | None = None) -> Results:
    """Run inference; return y and the final states."""
    layer = layer or build(case, p)
    y, state = layer(turned(case, p.x), state_of(p.h0, p.c0), lengths=p.lengths)
    hn, cn = parts(state)
    results = {"y": turned(case, y), "hn": hn}
    return results if cn is None else results | {"cn": cn}


def train(case: Case, p: Problem, layer: Any = None) -> Results:
    """Run forward and backward through the layer; return everything that comes out."""
    layer = layer or build(case, p)
    layer.zero_grad()
    y, state = layer.forward(turned(case, p.x), state_of(p.h0, p.c0), lengths=p.lengths)
    dx, dstate = layer.backward(turned(case, p.dy), state_of(p.dhn, p.dcn))
    hn, cn = parts(state)
    dh0, dc0 = parts(dstate)
    grads = {name: value.copy() for name, value in layer.grads.items()}
    return collect(turned(case, y), hn, cn, turned(case, dx), dh0, dc0, grads)


def native_spec(case: Case) -> Any:
    """Return the specification as the extension module takes it."""
    s = case.spec
    return _rnncore.Spec(
        s.cell, s.input_size, s.hidden_size, s.num_layers, s.num_directions,
        s.proj_size, s.bias, s.nonlinearity, s.dtype,
    )  # fmt: skip


def train_at_the_border(
    case: Case,
    p: Problem,
    masks: list | None = None,
    make: Callable[[np.ndarray], np.ndarray] = np.copy,
    threads: int = 1,
) -> Results:
    """Run the extension module itself on arrays that ``make`` copies, outputs included.

    Outputs start as NaN, so that an entry nobody wrote shows; the gradients, which are added into,
    start at zero.
    """

    def empty(*shape: int) -> np.ndarray:
        return make(np.full(shape, np.nan, case.dtype))

    spec = case.spec
    h_shape, c_shape = (case.N, spec.output_size), (case.N, spec.hidden_size)
    params = [make(value) for value in p.params.values()]
    grads = [make(np.zeros_like(value)) for value in params]
    h0, c0, dhn, dcn, dy, x = (
        None if a is None else make(a) for a in (p.h0, p.c0, p.dhn, p.dcn, p.dy, p.x)
    )
    lengths = None if p.lengths is None else make(p.lengths.astype(np.int64))
    has_c = spec.has_cell_state
    y, dx = empty(case.T, case.N, spec.features), empty(case.T, case.N, case.D)
    hn, dh0 = empty(spec.state_rows, *h_shape), empty(spec.state_rows, *h_shape)
    cn = empty(spec.state_rows, *c_shape) if has_c else None
    dc0 = empty(spec.state_rows, *c_shape) if has_c else None
    packed = _rnncore.Packed(native_spec(case), params, threads)
    tape = _rnncore.forward(packed, x, h0, c0, lengths, y, hn, cn, masks, True, threads)
    _rnncore.backward(
        packed, tape, x, y, h0, c0, masks, dy, dhn, dcn, dx, dh0, dc0, grads, False, threads
    )
    return collect(y, hn, cn, dx, dh0, dc0, dict(zip(p.params, grads, strict=True)))
