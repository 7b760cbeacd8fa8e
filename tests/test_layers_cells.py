"""Cells: one step a call, under PyTorch's names."""

from __future__ import annotations

import copy
import json
import pickle
import re

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, both_backends, exact_dtype, normal, parts, snapshot

import rnncore as rc
from rnncore.layers import from_config

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

CELLS = {"rnn": rc.RNNCell, "lstm": rc.LSTMCell, "gru": rc.GRUCell}
T, N, D, H = 5, 3, 4, 6


def start(cell: str, dtype: str = "float32") -> object:
    h, c = (normal(N, H, seed=seed, dtype=dtype) for seed in (1, 2))
    return (h, c) if cell == "lstm" else h


def with_layer_axis(state: object) -> object:
    return tuple(part[None] for part in state) if isinstance(state, tuple) else state[None]


@pytest.mark.parametrize("cell", CELLS)
def test_a_loop_over_steps_is_the_layer_forward_and_backward(cell, both_backends) -> None:
    dtype = exact_dtype(both_backends)
    step, layer = (kind[cell](D, H, seed=1, dtype=dtype) for kind in (CELLS, CLASSES))
    x, state, tapes, outputs = normal(T, N, D, dtype=dtype), start(cell, dtype), [], []
    y, end, whole = layer.record(x, with_layer_axis(state))
    for x_t in x:
        state, tape = step.record(x_t, state)
        tapes.append(tape)
        outputs.append(parts(state)[0])
    assert_same([np.stack(outputs), with_layer_axis(state)], [y, end])
    dend = with_layer_axis(start(cell, dtype))
    dx, dstart = layer.backward(None, dend, tape=whole)
    dstate, gradients = start(cell, dtype), []
    for tape in reversed(tapes):
        dx_t, dstate = step.backward(dstate, tape=tape)
        gradients.insert(0, dx_t)
    assert_same([np.stack(gradients), with_layer_axis(dstate)], [dx, dstart])
    for name, grad in step.grads.items():
        assert np.allclose(grad, layer.grads[f"{name}_l0"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_one_row_needs_no_batch_axis_and_no_state(cell: str) -> None:
    step = CELLS[cell](D, H, seed=1)
    x, dstate = normal(N, D), start(cell)
    expected = step.forward(x)
    dx, dstart = step.backward(dstate)
    row = tuple(part[1] for part in dstate) if cell == "lstm" else dstate[1]
    assert_same(step.forward(x[1]), [part[1] for part in parts(expected)])
    dx_1, dstart_1 = step.backward(row)
    assert_same([dx_1, dstart_1], [dx[1], [part[1] for part in parts(dstart)]])


def test_names_and_initial_values_are_those_of_a_layer_without_l0() -> None:
    step, layer = rc.LSTMCell(D, H, seed=1), rc.LSTM(D, H, seed=1)
    assert list(step.params) == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    for name, array in step.params.items():
        assert_same(array, layer.params[f"{name}_l0"])
    assert list(rc.RNNCell(D, H, False).params) == ["weight_ih", "weight_hh"]
    torch = pytest.importorskip("torch")
    theirs = torch.nn.GRUCell(D, H)
    ours = rc.GRUCell(D, H)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        expected = theirs(torch.from_numpy(normal(N, D))).numpy()
    assert np.allclose(ours(normal(N, D)), expected, atol=1e-6)


def test_tapes_of_cells_are_checked_as_layers_are() -> None:
    step, x = rc.GRUCell(D, H, seed=1), normal(N, D)
    with pytest.raises(RuntimeError, match="expected a forward call"):
        step.backward(normal(N, H))
    _, tape = step.record(x)
    with pytest.raises(RuntimeError, match="another cell"):
        rc.GRUCell(D, H).backward(normal(N, H), tape=tape)
    first = step.backward(normal(N, H), tape=tape, retain=True)
    assert_same(step.backward(normal(N, H), tape=tape), first)
    before = snapshot(step)
    with pytest.raises(RuntimeError, match="already spent"):
        step.backward(normal(N, H), tape=tape)
    assert_same(snapshot(step), before)
    step.forward(x)
    assert step.backward(normal(N, H), need_dx=False)[0] is None


def test_bad_arguments_are_named() -> None:
    step = rc.LSTMCell(D, H, seed=1)
    with pytest.raises(ValueError, match=re.escape("x: expected (N, 4) or (4,), got (5, 3, 4)")):
        step(normal(T, N, D))
    with pytest.raises(ValueError, match=re.escape("state: expected a pair (h, c)")):
        step(normal(N, D), normal(N, H))
    with pytest.raises(ValueError, match=re.escape("state[1]: expected (3, 6), got (1, 6)")):
        step(normal(N, D), (normal(N, H), normal(1, H)))
    with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
        step(normal(N, D, dtype="float64"))
    with pytest.raises(ValueError, match="hidden_size: expected an integer of at least 1"):
        rc.RNNCell(3, 0)
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        rc.RNNCell(3, 4, nonlinearity="elu")
    with pytest.raises(TypeError, match="num_layers"):
        rc.GRUCell(3, 4, num_layers=2)


@pytest.mark.host_only
def test_cells_tell_what_they_are_and_can_be_copied() -> None:
    step = rc.RNNCell(D, H, nonlinearity="relu", dtype="float64", seed=1)
    assert repr(step) == "RNNCell(4, 6, nonlinearity='relu', dtype='float64')"
    assert step.num_parameters == H * D + H * H + 2 * H
    x = normal(N, D, dtype="float64")
    described = from_config(json.loads(json.dumps(step._config())))
    for twin in (copy.deepcopy(step), pickle.loads(pickle.dumps(step)), described):
        assert repr(twin) == repr(step)
        assert_same(twin(x), step(x))
        twin.params["bias_ih"][...] += 1
        assert not np.array_equal(twin(x), step(x))


def test_holding_a_cell_packs_once() -> None:
    step, x = rc.GRUCell(D, H, seed=1), normal(N, D)
    with step.hold():
        first = step(x)
        held = step._packed._held
        assert_same(step(x), first)
        assert step._packed._held is held is not None
