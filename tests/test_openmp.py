"""Calls on threads that a host's OpenMP runtime lends. What could hang has a process of its own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes.util import find_library

import pytest
from cases import Case, assert_same_bits, draw
from engine import train
from processes import output_of

import rnncore as rc
from rnncore import _rnncore, openmp

RUNTIME = find_library("gomp")
needs_runtime = pytest.mark.skipif(RUNTIME is None, reason="no OpenMP runtime of GCC's")
PRIMES = {"T": 11, "N": 13, "D": 37, "H": 151, "layers": 2, "bidirectional": True}
CASE = f"""
from cases import Case
from rnncore import openmp
case = Case(**{PRIMES})
"""
LEND = f"""
assert openmp.borrow({RUNTIME!r})
"""


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    yield
    openmp.give_back()


class Runtime:
    """A runtime that counts its regions, and may refuse threads or be inside a region already."""

    def __init__(self, threads: int, *, in_parallel: bool = False, dynamic: bool = False) -> None:
        self.regions = 0
        body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        parallel = ctypes.CFUNCTYPE(
            None, body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
        )(self.parallel)  # fmt: skip
        number = ctypes.CFUNCTYPE(ctypes.c_int)
        said = {"thread_num": 0, "num_threads": threads, "max_threads": threads}
        said |= {"in_parallel": int(in_parallel), "dynamic": int(dynamic)}
        self.functions = {"parallel": parallel} | {
            name: number(lambda value=value: value) for name, value in said.items()
        }

    def parallel(self, body: object, context: int, threads: int, flags: int) -> None:
        self.regions += 1
        body(context)

    def lend(self) -> None:
        addresses = {
            name: ctypes.cast(function, ctypes.c_void_p).value
            for name, function in self.functions.items()
        }
        _rnncore.borrow_threads(**addresses)


@needs_runtime
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_lent_threads_give_the_same_bits(cell: str) -> None:
    case = Case(cell=cell, ragged=True, **PRIMES)
    problem = draw(case)
    expected = train(case, problem)
    assert openmp.borrow(RUNTIME)
    for threads in (1, 2, 3, 8):
        with rc.threads(threads):
            assert_same_bits(train(case, problem), expected)


@needs_runtime
def test_the_engine_starts_no_threads_beside_lent_ones() -> None:
    output = output_of(
        CASE
        + LEND
        + """
expected = train(case, 1)
assert train(case, 3) == expected
print(_rnncore._debug.team_threads(), len(os.listdir("/proc/self/task")))
openmp.give_back()
assert train(case, 3) == expected
print(_rnncore._debug.team_threads())
""",
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert output.split() == ["0", "3", "2"]


@needs_runtime
def test_a_forked_child_has_threads_of_its_own() -> None:
    output = output_of(
        CASE
        + LEND
        + """
expected = train(case, 3)
child = os.fork()
if not child:
    signal.alarm(20)
    same = train(case, 3) == expected
    os._exit(0 if same and _rnncore._debug.team_threads() == 2 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), train(case, 3) == expected)
"""
    )
    assert output.split() == ["0", "True"]


@needs_runtime
def test_a_failed_allocation_on_lent_threads_is_an_error_and_no_more() -> None:
    case = Case(**PRIMES)
    problem = draw(case)
    expected = train(case, problem)
    assert openmp.borrow(RUNTIME)
    failed = 0
    for allocation in range(200):
        _rnncore._debug.clear_kept_memory()
        _rnncore._debug.fail_after(allocation)
        try:
            with rc.threads(3):
                train(case, problem)
        except MemoryError:
            failed += 1
        else:
            break
        finally:
            _rnncore._debug.fail_after(-1)
    assert 0 < failed < 199
    with rc.threads(3):
        assert_same_bits(train(case, problem), expected)


@needs_runtime
def test_ctrl_c_stops_a_call_on_lent_threads() -> None:
    output = output_of(
        CASE
        + LEND
        + """
layer = rc.LSTM(256, 256, seed=0)
x = np.zeros((60000, 8, 256), "f4")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with rc.threads(2):
        layer.forward(x)
    print("finished")
except KeyboardInterrupt:
    print("stopped")
"""
    )
    assert output == "stopped"


def test_a_runtime_that_gives_fewer_threads_is_not_relied_on() -> None:
    case = Case(**PRIMES)
    problem = draw(case)
    expected = train(case, problem)
    runtime = Runtime(1)
    runtime.lend()
    with rc.threads(3):
        assert_same_bits(train(case, problem), expected)
    assert runtime.regions > 0


@pytest.mark.parametrize("state", ["in_parallel", "dynamic"])
def test_no_region_is_opened_where_its_threads_are_not_certain(state: str) -> None:
    case = Case(**PRIMES)
    problem = draw(case)
    expected = train(case, problem)
    runtime = Runtime(3, **{state: True})
    runtime.lend()
    with rc.threads(3):
        assert_same_bits(train(case, problem), expected)
    assert runtime.regions == 0


def test_a_library_without_openmp_lends_nothing() -> None:
    assert not openmp.borrow(_rnncore.__file__)
    with pytest.raises(OSError, match=r"no_such_library\.so"):
        openmp.borrow("no_such_library.so")


def test_pytorch_lends_its_threads_when_the_package_is_imported() -> None:
    pytest.importorskip("torch")
    output = output_of(
        CASE
        + """
import torch, rnncore.torch
torch.set_num_threads(3)
expected = train(case, 1)
assert train(case, 3) == expected
print(_rnncore._debug.team_threads())
"""
    )
    assert output == "0"
