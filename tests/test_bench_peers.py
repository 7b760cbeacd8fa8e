"""The benchmark's peers: each computes what the engine does, or says why not."""

from __future__ import annotations

import time

import pytest

from rnncore.bench import modes, peers
from rnncore.bench.cases import Case
from rnncore.bench.contest import disagreement
from rnncore.bench.peers.interface import Problem, Refused
from rnncore.bench.peers.ours import answer

CASES = [
    Case("LSTM", 6, 4, 3, 5, layers=2, lengths="quarter"),
    Case("RNN", 6, 4, 3, 5, layers=2, directions=2),
    Case("LSTM", 6, 4, 3, 5, layers=2, directions=2),
    Case("GRU", 6, 4, 3, 5, layers=2, directions=2),
    Case("RNN", 6, 4, 3, 5),
    Case("GRU", 6, 4, 3, 5),
]
STREAMED = {Case("RNN", 6, 4, 3, 5), Case("GRU", 6, 4, 3, 5)}  # what the rest covers otherwise


@pytest.fixture(scope="module")
def everyone() -> dict[str, peers.Peer]:
    """All that are installed, but for the one that takes seconds to compile."""
    names = [name for name in peers.available("cpu") if name != "compile"]
    return {name: peers.make(name, "cpu", 1) for name in names}


@pytest.mark.parametrize("name", [name for name in peers.PEERS["cpu"] if name != "compile"])
@pytest.mark.parametrize("mode", modes.MODES)
def test_every_peer_computes_what_we_do(
    name: str, mode: str, everyone: dict[str, peers.Peer]
) -> None:
    if name not in everyone:
        pytest.skip(f"{name} is not installed")
    ran = 0
    for case in CASES:
        if not modes.fits(case, mode, "float32") or (case in STREAMED and mode != "streaming"):
            continue
        if ran and mode == "first":
            break  # the same as inference, and slow where it compiles
        problem = Problem(case.equal if mode == "streaming" else case, "float32", 2)
        try:
            work = modes.MODES[mode].ask(everyone[name], problem)
        except Refused:
            continue
        got, expected = work.check(), answer(problem, mode)
        assert set(got) == set(expected)
        assert not disagreement(got, expected, 1e-5)
        work.run()  # what was checked can be run again, to the same result
        assert not disagreement(work.check(), expected, 1e-5)
        ran += 1
    assert ran or (name, mode) in {
        ("onnxruntime", "training"), ("openvino", "training"), ("numpy", "first")
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["inference", "training", "first"])
def test_padded_rows_backwards_are_refused(mode: str, everyone: dict[str, peers.Peer]) -> None:
    problem = Problem(Case("GRU", 6, 4, 3, 5, 1, 2, "half"), "float32", 2)
    with pytest.raises(Refused, match=r"padded|no session"):
        modes.MODES[mode].ask(everyone["numpy"], problem)


def test_a_compiled_peer_leaves_out_what_would_take_minutes() -> None:
    pytest.importorskip("torch")
    compiled = peers.make("compile", "cpu", 2)
    with pytest.raises(Refused, match="unrolls more"):
        compiled.inference(Problem(Case("GRU", 2000, 1, 2, 3), "float32", 2))
    with pytest.raises(Refused, match="unrolls more"):
        compiled.training(Problem(Case("LSTM", 33, 1, 2, 3, layers=2), "float32", 2))


def test_a_deadline_stops_what_runs_over_it() -> None:
    pytest.importorskip("torch")
    from rnncore.bench.peers.torch_compile import deadline

    started = time.perf_counter()

    def forever() -> None:
        with deadline(0.05):
            while True:
                pass

    with pytest.raises(Refused, match="longer than"):
        forever()
    assert time.perf_counter() - started < 5
