"""Every option through the layers: training, inference, frozen engines, streams, files, copies."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, normal
from cases import assert_results_close, assert_same_bits, draw, run_reference
from engine import build, call_of, infer, parts, state_of, train
from variants import ALONE, PAIRS, case_of, draw_ragged, random_case

import rnncore as rc
from rnncore import backends, functional

FORWARD = ("y", "hn", "cn")


def check(case) -> None:
    """Compare training, with the masks of a layer's first call, and inference, without any."""
    problem = draw_ragged(case)
    assert_results_close(train(case, problem), run_reference(case, problem), case.dtype)
    expected = run_reference(case, problem.but(masks=None))
    inferred = infer(case, problem)
    assert_results_close(inferred, {k: expected[k] for k in inferred}, case.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_every_option_equals_the_reference(cell, option, dtype, backend) -> None:
    check(case_of(cell, option, dtype=dtype, batch_first=dtype == "float32", H=9, D=5))


@pytest.mark.parametrize(("cell", "one", "other"), PAIRS)
def test_every_pair_of_options_equals_the_reference(cell, one, other, backend) -> None:
    check(case_of(cell, one, other, H=9, D=5))


@pytest.mark.parametrize("seed", range(40))
def test_random_combinations_equal_the_reference(seed: int, backend: str) -> None:
    check(random_case(seed, H=9, D=5))


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_recomputing_changes_no_bit(cell: str, option: str, backend: str) -> None:
    case = case_of(cell, option, dtype="float32")
    problem = draw_ragged(case)
    assert_same_bits(train(case, problem, recompute=True), train(case, problem))


@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_frozen_engines_and_streams_have_every_option(cell, option, backend) -> None:
    case = case_of(cell, option, bidirectional=False, batch_first=False)
    problem = draw_ragged(case)
    layer = build(case, problem)
    engine, expected = layer.freeze(), infer(case, problem, layer)
    assert_same_bits(infer(case, problem, engine), expected)
    problem.lengths = problem.resets = None
    whole, end = engine(problem.x, state_of(problem.h0, problem.c0))
    stream = engine.stream(batch=case.N)
    stream.state = state_of(problem.h0, problem.c0)
    assert_same(np.stack([stream.step(x_t) for x_t in problem.x]), whole)
    assert_same([part for part in parts(stream.state) if part is not None],
                [part for part in parts(end) if part is not None])  # fmt: skip


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
@pytest.mark.parametrize(("cell", "option"), ALONE)
def test_reduced_weights_have_every_option(cell, option, weights, backend) -> None:
    case = case_of(cell, option, dtype="float32", H=13, D=9)
    problem = draw_ragged(case)
    layer = build(case, problem)
    y, full = infer(case, problem, layer.freeze(weights))["y"], infer(case, problem, layer)["y"]
    assert 0 < np.abs(y - full).max() < 0.15 * np.abs(full).max()


@pytest.mark.parametrize("merge", ["concat", "mul"])
def test_wrappers_hand_on_whether_to_recompute(merge: str, monkeypatch) -> None:
    with backends.use("reference") as backend:
        forward, told = backend.forward, []
        monkeypatch.setattr(
            backend, "forward", lambda *given: told.append(given[11]) or forward(*given)
        )
        stack = rc.Stack(
            [rc.Bidirectional(rc.GRU(3, 4), merge), rc.LSTM(4 * (1 + (merge[0] == "c")), 2)]
        )
        y, _, tape = stack.record(normal(5, 2, 3), recompute=True)
        stack.backward(y, tape=tape)
        stack.forward(normal(5, 2, 3))
        assert told == [True] * 3 + [False] * 3


def options(cell: str) -> dict[str, object]:
    """Return every option of a cell at once."""
    own = {
        "rnn": {"zoneout": 0.25, "activations": [("ScaledTanh", 1.5, 0.5)]},
        "gru": {
            "zoneout": 0.25, "reset_after": False, "activations": ["HardSigmoid", ("Elu", 0.5)],
        },
        "lstm": {
            "zoneout": (0.25, 0.5), "peephole": True, "coupled": True, "proj_size": 2,
            "activations": ("Sigmoid", ["LeakyRelu"], "Softsign"),
        },
    }  # fmt: skip
    common = {"layer_norm": True, "clip": 3, "recurrent_dropout": 0.5, "num_layers": 2, "seed": 4}
    return {**common, **own[cell]}


REPRESENTED = {
    "rnn": "RNN(3, 5, num_layers=2, recurrent_dropout=0.5, zoneout=0.25, layer_norm=True, "
    "activations=(('ScaledTanh', 1.5, 0.5),), clip=3.0)",
    "gru": "GRU(3, 5, num_layers=2, reset_after=False, recurrent_dropout=0.5, zoneout=0.25, "
    "layer_norm=True, activations=(('HardSigmoid', 0.2, 0.5), ('Elu', 0.5)), clip=3.0)",
    "lstm": "LSTM(3, 5, num_layers=2, proj_size=2, peephole=True, coupled=True, "
    "recurrent_dropout=0.5, zoneout=(0.25, 0.5), layer_norm=True, "
    "activations=('Sigmoid', ('LeakyRelu', 0.01), 'Softsign'), clip=3.0)",
}


@pytest.mark.parametrize("cell", CLASSES)
def test_a_layers_words_build_it_again(cell: str) -> None:
    layer = CLASSES[cell](3, 5, **options(cell))
    assert repr(layer) == REPRESENTED[cell]
    again = eval(repr(layer), {cell.upper(): CLASSES[cell]})
    assert again.spec == layer.spec
    assert hash(again.spec) == hash(layer.spec)


@pytest.mark.parametrize("kind", ["file", "pickle", "copy", "json"])
@pytest.mark.parametrize("cell", CLASSES)
def test_files_and_copies_carry_every_option(cell, kind, backend, tmp_path: Path) -> None:
    layer, x = CLASSES[cell](3, 5, **options(cell)), normal(6, 2, 3)
    layer.forward(x)
    if kind == "file":
        rc.save(tmp_path / "layer", layer)
        twin = rc.load(tmp_path / "layer")
    elif kind == "json":
        config = json.loads(json.dumps(layer._config()))
        twin = type(layer)._from_config(config)
        twin.load_state_dict(layer.state_dict())
        twin.rng_state = layer.rng_state
    else:
        twin = copy.deepcopy(layer) if kind == "copy" else pickle.loads(pickle.dumps(layer))
    assert repr(twin) == repr(layer)
    assert twin.spec == layer.spec
    assert_same(twin(x), layer(x))
    assert_same(twin.forward(x), layer.forward(x))


@pytest.mark.parametrize("cell", CLASSES)
def test_wrappers_copy_every_option(cell: str, backend: str) -> None:
    x = normal(6, 2, 3)
    for layer in (
        rc.Bidirectional(CLASSES[cell](3, 5, **options(cell))),
        rc.Stack([CLASSES[cell](3, 5, **options(cell))]),
    ):
        twin = pickle.loads(pickle.dumps(layer))
        assert repr(twin) == repr(layer)
        assert_same(twin.forward(x)[0], layer.forward(x)[0])
        assert_same(twin.freeze()(x)[0], layer(x)[0])


@pytest.mark.parametrize("cell", CLASSES)
def test_a_bidirectional_wrapper_equals_the_option_of_that_name(cell: str, backend: str) -> None:
    plain = {**options(cell), "num_layers": 1, "dtype": "float64"}
    wrapper = rc.Bidirectional(CLASSES[cell](3, 5, **plain))
    layer = CLASSES[cell](3, 5, bidirectional=True, **plain)
    layer.load_state_dict(wrapper.state_dict())
    x, resets = normal(6, 2, 3, dtype="float64"), normal(6, 2) > 0
    assert_same(wrapper(x, None, [6, 4], resets), layer(x, None, [6, 4], resets))


def test_frozen_engines_leave_out_what_only_training_uses() -> None:
    with backends.use("reference"):
        layer = rc.LSTM(3, 5, 2, recurrent_dropout=0.5, dropout=0.5, zoneout=0.25, layer_norm=True)
        frozen = layer.freeze()
    assert repr(frozen) == "Frozen(LSTM(3, 5, num_layers=2, zoneout=0.25, layer_norm=True))"


def test_what_a_cell_has_anyway_is_no_option() -> None:
    plain = rc.LSTM(3, 5, activations=["Sigmoid", "Tanh", ("Tanh",)], zoneout=(0.0, 0.0))
    assert repr(plain) == "LSTM(3, 5)"
    assert plain.spec == rc.LSTM(3, 5).spec
    assert rc.GRU(3, 5, activations=("Sigmoid", "Tanh")).spec.activations is None
    assert rc.RNN(3, 5, activations=["Relu"]).spec.activations == (("Relu", 0.0, 0.0),)


def test_one_rate_of_an_lstms_zoneout_is_both() -> None:
    assert rc.LSTM(3, 5, zoneout=0.25).spec.zoneout == (0.25, 0.25)
    assert rc.GRU(3, 5, zoneout=0.25).spec.zoneout == (0.25, 0.0)
    assert rc.RNN(3, 5).spec.zoneout == (0.0, 0.0)


def test_new_parameters_have_their_names_shapes_and_first_values() -> None:
    layer = rc.LSTM(3, 50, proj_size=2, peephole=True, layer_norm=True, bidirectional=True, seed=1)
    names = [
        "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole", "norm_ih",
        "norm_hh", "norm_c", "norm_c_bias",
    ]  # fmt: skip
    assert list(layer.params) == [f"{n}_l0{end}" for end in ("", "_reverse") for n in names]
    assert layer.params["peephole_l0"].shape == (150,)
    assert 0.12 < np.abs(layer.params["peephole_l0"]).max() <= 1 / np.sqrt(50)
    for name, value in (("norm_ih", 1), ("norm_hh", 1), ("norm_c", 1), ("norm_c_bias", 0)):
        assert (layer.params[f"{name}_l0"] == value).all()
    assert layer.params["norm_ih_l0"].shape == layer.params["norm_hh_l0"].shape == (200,)
    plain = rc.GRU(3, 4, layer_norm=True, bias=False, seed=1)
    assert list(plain.params)[2:] == ["norm_ih_l0", "norm_hh_l0"]


def test_a_normalised_layer_draws_the_weights_of_a_plain_one() -> None:
    plain, normed = rc.GRU(3, 4, 2, seed=1), rc.GRU(3, 4, 2, layer_norm=True, seed=1)
    for name, value in plain.params.items():
        assert_same(normed.params[name], value)


def test_functional_runs_what_a_layer_runs(backend: str) -> None:
    case = case_of("gru", "reset before", "layer norm", "zoneout")
    problem = draw(case)
    layer = build(case, problem)
    spec, call = case.spec, call_of(case, problem)
    y, end, tape = functional.forward(
        spec, problem.params, *call.values(), masks=problem.masks, recompute=True
    )
    layer.rng_state = {"seed": case.seed, "calls": 0}
    assert_same([y, end], layer.forward(**call))
    dx, start, grads = functional.backward(spec, problem.params, tape, problem.dy)
    assert_same([dx, start], layer.backward(problem.dy))
    assert_same(list(grads.values()), list(layer.grads.values()))
