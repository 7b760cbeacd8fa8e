"""The engine itself, and the engine in other circumstances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import rnncore as rc
from rnncore import _rnncore
from rnncore.bench.peers.interface import Arrays, Peer, Problem, Refused, Work
from rnncore.frozen import Frozen
from rnncore.layers.base import Layer

NAME = "rnncore"
NATIVE_STEPS = 200


def layer_of(problem: Problem, device: str = "cpu", dtype: str | None = None) -> Layer:
    """Return the layer with the problem's weights, of the problem's number or another dtype."""
    case = problem.case
    kind = {"RNN": rc.RNN, "LSTM": rc.LSTM, "GRU": rc.GRU}[case.cell]
    layer: Layer = kind(
        case.D,
        case.H,
        case.layers,
        bidirectional=case.directions == 2,
        dtype=dtype or problem.number,
        device=device,
    )
    layer.load_state_dict(problem.weights)
    return layer


def frozen(problem: Problem, layer: Layer | None = None) -> Frozen:
    """Return the engine of the problem's dtype."""
    return (layer or layer_of(problem)).freeze(problem.dtype)


def training_step(problem: Problem, layer: Layer) -> Arrays:
    """Run forward and backward and return y, dx and the gradients."""
    layer.zero_grad()
    y, _ = layer.forward(problem.x, lengths=problem.lengths, resets=problem.resets)
    dx, _ = layer.backward(problem.dy)
    assert dx is not None
    return {"y": y, "dx": dx, **layer.grads}


def recomputing_step(problem: Problem, layer: Layer) -> Arrays:
    """Return the same by way of a tape that keeps states alone."""
    layer.zero_grad()
    y, _, tape = layer.record(
        problem.x, lengths=problem.lengths, resets=problem.resets, recompute=True
    )
    dx, _ = layer.backward(problem.dy, tape=tape)
    assert dx is not None
    return {"y": y, "dx": dx, **layer.grads}


def answer(problem: Problem, mode: str) -> Arrays:
    """Return what everyone is compared with: the layer's own results in the problem's number."""
    layer = layer_of(problem)
    if mode == "training":
        return training_step(problem, layer)
    if mode == "streaming":
        return {"y": layer(problem.stream_x)[0]}
    return {"y": layer(problem.x, lengths=problem.lengths)[0]}


class Ours(Peer):
    """The engine, or under a name of its own the engine in other circumstances.

    Parameters
    ----------
    name : str
        What rows call it.
    threads : int, optional
        Another number of threads than everyone else's.
    equal : bool
        Run rows of equal length where the problem's are ragged; nothing to compare then.
    """

    version = rc.__version__

    def __init__(self, name: str = NAME, threads: int | None = None, equal: bool = False) -> None:
        self.name, self._threads, self._equal = name, threads, equal

    def inference(self, problem: Problem) -> Work:
        """Return a frozen engine's call into an array that is there already."""
        engine = frozen(problem)
        out = np.empty((problem.case.T, problem.case.N, engine.output_size), problem.number)
        lengths = None if self._equal else problem.lengths

        def run() -> Arrays:
            engine(problem.x, lengths=lengths, out=out)
            return {"y": out}

        return self._work(run)

    def training(self, problem: Problem) -> Work:
        """Return a step of a layer, whose weights are packed anew every time."""
        problem.need("float32", "float64")
        layer = layer_of(problem)
        if self._equal:
            problem = Problem(problem.case.equal, problem.dtype, problem.threads)
        tape = layer.record(problem.x, lengths=problem.lengths)[2].nbytes
        return self._work(lambda: training_step(problem, layer), tape)

    def streaming(self, problem: Problem) -> Work:
        """Return a stream's step into an array that is there already."""
        stream = frozen(problem).stream(problem.case.N)
        x_t = problem.x[0].copy()
        out = np.empty((problem.case.N, problem.spec.features), problem.number)

        def check() -> Arrays:
            stream.reset()
            return {"y": np.stack([stream.step(x) for x in problem.stream_x])}

        return Work(lambda: stream.step(x_t, out), check)

    def first(self, problem: Problem) -> Work:
        """Return freezing a layer, packing included, and a call."""
        layer = layer_of(problem)

        def run() -> Arrays:
            return {"y": frozen(problem, layer)(problem.x, lengths=problem.lengths)[0]}

        return Work(run, run)

    def _work(self, run: Callable[[], Arrays], tape: int | None = None) -> Work:
        if self._threads is not None:
            run = rc.threads(self._threads)(run)
        return Work(run, (lambda: {}) if self._equal else run, tape_bytes=tape)


class Native(Peer):
    """The engine's stream called from C++: what Python's own cost a step is seen against."""

    name = f"{NAME} from C++"
    version = rc.__version__

    def streaming(self, problem: Problem) -> Work:
        """Return a step that the compiled module itself times; it gives no output to compare."""
        if not hasattr(_rnncore._limits, "stream_seconds"):
            raise Refused("this build has no clock for it")
        packed = frozen(problem)._layer._packed.get().weights  # type: ignore[attr-defined]
        rows = problem.case.N

        def clock() -> float:
            before = _rnncore.get_num_threads()
            _rnncore.set_num_threads(problem.threads)
            try:
                return float(_rnncore._limits.stream_seconds(packed, rows, NATIVE_STEPS))
            finally:
                _rnncore.set_num_threads(before)

        return Work(clock, lambda: {}, clock=clock)
