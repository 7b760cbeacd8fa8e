"""ONNX Runtime: an ONNX model of our weights, one node a layer, on its CPU provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Work, sequence_check
from rnncore.bench.peers.onnx_model import sequence_model, step_model


class OnnxRuntime(Peer):
    """Sessions with all graph optimisations, that take lengths as they are."""

    name = "ONNX Runtime"
    version: str = onnxruntime.__version__

    def __init__(self, threads: int) -> None:
        onnxruntime.set_default_logger_severity(3)
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        everything = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._options.graph_optimization_level = everything

    def inference(self, problem: Problem) -> Work:
        """Return a session's run."""
        problem.need("float32")
        session = self._session(sequence_model(problem))

        def run() -> Any:
            return session.run(None, {"x": problem.x})[0]

        return Work(run, sequence_check(run, problem))

    def streaming(self, problem: Problem) -> Work:
        """Return a run of one step, states handed back in."""
        problem.need("float32")
        session = self._session(step_model(problem))
        names = [given.name for given in session.get_inputs()][1:]
        state = np.zeros((1, problem.case.N, problem.case.H), problem.number)
        feeds: Arrays = {}

        def run(x: Any = problem.x[:1]) -> Any:
            feeds["x"] = x
            y, *states = session.run(None, feeds)
            feeds.update(zip(names, states, strict=True))
            return y

        def check() -> Arrays:
            feeds.update(dict.fromkeys(names, state))
            return {"y": np.concatenate([run(x[None]) for x in problem.stream_x])}

        return Work(run, check)

    def first(self, problem: Problem) -> Work:
        """Return making a session from a model's bytes, and a run."""
        problem.need("float32")
        model = sequence_model(problem)

        def run() -> Any:
            return self._session(model).run(None, {"x": problem.x})[0]

        return Work(run, sequence_check(run, problem))

    def _session(self, model: bytes) -> Any:
        return onnxruntime.InferenceSession(
            model, self._options, providers=["CPUExecutionProvider"]
        )
