"""Threads, fork, Ctrl-C and failed allocations. What could hang runs in a process with a limit."""

from __future__ import annotations

import os
import threading

import pytest
from cases import CELLS, Case, assert_same_bits, draw
from engine import build, infer, train
from processes import output_of

import rnncore as rc

PRIMES = {"T": 11, "N": 13, "D": 37, "H": 151, "layers": 2, "bidirectional": True}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_any_number_of_threads_gives_the_same_bits(cell: str, kind: str, dtype: str) -> None:
    for ragged in (False, True):
        case = Case(cell=cell, nonlinearity=kind, dtype=dtype, ragged=ragged, **PRIMES)
        problem = draw(case)
        with rc.threads(1):
            expected = train(case, problem)
        for threads in (2, 3, 5, 8, 16):
            with rc.threads(threads):
                assert_same_bits(train(case, problem), expected)


@pytest.mark.nightly
def test_two_hundred_runs_under_load_give_the_same_bits() -> None:
    code = "while True: pass"
    output = output_of(
        f"""
        import subprocess
        from cases import Case
        load = [subprocess.Popen([sys.executable, "-c", "{code}"]) for _ in range(os.cpu_count())]
        try:
            case = Case(**{PRIMES})
            print(len({{train(case, 1 + n % 5) for n in range(200)}}))
        finally:
            for process in load: process.kill()
        """,
        timeout=300,
    )
    assert output == "1"


def test_impossible_numbers_of_threads_are_errors() -> None:
    before = rc.get_num_threads()
    for n in (0, -1):
        with pytest.raises(ValueError, match="n"):
            rc.set_num_threads(n)
    for wrong in ("4", 2.0, None, True):
        with pytest.raises(TypeError, match="n"):
            rc.set_num_threads(wrong)
    assert rc.get_num_threads() == before
    for many in (10**6, 2**70):
        with rc.threads(many):
            assert 1 <= rc.get_num_threads() < 10**6


