"""Inference with every option that ONNX has against ONNX Runtime's nodes RNN, GRU and LSTM.

Theirs compute in float32. Where they leave ONNX' text or are silent on a question, a test says so
and compares with what they do instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import Case, Problem, draw, forward_reference
from engine import infer
from tolerances import LARGEST_ENTRY

from rnncore.cells import ACTIVATIONS, PLAIN_ACTIVATIONS, CellSpec
from rnncore.reference import runs
from rnncore.reference.activations import Activation, activations_of

onnx = pytest.importorskip("onnx", reason="the comparison needs onnx installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the comparison needs it installed")

from rnncore.bench.peers.onnx_model import (  # noqa: E402 (needs onnx)
    IR_VERSION,
    OPSET,
    Graph,
    Reads,
    add_layer,
)

Results = dict[str, np.ndarray]
Change = Callable[[Any], None]

SIZES = {"T": 7, "N": 5, "D": 6, "H": 9}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "rnn": {
        "plain": {},
        "relu": {"nonlinearity": "relu"},
        "clip": {"clip": 0.6},
        "softsign": {"activations": (("Softsign", 0.0, 0.0),)},
    },
    "lstm": {
        "plain": {},
        "peephole": {"peephole": True},
        "coupled": {"coupled": True},
        "both": {"peephole": True, "coupled": True},
        "others": {
            "peephole": True,
            "activations": (
                ("HardSigmoid", 0.25, 0.4), ("ScaledTanh", 1.2, 0.7), ("Elu", 0.8, 0.0),
            ),
        },
    },
    "gru": {
        "plain": {},
        "reset before": {"reset_after": False},
        "clip": {"clip": 0.6},
        "clip, reset before": {"clip": 0.6, "reset_after": False},
        "others": {"activations": (("HardSigmoid", 0.25, 0.4), ("LeakyRelu", 0.2, 0.0))},
    },
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "forward": {},
    "both directions": {"bidirectional": True},
    "a stack": {"layers": 2, "bidirectional": True},
    "no state": {"states": False},
    "no bias": {"bias": False},
    "ragged": {"ragged": True, "shortest": 1},
    "ragged both directions": {"ragged": True, "shortest": 1, "bidirectional": True},
}
EACH = [(cell, name, way) for cell, named in OPTIONS.items() for name in named for way in WAYS]


def run_theirs(case: Case, p: Problem, change: Change | None = None) -> Results:
    """Run a problem as a model of one node a layer; `change` may edit each node before."""
    spec, graph, feeds = case.spec, Graph(), {"x": p.x.astype(np.float32)}
    lengths = ""
    if p.lengths is not None:
        lengths, feeds["lengths"] = "lengths", p.lengths.astype(np.int32)
    # A row without steps has their RNN read the state before y's begin: it is not asked for.
    steps_in_all = p.lengths is None or p.lengths.min() > 0
    with_state = p.h0 is not None and (spec.cell != "rnn" or steps_in_all)
    kinds = {"x": onnx.TensorProto.FLOAT, "lengths": onnx.TensorProto.INT32}
    weights = {name: value.astype(np.float32) for name, value in p.params.items()}
    name, ends = "x", []
    for layer in range(spec.num_layers):
        reads = Reads(name, lengths)
        rows = slice(layer * spec.num_directions, (layer + 1) * spec.num_directions)
        for part, state in zip("hc", (p.h0, p.c0), strict=True):
            if state is not None:
                reads = replace(reads, **{part: f"{part}_{layer}"})
                feeds[f"{part}_{layer}"] = state[rows].astype(np.float32)
                ends.append((part, f"{part}_{layer}_next"))
        name = add_layer(graph, spec, weights, layer, reads)
    for node in graph.nodes:
        if change and node.op_type == spec.cell.upper():
            change(node)
    outputs = [name, *(end for _, end in ends if with_state)]
    values = run_model(graph, feeds, outputs, kinds)
    results = {"y": values[0]}
    for part in "hc":
        found = [value for (of, _), value in zip(ends, values[1:], strict=False) if of == part]
        if found:
            results[f"{part}n"] = np.concatenate(found)
    return results


def run_model(graph: Graph, feeds: Results, outputs: list[str], kinds: dict[str, int]) -> list:
    """Run a graph whose inputs are those fed to it."""
    info, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes,
        "layers",
        [info(name, kinds.get(name, floats), value.shape) for name, value in feeds.items()],
        [info(name, floats, (None, None, None)) for name in outputs],
        graph.constants,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(outputs, feeds)


def by_reference(case: Case, p: Problem) -> Results:
    """Run the float64 reference forward."""
    y, hn, cn, _ = forward_reference(case, p)
    return {"y": y, "hn": hn} | ({} if cn is None else {"cn": cn})


def assert_close(theirs: Results, expected: Results) -> None:
    """Compare what they return with ours. Both may be float32, so both may err."""
    for name, value in theirs.items():
        assert value.shape == expected[name].shape, name
        scale = np.abs(expected[name]).max()
        assert 0 < scale < np.inf, name
        error = np.abs(value - expected[name]).max()
        allowed = 2 * LARGEST_ENTRY["float32", "forward"] * scale
        assert error <= allowed, f"{name}: off by {error:.3g}, allowed {allowed:.3g}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "name", "way"), EACH)
def test_inference_equals_theirs(cell: str, name: str, way: str, dtype: str) -> None:
    case = Case(cell=cell, **SIZES, **OPTIONS[cell][name], **WAYS[way])
    problem = draw(case)
    theirs = run_theirs(case, problem)
    states = ["hn", "cn"][: len(case.spec.state_shapes(case.N))] if case.states else []
    assert list(theirs) == ["y", *states]
    ours = case.but(dtype=dtype)
    values = {part: getattr(problem, part) for part in ("x", "h0", "c0")}
    given = {part: value.astype(dtype) for part, value in values.items() if value is not None}
    params = {part: value.astype(dtype) for part, value in problem.params.items()}
    assert_close(theirs, infer(ours, problem.but(params=params, **given)))


def bounded(cell: str, name: str, numbers: tuple[float, ...]) -> Any:
    """Return an activation in a cell's candidate and output, and in its gates if that is tame."""
    own = (name, *numbers, 0.0, 0.0)[:3]
    gates = own
    if name in ("Affine", "Elu", "LeakyRelu", "Relu", "Softplus", "ThresholdedRelu"):
        gates = ("Sigmoid", 0.0, 0.0)  # unbounded gates would make states grow without end
    chosen = {"rnn": (own,), "lstm": (gates, own, own), "gru": (gates, own)}[cell]
    plain = tuple(of for of, _, _ in chosen) == PLAIN_ACTIVATIONS[cell]
    return None if plain else chosen  # as a layer has its own


