"""What is asked of a recurrence: inference, training, streaming, a first call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rnncore.bench.cases import Case
from rnncore.bench.contest import Contest, Entry
from rnncore.bench.limits import WEIGHT_BYTES
from rnncore.bench.peers.interface import Peer, Problem, Work
from rnncore.bench.peers.ours import NAME, Native, Ours, answer
from rnncore.bench.peers.ours_cuda import OursOnGpu

EQUAL = f"{NAME}, equal lengths"
ONE_THREAD = f"{NAME}, 1 thread"


@dataclass(frozen=True)
class Mode:
    """One way to run a recurrence.

    Parameters
    ----------
    title : str
        What tables call it.
    ask : callable
        What a peer is asked for.
    passes : int
        Forward passes that its arithmetic is worth: backward is two.
    readings : int
        How often it goes through time, reading the recurrent weights once a step.
    limited : bool
        Whether the machine's limit says something about it.
    dtypes : tuple of str
        What weights may be.
    """

    title: str
    ask: Callable[[Peer, Problem], Work]
    passes: int = 1
    readings: int = 1
    limited: bool = True
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16", "int8")


MODES = {
    "inference": Mode("inference, a whole sequence", lambda peer, p: peer.inference(p)),
    "training": Mode(
        "training, forward and backward with all gradients",
        lambda peer, p: peer.training(p),
        passes=3,
        readings=2,
        dtypes=("float32", "float64"),
    ),
    "streaming": Mode("streaming, one step a call", lambda peer, p: peer.streaming(p)),
    "first": Mode(
        "first call, making the session included", lambda peer, p: peer.first(p), limited=False
    ),
}


def fits(case: Case, mode: str, dtype: str, device: str = "cpu") -> bool:
    """Return whether a case can be run in a mode; of a GPU ``gpu.check`` says it."""
    if device == "cuda":
        return True
    return dtype in MODES[mode].dtypes and (mode != "streaming" or case.directions == 1)


def contest(
    case: Case,
    mode: str,
    dtype: str,
    threads: int,
    peers: Sequence[Peer],
    scaling: bool = False,
    device: str = "cpu",
) -> Contest:
    """Return the row's question.

    Parameters
    ----------
    case : Case
        The shapes; a stream has one row for each of its N.
    mode, dtype : str
        A key of ``MODES``, and how weights are held.
    threads : int
        Of everyone.
    peers : sequence of Peer
        Whom the engine is compared with.
    scaling : bool
        Compare the engine with itself on one thread.
    device : {"cpu", "cuda"}
        Where everyone runs. On a GPU there is no limit to compare with, and what is expected comes
        from the CPU in float32 or float64.
    """
    asked, streaming = MODES[mode], mode == "streaming"
    problem = Problem(case.equal if streaming else case, dtype, threads)
    on_gpu = device == "cuda"
    ours: list[Peer] = [OursOnGpu() if on_gpu else Ours()]
    if streaming:
        ours.append(Native())
    if scaling:
        ours.append(Ours(ONE_THREAD, threads=1))
    if problem.case.ragged and mode in ("inference", "training"):
        ours.append(OursOnGpu(EQUAL, equal=True) if on_gpu else Ours(EQUAL, equal=True))

    def entry(peer: Peer, compared: bool) -> Entry:
        return Entry(peer.name, compared, lambda: asked.ask(peer, problem))

    tokens = case.N if streaming else problem.case.tokens
    operations = 2 * asked.passes * tokens * case.weights
    array, read = weights_read(case, mode)
    itemsize = WEIGHT_BYTES[dtype]
    limited = asked.limited and not on_gpu
    return Contest(
        str(problem.case),
        mode,
        dtype,
        operations,
        array * itemsize,
        operations / (read * itemsize) if limited else None,
        answer(problem, mode),
        [entry(peer, False) for peer in ours] + [entry(peer, True) for peer in peers],
        problem.case.tokens / (case.N * case.T),
    )


def weights_read(case: Case, mode: str) -> tuple[int, int]:
    """Return how many weights are gone through again and again, and how many are read in all.

    A stream needs all of them for its one step. A sequence reads a layer's recurrent weights in
    every step, since the next one waits for them; the others can be read once for all steps.
    """
    if mode == "streaming":
        return case.weights, case.weights
    recurrent = case.layers * case.recurrent_weights
    once = case.weights - recurrent
    return case.recurrent_weights, MODES[mode].readings * (case.T * recurrent + once)
