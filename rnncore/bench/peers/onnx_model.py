"""A problem as an ONNX model: one node a layer, the weights initialisers in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from rnncore.bench.peers.interface import Problem
from rnncore.checks import Array

OPSET, IR_VERSION = 17, 8
ORDER = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""PyTorch's gates in ONNX' order: LSTM i o f c, GRU z r h."""
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


def sequence_model(problem: Problem) -> bytes:
    """Return ``x -> y`` over whole sequences, with the problem's lengths if its rows differ."""
    case, graph = problem.case, Graph()
    lengths = ""
    if problem.lengths is not None:
        lengths = graph.constant("lengths", problem.lengths.astype(np.int32))
    name = "x"
    for layer in range(case.layers):
        name = add_layer(graph, problem, layer, name, lengths, "", "")
    return finish(graph, problem, name, case.T, [])


def step_model(problem: Problem) -> bytes:
    """Return ``x, h_0, ... -> y, h_0_next, ...`` over one step; an LSTM has ``c_0`` as well."""
    graph, name, states = Graph(), "x", []
    for layer in range(problem.case.layers):
        h = f"h_{layer}"
        c = f"c_{layer}" if problem.case.cell == "LSTM" else ""
        name = add_layer(graph, problem, layer, name, "", h, c)
        states += [h, c] if c else [h]
    return finish(graph, problem, name, 1, states)


def add_layer(
    graph: Graph, problem: Problem, layer: int, x: str, lengths: str, h: str, c: str
) -> str:
    """Add one layer of one or two directions and return its output's name."""
    case, end = problem.case, f"_{layer}"
    weights = [problem.layer_weights(layer, k) for k in range(case.directions)]
    ordered = [[in_onnx_order(array, case.cell) for array in arrays] for arrays in weights]
    inputs = [
        x,
        graph.constant("W" + end, np.stack([arrays[0] for arrays in ordered])),
        graph.constant("R" + end, np.stack([arrays[1] for arrays in ordered])),
        graph.constant("B" + end, np.stack([np.concatenate(arrays[2:]) for arrays in ordered])),
        *([lengths, h] + ([c] if case.cell == "LSTM" else [])),
    ]
    outputs = ["Y" + end, f"{h}_next" if h else "", *([f"{c}_next"] if c else [])]
    attributes: dict[str, Any] = {"hidden_size": case.H}
    attributes["direction"] = "bidirectional" if case.directions == 2 else "forward"
    if case.cell == "GRU":
        attributes["linear_before_reset"] = 1
    graph.node(case.cell, inputs, outputs, **attributes)
    # Y is (T, K, N, H).
    y = "y" + end
    if case.directions == 1:
        graph.node("Squeeze", ["Y" + end, graph.constant("axes" + end, np.array([1]))], [y])
    else:
        graph.node("Transpose", ["Y" + end], ["Yt" + end], perm=[0, 2, 1, 3])
        shape = graph.constant("shape" + end, np.array([0, 0, 2 * case.H]))
        graph.node("Reshape", ["Yt" + end, shape], [y])
    return y


def in_onnx_order(array: Array, cell: str) -> Array:
    """Return a weight or bias with its gates' rows in ONNX' order."""
    blocks = np.split(array, len(ORDER[cell]))
    return np.concatenate([blocks[gate] for gate in ORDER[cell]])


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
