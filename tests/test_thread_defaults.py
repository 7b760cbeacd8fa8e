"""How many threads a call uses when nobody says: affinity, quotas and the environment."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import rnncore as rc
from rnncore import _rnncore

threads = sys.modules["rnncore.threads"]


def cgroup(monkeypatch, root: Path, lines: str, files: dict[str, str]) -> None:
    """Put a cgroup of our own in the place of the machine's."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    proc = root / "proc-self-cgroup"
    proc.write_text(lines)
    monkeypatch.setattr(threads, "_CGROUP", root)
    monkeypatch.setattr(threads, "_PROC", proc)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("150000 100000", 1), ("350000 100000", 3), ("50000 100000", 1), ("?", 8)],
)
def test_a_quota_counts_whole_cpus_rounded_down(monkeypatch, tmp_path, quota, expected) -> None:
    cgroup(monkeypatch, tmp_path, "0::/a/b\n", {"a/b/cpu.max": quota})
    assert threads.default_num_threads() == expected


def test_the_smallest_quota_on_the_way_up_counts(monkeypatch, tmp_path) -> None:
    files = {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}
    cgroup(monkeypatch, tmp_path, "0::/a/b\n", files)
    assert threads.default_num_threads() == 2


def test_the_first_version_of_cgroups_is_read_too(monkeypatch, tmp_path) -> None:
    files = {"cpu/a/cpu.cfs_quota_us": "400000", "cpu/a/cpu.cfs_period_us": "100000"}
    cgroup(monkeypatch, tmp_path, "5:cpu,cpuacct:/a\n4:memory:/a\n", files)
    assert threads.default_num_threads() == 4
    (tmp_path / "cpu/a/cpu.cfs_quota_us").write_text("-1")
    assert threads.default_num_threads() == 8


def test_affinity_counts(monkeypatch, tmp_path) -> None:
    cgroup(monkeypatch, tmp_path, "0::/\n", {"cpu.max": "max 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert threads.default_num_threads() == 1


def test_a_block_with_other_threads_ends_with_the_block_and_stays_in_its_thread() -> None:
    before = rc.get_num_threads()
    seen = []
    with rc.threads(before + 3):
        assert rc.get_num_threads() == before + 3
        with rc.threads(1):
            assert rc.get_num_threads() == 1
        assert rc.get_num_threads() == before + 3
        other = threading.Thread(target=lambda: seen.append(rc.get_num_threads()))
        other.start()
        other.join()
    assert seen == [before]
    with pytest.raises(KeyError), rc.threads(before + 1):
        raise KeyError
    assert rc.get_num_threads() == before


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the number of threads, and give it back to Python and the core afterwards."""
    before = rc.get_num_threads()
    monkeypatch.setattr(threads, "_process_wide", None)
    monkeypatch.setattr(threads, "_source", "default")
    yield
    _rnncore.set_num_threads(before)


@pytest.mark.usefixtures("nothing_set")
def test_a_number_that_was_set_holds_everywhere_up_to_the_cap() -> None:
    rc.set_num_threads(3)
    assert (rc.get_num_threads(), threads.source()) == (3, "set_num_threads")
    rc.set_num_threads(10**6)
    assert rc.get_num_threads() == threads.MAX_THREADS
    with pytest.raises(ValueError, match="n: expected an integer of at least 1, got 0"):
        rc.threads(0).__enter__()
    assert rc.get_num_threads() == threads.MAX_THREADS


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("text", ["many", "-2", "0", "1.5"])
def test_garbage_in_the_environment_is_told_once_and_ignored(monkeypatch, text: str) -> None:
    monkeypatch.setenv("RNNCORE_NUM_THREADS", text)
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    with pytest.warns(RuntimeWarning, match="RNNCORE_NUM_THREADS: expected a positive") as seen:
        assert [rc.get_num_threads(), rc.get_num_threads()] == [5, 5]
    assert len(seen) == 1
    assert threads.source() == "OMP_NUM_THREADS"