def test_threads_of_the_environment() -> None:
    code = "print(rc.get_num_threads())"
    assert output_of(code, env={"RNNCORE_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}) == "3"
    assert output_of(code, env={"RNNCORE_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}) == "5"
    for garbage in ("many", "-2", "0", "1e3"):
        loud = """
            import warnings
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                rc.get_num_threads()
            print(rc.get_num_threads() >= 1, [w.category.__name__ for w in seen])
        """
        env = {"RNNCORE_NUM_THREADS": garbage, "OMP_NUM_THREADS": ""}
        assert output_of(loud, env=env) == "True ['RuntimeWarning']"


def test_import_starts_no_thread() -> None:
    assert output_of("print(len(os.listdir('/proc/self/task')))",
                     env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "4"}) == "1"  # fmt: skip


def test_four_threads_on_one_cpu_are_at_most_five_times_slower() -> None:
    cpu = str(min(os.sched_getaffinity(0)))
    output = output_of(
        """
        from cases import Case, draw
        from engine import build
        case = Case(T=2000, N=8, D=16, H=128)
        p = draw(case)
        layer, best = build(case, p), {}
        for threads in (1, 4):
            with rc.threads(threads):
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    layer(p.x)
                    times.append(time.perf_counter() - start)
                best[threads] = min(times)
                print(len(os.listdir("/proc/self/task")))
        print(best[4] / best[1])
        """,
        before=("taskset", "-c", cpu),
        env={"OPENBLAS_NUM_THREADS": "1"},
    )
    alone, team, ratio = output.split()
    assert int(team) > int(alone)
    assert float(ratio) <= 5.0


def test_a_forked_child_computes_the_bits_of_its_parent() -> None:
    output = output_of(f"""
        from cases import Case
        case = Case(**{PRIMES})
        expected = train(case, 3)
        assert _rnncore._debug.team_threads() >= 2
        for generation in range(3):
            child = os.fork()
            if not child:
                signal.alarm(20)
                same = train(case, 3) == expected == train(case, 1)
                if same:
                    grandchild = os.fork()
                    if not grandchild:
                        signal.alarm(10)
                        os._exit(0 if train(case, 2) == expected else 3)
                    same = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) == 0
                os._exit(0 if same else 2)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), train(case, 3) == expected)
    """)
    assert output.split() == ["0", "True"] * 3


def test_a_fork_while_another_thread_computes_leaves_both_well() -> None:
    output = output_of(f"""
        from cases import Case
        case = Case(**{PRIMES})
        expected = train(case, 2)
        stop, wrong = threading.Event(), []
        def work():
            while not stop.is_set():
                if train(case, 2) != expected: wrong.append(1)
        worker = threading.Thread(target=work)
        worker.start()
        codes = []
        for _ in range(10):
            time.sleep(0.02)
            child = os.fork()
            if not child:
                signal.alarm(10)
                os._exit(0 if train(case, 2) == expected else 2)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set(); worker.join()
        print(codes == [0] * 10, not wrong)
    """)
    assert output == "True True"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes_completes(method: str) -> None:
    output = output_of(
        f"""
        import multiprocessing
        import pool_worker
        if __name__ == "__main__":
            expected = pool_worker.digest_of(3)
            with multiprocessing.get_context("{method}").Pool(4) as pool:
                results = pool.map_async(pool_worker.digest_of, [1, 2, 3, 2]).get(50)
            print(set(results) == {{expected}})
        """,
        timeout=90,
    )
    assert output == "True"


def test_many_python_threads_with_their_own_layers_get_their_own_results() -> None:
    cases = [Case(cell="gru", T=9, N=7, D=11, H=100 + n, seed=n) for n in range(8)]
    problems = [draw(case) for case in cases]
    expected = [train(*pair) for pair in zip(cases, problems, strict=True)]
    wrong, gate = [], threading.Barrier(8)

    def work(n: int) -> None:
        gate.wait()
        for _ in range(10):
            try:
                with rc.threads(1 + n % 3):
                    assert_same_bits(train(cases[n], problems[n]), expected[n])
            except BaseException as error:
                wrong.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_many_python_threads_may_share_a_frozen_engine() -> None:
    case = Case(T=9, N=7, D=11, H=130, layers=2)
    problem = draw(case)
    engine = build(case, problem).freeze()
    expected, right = infer(case, problem, engine), []

    def work() -> None:
        for _ in range(10):
            with rc.threads(2):
                assert_same_bits(infer(case, problem, engine), expected)
            right.append(1)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(right) == 60


def test_threads_that_come_and_go_leave_no_threads_behind() -> None:
    output = output_of("""
        from cases import Case, draw
        from engine import build
        case = Case(T=3, N=7, D=11, H=150)
        p = draw(case)
        layer = build(case, p)
        def work():
            with rc.threads(3): layer(p.x)
        counts = []
        for n in range(300):
            worker = threading.Thread(target=work)
            worker.start(); worker.join()
            if n in (20, 299):
                time.sleep(0.2)  # a joined thread may still be on its way out
                counts.append(len(os.listdir("/proc/self/task")))
        print(counts[1] - counts[0])
    """)
    assert int(output) <= 0


def test_a_thread_with_a_small_stack_can_call() -> None:
    case = Case(T=5, N=9, D=30, H=150, layers=2)
    problem = draw(case)
    expected, results = train(case, problem), []
    before = threading.stack_size(256 * 1024)
    try:
        worker = threading.Thread(target=lambda: results.append(train(case, problem)))
        worker.start()
        worker.join()
    finally:
        threading.stack_size(before)
    assert_same_bits(results[0], expected)


def test_exit_with_a_daemon_thread_inside_a_call_is_clean() -> None:
    assert (
        output_of("""
        from cases import Case, draw
        from engine import build
        case = Case(T=30_000, N=2, D=1, H=300, states=False)
        layer = build(case.but(T=1), draw(case.but(T=1)))
        x = np.broadcast_to(np.float32(0.5), (case.T, 2, 1))
        with rc.threads(2): layer(x[:9])
        threading.Thread(target=lambda: layer(x), daemon=True).start()
        time.sleep(0.2)
        print("leaving")
    """)
        == "leaving"
    )


def test_woken_workers_get_the_callers_affinity_back() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    code = """
engine, x = rc.LSTM(64, 256, seed=0).freeze(), np.zeros((50, 1, 64), np.float32)
with rc.threads(2):
    for _ in range(3):
        engine(x)
        time.sleep(0.01)  # workers fall asleep, and are woken away from the caller's CPU
    engine(x)
masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
print(_rnncore._debug.team_threads(), all(mask == os.sched_getaffinity(0) for mask in masks))
"""
    assert output_of(code, env={"OPENBLAS_NUM_THREADS": "1"}).split() == ["1", "True"]