NUMBERS = {
    "Affine": (0.6, 0.1), "Elu": (0.7,), "HardSigmoid": (0.3, 0.4), "LeakyRelu": (0.15,),
    "ScaledTanh": (1.3, 0.8), "ThresholdedRelu": (0.3,),
}  # fmt: skip


@pytest.mark.parametrize("direction", ["forward", "both directions"])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cell", OPTIONS)
def test_every_activation_equals_theirs(cell: str, name: str, direction: str) -> None:
    chosen = bounded(cell, name, NUMBERS.get(name, ()))
    case = Case(cell=cell, activations=chosen, **SIZES, **WAYS[direction])
    problem = draw(case)
    assert_close(run_theirs(case, problem), infer(case, problem))


@pytest.mark.parametrize("place", ["gates", "candidate"])
@pytest.mark.parametrize("name", ["Affine", "Elu", "LeakyRelu", "Relu", "Softplus"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_activations_without_bounds_equal_theirs_in_one_place(cell, name, place) -> None:
    activations = [(plain, 0.0, 0.0) for plain in PLAIN_ACTIVATIONS[cell]]
    activations[place == "candidate"] = (name, *NUMBERS.get(name, ()), 0.0, 0.0)[:3]
    case = Case(cell=cell, activations=tuple(activations), **SIZES).but(T=3)
    problem = draw(case)
    assert_close(run_theirs(case, problem), infer(case, problem))


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("cell", OPTIONS)
def test_their_reverse_direction_is_the_second_half_of_ours(cell: str, ragged: bool) -> None:
    both = Case(cell=cell, bidirectional=True, ragged=ragged, shortest=1, **SIZES)
    problem, end = draw(both), "_reverse"
    one = problem.but(
        params={n.removesuffix(end): v for n, v in problem.params.items() if n.endswith(end)},
        h0=problem.h0[1:],
        c0=None if problem.c0 is None else problem.c0[1:],
    )

    def reverse(node: Any) -> None:
        (direction,) = (given for given in node.attribute if given.name == "direction")
        direction.s = b"reverse"

    ours = infer(both, problem)
    expected = {"y": ours.pop("y")[:, :, both.H :], **{name: ours[name][1:] for name in ours}}
    assert_close(run_theirs(both.but(bidirectional=False), one, reverse), expected)


# --- where they differ ----------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", OPTIONS)
def test_rows_without_steps_put_out_what_theirs_do(cell: str, bidirectional: bool) -> None:
    """But end in their initial state; theirs of LSTM and GRU end in zeros. ONNX does not say."""
    case = Case(cell=cell, bidirectional=bidirectional, ragged=True, **SIZES)
    problem = draw(case).but(lengths=np.array([3, 0, case.T, 0, 1]))
    theirs, ours = run_theirs(case, problem), infer(case, problem)
    empty = problem.lengths == 0
    assert np.array_equal(ours["hn"][:, empty], problem.h0[:, empty])
    assert list(theirs) == {"rnn": ["y"], "gru": ["y", "hn"], "lstm": ["y", "hn", "cn"]}[cell]
    for name in list(theirs)[1:]:
        assert not theirs[name][:, empty].any()
        theirs[name], ours[name] = theirs[name][:, ~empty], ours[name][:, ~empty]
    assert_close(theirs, ours)


@pytest.mark.parametrize("options", [{}, {"peephole": True}, {"coupled": True}])
def test_their_clip_does_not_reach_the_output_tanh(options, monkeypatch) -> None:
    """microsoft/onnxruntime#27224. ONNX clips the input of every activation."""
    case = Case(cell="lstm", clip=0.6, bidirectional=True, **options, **SIZES)
    problem = draw(case)
    theirs, ours = run_theirs(case, problem), infer(case, problem)
    assert np.abs(theirs["y"] - ours["y"]).max() > 0.01

    def output_unclipped(spec: CellSpec) -> tuple[Activation, ...]:
        *inside, output = activations_of(spec)
        return (*inside, replace(output, clip=None))

    monkeypatch.setattr(runs, "activations_of", output_unclipped)
    assert_close(theirs, by_reference(case, problem))


@pytest.mark.parametrize("peephole", [False, True])
def test_clips_agree_where_no_cell_state_exceeds_them(peephole: bool) -> None:
    """Coupled gates keep c between its old value and g, which tanh bounds."""
    case = Case(cell="lstm", clip=1.05, coupled=True, peephole=peephole, **SIZES)
    problem = draw(case)
    problem.c0 = np.tanh(problem.c0)
    ours = infer(case, problem)
    assert np.abs(infer(case.but(clip=None), problem)["y"] - ours["y"]).max() > 0.01
    assert_close(run_theirs(case, problem), ours)


# Where numbers are left out, ONNX takes those of its operators of these names, and has none named
# Affine or ScaledTanh. Theirs takes these.
THEIR_DEFAULTS = {
    "Affine": (0.0, 0.0), "Elu": (1.0,), "HardSigmoid": (0.2, 0.5), "LeakyRelu": (0.01,),
    "ScaledTanh": (0.0, 0.0), "ThresholdedRelu": (0.0,),
}  # fmt: skip
UNLIKE_OURS = {"Affine", "ScaledTanh", "ThresholdedRelu"}


@pytest.mark.parametrize("name", ["Elu", "HardSigmoid", "LeakyRelu", "ThresholdedRelu"])
def test_our_defaults_are_those_of_the_operators(name: str) -> None:
    attributes = onnx.defs.get_schema(name, OPSET).attributes
    numbers = [attributes[of].default_value.f for of in ("alpha", "beta") if of in attributes]
    assert ACTIVATIONS[name] == pytest.approx(numbers, rel=1e-7)


@pytest.mark.parametrize("name", THEIR_DEFAULTS)
@pytest.mark.parametrize("cell", OPTIONS)
def test_their_activations_without_numbers_have_these(cell: str, name: str) -> None:
    assert (THEIR_DEFAULTS[name] != ACTIVATIONS[name]) == (name in UNLIKE_OURS)

    def leave_numbers_out(node: Any) -> None:
        kept = [given for given in node.attribute if "activation_" not in given.name]
        assert len(kept) < len(node.attribute)
        del node.attribute[:]
        node.attribute.extend(kept)

    case = Case(cell=cell, activations=bounded(cell, name, NUMBERS[name]), **SIZES)
    problem = draw(case)
    theirs = run_theirs(case, problem, leave_numbers_out)
    numbers = (*THEIR_DEFAULTS[name], 0.0)[:2]
    ours = infer(case.but(activations=bounded(cell, name, numbers)), problem)
    if theirs["y"].any():
        assert_close(theirs, ours)
    else:  # Affine and ScaledTanh with zeros
        assert not ours["y"].any()
        assert not any(value.any() for part, value in theirs.items() if part != "cn")


def test_a_threshold_itself_is_below_theirs() -> None:
    """ONNX' RNN has ``x if x >= alpha``, its operator ThresholdedRelu ``x > alpha``, as theirs."""
    case = Case(
        cell="rnn", T=1, N=1, D=1, H=1, bias=False, states=False,
        activations=(("ThresholdedRelu", 0.5, 0.0),),
    )  # fmt: skip
    problem = draw(case).but(x=np.full((1, 1, 1), 0.5, np.float32))
    problem.params["weight_ih_l0"][...] = 1.0
    assert infer(case, problem)["y"] == 0.5
    assert run_theirs(case, problem)["y"] == 0.0
