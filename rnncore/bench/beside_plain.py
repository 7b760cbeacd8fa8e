"""One option's row: the layer with it, the same layer plain, the cell written out in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from rnncore.bench.aims import PLAIN, Aims
from rnncore.bench.contest import Contest, Entry
from rnncore.bench.peak_memory import memory_of
from rnncore.bench.peers.interface import Arrays, Peer, Work
from rnncore.bench.peers.ours import NAME, recomputing_step, training_step
from rnncore.bench.variants import SEED, Option, OptionProblem, Variant
from rnncore.layers.recurrent import Recurrent

WRITERS = ("PyTorch",)
"""Peers who have the cells written out."""


def contest(variant: Variant, dtype: str, threads: int, peers: Sequence[Peer]) -> Contest:
    """Return the row's question; of the peers, PyTorch takes part where the variant says so.

    Results are compared in float64: over a hundred steps a clip's jump in slope, or layer norm's
    large gradients, make of two right results in float32 two that differ.
    """
    option, case, with_peers = variant
    problem = OptionProblem(option, case, dtype, threads)
    exact = OptionProblem(option, case, "float64", threads)
    entries = [Entry(NAME, False, partial(_compared, ours, problem, exact))]
    entries.append(Entry(PLAIN, False, partial(plain, problem)))
    if with_peers:
        writers = [peer for peer in peers if peer.name in WRITERS]
        entries += [
            Entry(peer.name, True, partial(_compared, peer.option, problem, exact))
            for peer in writers
        ]
    return Contest(
        str(variant),
        "variants",
        dtype,
        problem.operations,
        0,
        None,
        training_step(exact, exact.layer()),
        entries,
        aims=Aims(option.factor),
        memory=partial(memory_of, case, dtype, threads) if option.recomputes else None,
    )


def _compared(
    make: Callable[[OptionProblem], Work], problem: OptionProblem, exact: OptionProblem
) -> Work:
    """Return a contender's work, whose results are those of `exact`."""
    return replace(make(problem), check=lambda: make(exact).check())


def ours(problem: OptionProblem) -> Work:
    """Return the training step with the option; each run draws masks of its own."""
    layer = problem.layer()
    tape = layer.record(problem.x, recompute=problem.option.recomputes)[2].nbytes

    def check() -> Arrays:
        layer.rng_state = {"seed": SEED, "calls": 0}
        return run()

    def run() -> Arrays:
        return _step(problem, layer)

    return Work(run, check, tape_bytes=tape)


def plain(problem: OptionProblem) -> Work:
    """Return the step without the option, which has nothing to be compared with."""
    case, dtype, threads = problem.case, problem.dtype, problem.threads
    work = ours(OptionProblem(Option("plain"), case, dtype, threads))
    return replace(work, check=lambda: {}, tape_bytes=None)


def _step(problem: OptionProblem, layer: Recurrent) -> Arrays:
    if problem.option.recomputes:
        return recomputing_step(problem, layer)
    return training_step(problem, layer)
