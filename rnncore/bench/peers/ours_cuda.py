"""The engine on a GPU: everything it reads and writes lies there before it is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import rnncore as rc
from rnncore import devices
from rnncore.bench import gpu
from rnncore.bench.peers.interface import Arrays, Peer, Problem, Work
from rnncore.bench.peers.ours import NAME, layer_of
from rnncore.checks import Array


class OursOnGpu(Peer):
    """The engine, or under a name of its own the engine in other circumstances.

    Parameters
    ----------
    name : str
        What rows call it.
    equal : bool
        Run rows of equal length where the problem's are ragged; nothing to compare then.
    """

    version = rc.__version__

    def __init__(self, name: str = NAME, equal: bool = False) -> None:
        self.name, self._equal = name, equal

    def inference(self, problem: Problem) -> Work:
        """Return a frozen engine's call into an array that is there already."""
        layer = layer_of(problem, "cuda", problem.dtype)
        engine, dtype = layer.freeze(), dtype_of(problem)
        x, lengths = up(problem.x, dtype), self._lengths(problem)
        shape = problem.case.T, problem.case.N, engine.output_size
        out = devices.get("cuda").empty(shape, dtype)

        def run() -> dict[str, Any]:
            engine(x, lengths=lengths, out=out)
            return {"y": out}

        return self._work(run)

    def training(self, problem: Problem) -> Work:
        """Return a step of a layer, whose weights are packed anew every time."""
        layer = layer_of(problem, "cuda", problem.dtype)
        lengths, dtype = self._lengths(problem), dtype_of(problem)
        x, dy = up(problem.x, dtype), up(problem.dy, dtype)

        def run() -> dict[str, Any]:
            layer.zero_grad()
            y, _ = layer.forward(x, lengths=lengths)
            dx, _ = layer.backward(dy)
            return {"y": y, "dx": dx, **layer.grads}

        return self._work(run, layer.record(x, lengths=lengths)[2].nbytes)

    def _lengths(self, problem: Problem) -> Array | None:
        return None if self._equal else problem.lengths

    def _work(self, run: Callable[[], dict[str, Any]], tape: int | None = None) -> Work:
        def check() -> Arrays:
            return {} if self._equal else {name: down(array) for name, array in run().items()}

        return gpu.until_done(Work(run, check, tape_bytes=tape), gpu.wait)


def dtype_of(problem: Problem) -> np.dtype[Any]:
    """Return the type of sequences, which on a GPU is that which weights are asked for in."""
    return problem.case.spec(problem.dtype).numpy_dtype


def up(array: Array, dtype: np.dtype[Any]) -> Any:
    """Return a copy on the GPU in a type of its own."""
    return devices.get("cuda").xp.asarray(array.astype(dtype))


def down(array: Any) -> Array:
    """Return a copy in host memory, 16-bit numbers as float32."""
    copied: Array = array.get()
    return copied.astype(np.float32) if copied.itemsize == 2 else copied
