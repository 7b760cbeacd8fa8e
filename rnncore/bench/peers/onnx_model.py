"""A problem as an ONNX model: one node a layer, the weights initialisers in it.

`Graph` and `add_layer` know every option of the cells that ONNX has, for the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from rnncore.bench.peers.interface import Problem
from rnncore.cells import ACTIVATIONS, DIRECTION_SUFFIXES, CellSpec
from rnncore.checks import Array

OPSET, IR_VERSION = 17, 8
ORDER = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""PyTorch's gates in ONNX' order: LSTM i o f c, GRU z r h."""
PEEPHOLE_ORDER = (0, 2, 1)
"""Our peepholes i f o in ONNX' order i o f."""
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


@dataclass
class Graph:
    """The parts of a graph as they come together."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, name: str, value: Array) -> str:
        """Add an initialiser and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))


@dataclass(frozen=True)
class Reads:
    """Names of what a layer reads beside its weights, "" for what it goes without."""

    x: str
    lengths: str = ""
    h: str = ""
    c: str = ""


def sequence_model(problem: Problem) -> bytes:
    """Return ``x -> y`` over whole sequences, with the problem's lengths if its rows differ."""
    case, graph = problem.case, Graph()
    lengths = ""
    if problem.lengths is not None:
        lengths = graph.constant("lengths", problem.lengths.astype(np.int32))
    name = "x"
    for layer in range(case.layers):
        name = add_layer(graph, problem.spec, problem.weights, layer, Reads(name, lengths))
    return finish(graph, problem, name, case.T, [])


def step_model(problem: Problem) -> bytes:
    """Return ``x, h_0, ... -> y, h_0_next, ...`` over one step; an LSTM has ``c_0`` as well."""
    graph, name, states = Graph(), "x", []
    for layer in range(problem.case.layers):
        h = f"h_{layer}"
        c = f"c_{layer}" if problem.case.cell == "LSTM" else ""
        reads = Reads(name, h=h, c=c)
        name = add_layer(graph, problem.spec, problem.weights, layer, reads)
        states += [h, c] if c else [h]
    return finish(graph, problem, name, 1, states)


def add_layer(
    graph: Graph, spec: CellSpec, weights: Mapping[str, Array], layer: int, reads: Reads
) -> str:
    """Add one layer of one or two directions and return its output's name.

    With an initial state the final one is there under its names with ``_next``.
    """
    end = f"_{layer}"
    shared = [reads.lengths, reads.h] + [reads.c] * spec.has_cell_state
    peephole = _stacked(graph, "P" + end, spec, weights, layer, ("peephole",))
    inputs = [
        reads.x,
        _stacked(graph, "W" + end, spec, weights, layer, ("weight_ih",)),
        _stacked(graph, "R" + end, spec, weights, layer, ("weight_hh",)),
        _stacked(graph, "B" + end, spec, weights, layer, ("bias_ih", "bias_hh")),
        *shared,
        *([peephole] if peephole else []),
    ]
    outputs = ["Y" + end, *(f"{name}_next" for name in shared[1:] if name)]
    graph.node(spec.cell.upper(), inputs, outputs, **attributes_of(spec))
    # Y is (T, K, N, H).
    y = "y" + end
    if spec.num_directions == 1:
        graph.node("Squeeze", ["Y" + end, graph.constant("axes" + end, np.array([1]))], [y])
    else:
        graph.node("Transpose", ["Y" + end], ["Yt" + end], perm=[0, 2, 1, 3])
        shape = graph.constant("shape" + end, np.array([0, 0, spec.features]))
        graph.node("Reshape", ["Yt" + end, shape], [y])
    return y


def attributes_of(spec: CellSpec) -> dict[str, Any]:
    """Return a node's attributes. ONNX has no word for projections, layer norm and zoneout."""
    assert not any((spec.proj_size, spec.layer_norm, *spec.zoneout)), spec
    two = spec.num_directions == 2
    attributes: dict[str, Any] = {"hidden_size": spec.hidden_size}
    attributes["direction"] = "bidirectional" if two else "forward"
    if spec.cell == "gru":
        attributes["linear_before_reset"] = int(spec.reset_after)
    if spec.coupled:
        attributes["input_forget"] = 1
    if spec.clip is not None:
        attributes["clip"] = spec.clip
    chosen = spec.activations
    if chosen is None and spec.cell == "rnn" and spec.nonlinearity == "relu":
        chosen = (("Relu", 0.0, 0.0),)
    if chosen is None:
        return attributes
    # Numbers are listed for those alone that take them.
    alphas = [alpha for name, alpha, _ in chosen if len(ACTIVATIONS[name]) > 0]
    betas = [beta for name, _, beta in chosen if len(ACTIVATIONS[name]) > 1]
    attributes["activations"] = [name for name, _, _ in chosen] * spec.num_directions
    if alphas:
        attributes["activation_alpha"] = alphas * spec.num_directions
    if betas:
        attributes["activation_beta"] = betas * spec.num_directions
    return attributes


def _stacked(
    graph: Graph,
    name: str,
    spec: CellSpec,
    weights: Mapping[str, Array],
    layer: int,
    parts: tuple[str, ...],
) -> str:
    """Add both directions' parameters of some names one after another; "" if there are none."""
    ends = [f"_l{layer}{suffix}" for suffix in DIRECTION_SUFFIXES[: spec.num_directions]]
    if parts[0] + ends[0] not in weights:
        return ""
    order = PEEPHOLE_ORDER if parts == ("peephole",) else ORDER[spec.cell]
    directions = [
        np.concatenate([_in_onnx_order(weights[part + end], order) for part in parts])
        for end in ends
    ]
    return graph.constant(name, np.stack(directions))


def _in_onnx_order(array: Array, order: tuple[int, ...]) -> Array:
    """Return a parameter with its gates' rows in ONNX' order."""
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[gate] for gate in order])


def finish(graph: Graph, problem: Problem, y: str, steps: int, states: list[str]) -> bytes:
    """Return the model's bytes; all sizes are fixed."""
    case, kind = problem.case, TYPES[problem.number]

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    state = (case.directions, case.N, case.H)
    made = helper.make_graph(
        graph.nodes,
        str(case),
        [value("x", steps, case.N, case.D), *(value(name, *state) for name in states)],
        [value(y, steps, case.N, problem.spec.features),
         *(value(f"{name}_next", *state) for name in states)],
        graph.constants,
    )  # fmt: skip
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION)
    serialized: bytes = model.SerializeToString()
    return serialized
