"""PyTorch through ``torch.compile``.

By default Dynamo breaks the graph at an RNN, LSTM or GRU, and the eager kernels run as they would
without it; there is nothing to measure then. With ``allow_rnn`` an LSTM's inference becomes one
call of oneDNN's layer, whose weights ``freezing`` packs once; everything else is unrolled over
time, which takes about a second of compiling for each step. So few steps are tried, within a
deadline, and the rest is left out with a word in the row.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from rnncore.bench.peers import pytorch
from rnncore.bench.peers.interface import Arrays, Peer, Problem, Refused, Work

UNROLLED_STEPS = 32
DEADLINE = 40.0
"""Seconds that compiling one problem may take."""


class Compiled(Peer):
    """Modules compiled, where that ends in time."""

    name = "torch.compile"
    version: str = torch.__version__

    def __init__(self, threads: int) -> None:
        """Let PyTorch compile in this process alone: no helpers beside what is timed."""
        import torch._dynamo
        import torch._inductor.config

        torch.set_num_threads(threads)
        torch._inductor.config.compile_threads = 1
        torch._dynamo.config.allow_rnn = True

    def inference(self, problem: Problem) -> Work:
        """Return a call of the compiled module, its weights constants."""
        problem.need("float32", "float64", "bfloat16")
        fused = problem.case.cell == "LSTM" and problem.dtype != "float64"
        self._must_end(problem, 1 if fused else problem.case.T)
        module = compiled(pytorch.frozen(problem), freezing=True)
        x = pytorch.inputs(problem)
        return finished(pytorch.inference_work(lambda: module(x)[0]))

    def training(self, problem: Problem) -> Work:
        """Return forward and backward through the compiled module."""
        problem.need("float32", "float64")
        self._must_end(problem, problem.case.T)
        module = compiled(pytorch.module_of(problem), freezing=False)
        return finished(pytorch.training_work(problem, module))

    def streaming(self, problem: Problem) -> Work:
        """Return a compiled step through the layers' cells."""
        problem.need("float32", "float64")
        step = compiled(pytorch.cells_step(problem), freezing=True)
        shape = (problem.case.N, problem.case.H)
        x_t = torch.from_numpy(problem.x[0].copy())
        kept: list[Any] = [None]

        def start() -> list[Any]:
            zeros = torch.zeros(shape, dtype=x_t.dtype)
            state = (zeros, zeros) if problem.case.cell == "LSTM" else zeros
            return [state] * problem.case.layers

        def run(x: Any = x_t) -> Any:
            with torch.inference_mode():
                y, kept[0] = step(x, kept[0])
            return y

        def check() -> Arrays:
            kept[0] = start()
            return {"y": pytorch.np_array(torch.stack([run(x) for x in steps]))}

        steps = torch.from_numpy(problem.stream_x)
        return finished(Work(run, check))

    def first(self, problem: Problem) -> Work:
        """Refuse: it would be the time of a compiler."""
        raise Refused("compiling takes seconds")

    def _must_end(self, problem: Problem, steps: int) -> None:
        if problem.case.ragged:
            raise Refused("packed sequences are not compiled")
        if steps * problem.case.layers * problem.case.directions > UNROLLED_STEPS:
            raise Refused(f"unrolls more than {UNROLLED_STEPS} steps, a second of compiling each")


def compiled(function: Any, freezing: bool) -> Any:
    """Return what ``torch.compile`` makes of a module or a function."""
    torch._dynamo.reset()
    options = {"freezing": freezing}
    return torch.compile(function, options=options)


def finished(work: Work) -> Work:
    """Let the compiler do its part now, within the deadline."""
    with deadline(DEADLINE):
        work.check()
    return work


class Late(BaseException):
    """A deadline has passed; no handler of ordinary errors on the way may keep it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Refuse what takes longer; only the main thread can be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Late:
        raise Refused(f"compiling takes longer than {seconds:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
