"""OpenVINO: the same ONNX model, compiled for latency with static shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Work, sequence_check
from rnncore.bench.peers.onnx_model import sequence_model, step_model
from rnncore.checks import Array

PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino(Peer):
    """Infer requests whose inputs and outputs are shared, not copied."""

    name = "OpenVINO"
    version: str = openvino.__version__.split("-")[0]

    def __init__(self, threads: int) -> None:
        self._core = openvino.Core()
        self._threads = threads

    def inference(self, problem: Problem) -> Work:
        """Return an infer request's call."""
        problem.need(*PRECISION)
        note = problem.padded_note
        request = self._request(self._model(problem), problem)

        def run() -> Any:
            return request.infer([problem.x], share_inputs=True, share_outputs=True)[0]

        return Work(run, sequence_check(run, problem), note)

    def streaming(self, problem: Problem) -> Work:
        """Return a call of one step, states handed back in."""
        problem.need(*PRECISION)
        request = self._request(step_model(problem), problem)
        case = problem.case
        count = case.layers * (2 if case.cell == "LSTM" else 1)
        zeros = np.zeros((1, case.N, case.H), problem.number)
        states: list[Array] = []

        def run(x: Any = problem.x[:1]) -> Any:
            results = request.infer([x, *states], share_inputs=True)
            states[:] = [results[1 + i] for i in range(count)]
            return results[0]

        def check() -> Arrays:
            states[:] = [zeros] * count
            return {"y": np.concatenate([run(x[None]) for x in problem.stream_x])}

        return Work(run, check)

    def first(self, problem: Problem) -> Work:
        """Return reading and compiling a model's bytes, and a call."""
        problem.need(*PRECISION)
        note, model = problem.padded_note, self._model(problem)

        def run() -> Any:
            return self._request(model, problem).infer([problem.x], share_inputs=True)[0]

        return Work(run, sequence_check(run, problem), note)

    def _model(self, problem: Problem) -> bytes:
        """Return the model without lengths: with them the plugin leaves its fused layers."""
        return sequence_model(Problem(problem.case.equal, problem.dtype, problem.threads))

    def _request(self, model: bytes, problem: Problem) -> Any:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": PRECISION[problem.dtype],
            "NUM_STREAMS": 1,
        }
        network = self._core.read_model(model)
        return self._core.compile_model(network, "CPU", settings).create_infer_request()
