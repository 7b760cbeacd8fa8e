"""The benchmark of the options: what is compared, what is aimed at, what memory is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rnncore.bench import beside_plain, measure, peak_memory, peers, variants
from rnncore.bench.aims import PLAIN, Aims
from rnncore.bench.cases import CELLS, Case
from rnncore.bench.contest import disagreement, hold
from rnncore.bench.peak_memory import Memory, Peak, memory_of
from rnncore.bench.peers.ours import NAME, training_step
from rnncore.bench.results import Contender, Row, behind_first
from rnncore.bench.table import tables
from rnncore.bench.variants import Option, OptionProblem, Shape, Variant
from rnncore.cli import main

SIZES = (7, 4, 5, 6)
EACH = [(cell, option) for cell in CELLS for option in variants.options(cell, 6)]
# What acts at one place of a cell together, so that one could spoil the other.
TOGETHER = [
    ("LSTM", {"layer_norm": True, "coupled": True, "peephole": True, "proj_size": 3, "clip": 1.0}),
    ("LSTM", {"recurrent_dropout": 0.3, "proj_size": 4, "zoneout": (0.3, 0.2)}),
    ("GRU", {"layer_norm": True, "reset_after": False, "recurrent_dropout": 0.3, "zoneout": 0.2}),
    ("RNN", {"layer_norm": True, "dropout": 0.3, "variational": True, "clip": 1.0}),
]


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnncore.bench.measure.MOST_PAUSES", 1)
    monkeypatch.setattr("rnncore.bench.measure.WARM", 1e-4)


@pytest.fixture(scope="module")
def eager() -> peers.Peer:
    pytest.importorskip("torch", reason="the cells are written out in PyTorch")
    return peers.make("torch", "cpu", 1)


def problem_of(cell: str, option: Option) -> OptionProblem:
    return OptionProblem(option, Case(cell, *SIZES), "float64", 1)


def row_of(name: str, aims: Aims, plain: float, peer: float, memory: Memory | None = None) -> Row:
    times = {NAME: 1.0, PLAIN: plain, "PyTorch": peer}
    contenders = tuple(
        Contender(who, who == "PyTorch", measure.Times(seconds, 0.1, seconds, 5, 1))
        for who, seconds in times.items()
    )
    return Row(name, "variants", "float32", 1e6, None, 8, 1.0, contenders, aims, memory)


# --- what is compared -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "option"), EACH, ids=[f"{cell} {option.name}" for cell, option in EACH]
)
def test_the_cell_written_out_computes_what_the_option_does(cell, option, eager) -> None:
    problem = problem_of(cell, option)
    expected = training_step(problem, problem.layer())
    for work in (eager.option(problem), beside_plain.ours(problem)):
        for _ in range(2):  # what was checked can be run again, to the same result
            got = work.check()
            assert set(got) == set(expected)
            assert not disagreement(got, expected, 1e-10)
            work.run()


@pytest.mark.parametrize(("cell", "arguments"), TOGETHER)
def test_options_together_are_written_out_too(cell, arguments, eager) -> None:
    problem = problem_of(cell, Option("together", arguments))
    expected = training_step(problem, problem.layer())
    assert not disagreement(eager.option(problem).check(), expected, 1e-10)


@pytest.mark.parametrize(
    ("cell", "option"),
    [(cell, option) for cell, option in EACH if not (option.recomputes or "/2" in option.name)],
    ids=str,
)
def test_an_option_that_did_nothing_would_show(cell: str, option: Option) -> None:
    problem, plain = problem_of(cell, option), problem_of(cell, Option("plain"))
    with_it = training_step(problem, problem.layer())["y"]
    assert np.abs(with_it - training_step(plain, plain.layer())["y"]).max() > 1e-3


@pytest.mark.parametrize("name", ["zoneout", "recurrent dropout", "variational dropout"])
def test_each_run_draws_masks_of_its_own(name: str, eager) -> None:
    option = next(one for one in variants.options("LSTM", 6) if one.name == name)
    problem = problem_of("LSTM", option)
    for run in (eager.option(problem).run, beside_plain.ours(problem).run):
        first, second = run(), run()
        first, second = (r["y"] if isinstance(r, dict) else r.detach() for r in (first, second))
        assert np.abs(np.asarray(first) - np.asarray(second)).max() > 1e-3


def test_peers_take_part_where_the_variant_says_so(eager) -> None:
    option = Option("clip", {"clip": 1.0})
    numpy = peers.make("numpy", "cpu", 1)
    for with_peers in (True, False):
        variant = Variant(option, Case("GRU", *SIZES), with_peers)
        row = hold(beside_plain.contest(variant, "float32", 1, [numpy, eager]), 1, 0.001)
        assert [one.name for one in row.contenders] == [NAME, PLAIN] + ["PyTorch"] * with_peers
        assert [one.problem for one in row.contenders] == [""] * (2 + with_peers)


# --- what is aimed at -----------------------------------------------------------------------------


def test_every_option_has_the_factor_that_was_agreed() -> None:
    slow = {"layer norm", "reset before", "Softsign", "HardSigmoid Softsign"}
    slow |= {"HardSigmoid Softsign Elu"}
    for _, option in EACH:
        expected = 1.6 if option.name in slow else 1.4 if option.recomputes else 1.15
        assert option.factor == expected, option.name


def test_missed_aims_are_named_and_come_first() -> None:
    little = Memory(Peak(80, 100), Peak(20, 70))
    rows = [
        row_of("fine", Aims(1.15), plain=1.0, peer=6.0),
        row_of("heavy", Aims(1.4), plain=1.0, peer=6.0, memory=little),
        row_of("late", Aims(1.15), plain=0.8, peer=6.0),
        row_of("beaten", Aims(1.6), plain=0.8, peer=2.0),
    ]
    placed = behind_first(rows)
    assert [row.case for row in placed] == ["beaten", "heavy", "late", "fine"]
    assert [row.missed for row in placed] == [["peer"], ["memory"], ["time"], []]
    assert placed[2].factor == pytest.approx(1.25)
    lines = tables(rows).splitlines()
    assert lines[1].split()[-1] == "missed"
    assert lines[2].split()[-1] == "peer"
    assert "  heavy: peak 0.0 of 0.0 MB, tape 0.0 of 0.0 MB; saves 30%, to be 60%" in lines
    assert not any("takes" in line for line in lines)  # what has a column is not said again
    nobody = replace(rows[0], contenders=rows[0].contenders[1:])
    assert behind_first([*rows, nobody])[0] is nobody


# --- memory ---------------------------------------------------------------------------------------

keeps_records = pytest.mark.skipif(
    not (peak_memory.PROCESS / "clear_refs").exists(), reason="no record of peak memory"
)


@keeps_records
def test_peak_memory_is_tape_and_scratch_and_recompute_saves_of_it() -> None:
    memory = memory_of(Case("LSTM", 600, 16, 32, 64), "float32", 1)
    values = 600 * 16 * 64 * 4
    assert memory.recomputed.tape_bytes < 1.2 * values
    assert 5 * values <= memory.plain.tape_bytes < 6 * values
    for peak in (memory.plain, memory.recomputed):
        assert peak.tape_bytes < peak.peak_bytes < peak.tape_bytes + 20e6
    assert 0.1 < memory.saved < 1


@keeps_records
def test_a_process_that_fails_is_an_error_with_its_words() -> None:
    with pytest.raises(OSError, match=r"peak memory of CNN .* no attribute 'CNN'"):
        memory_of(Case("CNN", 2, 2, 2, 2), "float32", 1)


def test_without_a_record_no_memory_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(peak_memory, "PROCESS", tmp_path)
    assert memory_of(Case("GRU", 2, 2, 2, 2), "float32", 1) is None


# --- the command ----------------------------------------------------------------------------------


def bench(folder: Path, *arguments: str) -> int:
    quick = ["--seconds", "0.001", "--threads", "1", "--out", str(folder)]
    return main(["bench", *quick, "--modes", "variants", "--against", "numpy", *arguments])


def test_a_run_shows_and_writes_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(variants, "CELLS", ("GRU",))
    shapes = (Shape(4, 3, 5, 6, peers=True), Shape(5, 3, 5, 6, peers=False, all_options=False))
    monkeypatch.setattr(variants, "SHAPES", shapes)
    memory = Memory(Peak(80_000_000, 100_000_000), Peak(0, 30_000_000))
    monkeypatch.setattr(beside_plain, "memory_of", lambda case, dtype, threads: memory)
    assert bench(tmp_path) == 0
    out = capsys.readouterr().out
    assert variants.TITLE in out
    for text in ("plain", "of plain", "allowed", "missed", "peak 30.0 of 100.0 MB"):
        assert text in out
    result = json.loads((tmp_path / "cpu-variants.json").read_text())
    rows = {row["case"]: row for row in result["rows"]}
    names = [option.name for option in variants.options("GRU", 6)]
    expected = {f"GRU T=4 N=3 D=5 H=6, {name}" for name in names}
    assert set(rows) == expected | {"GRU T=5 N=3 D=5 H=6, recompute"}
    for row in rows.values():
        times = {name: row["contenders"][name]["times"]["median_s"] for name in (NAME, PLAIN)}
        factor = times[NAME] / times[PLAIN]
        assert row["relative"] == {PLAIN: pytest.approx(factor)}
        assert row["missed"] == (["time"] if factor > row["aims"]["factor"] else [])
        assert row["limit"] is None
        assert row["memory"] is None or row["memory"]["saved"] == pytest.approx(0.7)
    missed = [bool(row["missed"]) for row in result["rows"]]
    assert missed == sorted(missed, reverse=True)


def test_reduced_weights_have_no_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert bench(tmp_path, "--dtype", "int8") == 1
    assert "nothing to run in variants with int8" in capsys.readouterr().err
