"""The engine's threads in someone else's process: limits, workers, other runtimes.

Each runs in a process of its own: what a host has started before is part of what is tested.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from processes import output_of

LAYER = """
layer = rc.LSTM(24, 200, 2, seed=0)
x = np.random.default_rng(0).standard_normal((12, 16, 24)).astype("f4")

def run(layer=layer):
    layer.zero_grad()
    y, state = layer.forward(x)
    dx, _ = layer.backward(np.cos(y))
    return digest([y, *state, dx, *layer.grads.values()])

def tasks():
    return len(os.listdir("/proc/self/task"))
"""
BARE = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"no {package}")


@pytest.mark.parametrize("first", ["rnncore", "rnncore, used"])
def test_threadpoolctl_sees_and_limits_the_engine(first: str) -> None:
    needs("threadpoolctl")
    opening = {
        "rnncore": "from rnncore import threadpool; threadpool.register(); threadpool.register()",
        "rnncore, used": "run(); from rnncore import threadpool; threadpool.register()",
    }[first]
    code = LAYER + (
        f"{opening}\n"
        """
from threadpoolctl import threadpool_info, threadpool_limits
ours = [pool for pool in threadpool_info() if pool["user_api"] == "rnncore"]
print(len(ours), ours[0]["num_threads"], ours[0]["version"] == rc.__version__)
if not _rnncore._debug.team_threads():
    with threadpool_limits(1):
        expected = run()
        print(rc.get_num_threads(), _rnncore._debug.team_threads())
else:
    with threadpool_limits(1, user_api="rnncore"):
        expected = run()
        print(rc.get_num_threads(), 0)
with threadpool_limits({"rnncore": 2}):
    print(rc.get_num_threads(), run() == expected, _rnncore._debug.team_threads())
    with rc.threads(1):
        print(rc.get_num_threads())
print(rc.get_num_threads())
"""
    )
    lines = output_of(code, env=BARE | {"RNNCORE_NUM_THREADS": "3"}).splitlines()
    team = "2" if first == "rnncore, used" else "1"  # it does not shrink
    assert lines == ["1 3 True", "1 0", f"2 True {team}", "1", "3"]


def test_threadpoolctl_that_comes_first_knows_without_a_word() -> None:
    needs("threadpoolctl")
    code = """
import subprocess
program = '''
import threadpoolctl
import rnncore as rc
with threadpoolctl.threadpool_limits(1): print(rc.get_num_threads())
print(rc.get_num_threads())
'''
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
print(done.stdout, done.stderr)
"""
    assert output_of(code, env=BARE | {"RNNCORE_NUM_THREADS": "3"}).split() == ["1", "3"]


def test_importing_the_engine_does_not_bring_threadpoolctl() -> None:
    assert output_of("print('threadpoolctl' in sys.modules)") == "False"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_compute_the_bits_of_their_parent(method: str) -> None:
    needs("torch")
    output = output_of(
        f"""
        import torch
        from data_loader import Digests
        if __name__ == "__main__":
            data = Digests()
            expected = data[0][0]
            assert _rnncore._debug.team_threads() >= 1 or rc.get_num_threads() == 1
            loader = torch.utils.data.DataLoader(
                data, num_workers=2, batch_size=None, multiprocessing_context="{method}")
            seen = list(loader)
            print(len(seen), all(one[0] == expected for one in seen), data[1][0] == expected)
            print(sorted(set(one[1] for one in seen)))
        """,
        timeout=120,
        env={"RNNCORE_NUM_THREADS": "2"},
    )
    assert output.splitlines() == ["6 True True", "[2]"]


def test_a_forked_child_uses_the_number_of_its_parent_or_the_cpus_that_it_has() -> None:
    output = output_of(
        LAYER
        + """
def child(work):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        try:
            print(work(), flush=True)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def unset():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return f"{rc.get_num_threads()} {tasks()}"

child(unset)          # nobody has asked for the number before: one CPU, one thread
rc.set_num_threads(2)
expected = run()
child(lambda: f"{rc.get_num_threads()} {run() == expected} {tasks()}")
with rc.threads(1):
    child(lambda: f"{rc.get_num_threads()} {run() == expected} {tasks()}")
""",
        env=BARE | {"RNNCORE_NUM_THREADS": "", "OMP_NUM_THREADS": ""},
    )
    assert output.splitlines() == ["1 1", "2 True 2", "1 True 1"]


def test_python_threads_share_one_team_and_get_the_same_bits() -> None:
    output = output_of(
        LAYER
        + """
from concurrent.futures import ThreadPoolExecutor
rc.set_num_threads(3)
engine = layer.freeze()
expected, before = digest([engine(x)[0]]), tasks()
most = 0
def work(n):
    global most
    same = True
    for _ in range(20):
        same &= digest([engine(x)[0]]) == expected
        most = max(most, tasks())
    return same
with ThreadPoolExecutor(8) as pool:
    print(all(pool.map(work, range(8))))
print(before, most - 8 <= before, _rnncore._debug.team_threads())
""",
        env=BARE,
    )
    assert output.splitlines() == ["True", "3 True 2"]


def test_layers_of_many_threads_do_not_start_a_team_each() -> None:
    output = output_of(
        LAYER
        + """
import copy
from concurrent.futures import ThreadPoolExecutor
rc.set_num_threads(2)
expected = run()
layers = [copy.deepcopy(layer) for _ in range(6)]
counts = []
def work(own):
    same = all(run(own) == expected for _ in range(5))
    counts.append(tasks())
    return same
with ThreadPoolExecutor(6) as pool:
    print(all(pool.map(work, layers)))
print(max(counts) <= 1 + 1 + 6)  # the main thread, one worker, and the host's own six
""",
        env=BARE,
    )
    assert output.splitlines() == ["True", "True"]


def test_calls_beside_another_openmp_runtime_keep_both_right() -> None:
    needs("torch")
    output = output_of(
        LAYER
        + """
import torch
torch.set_num_threads(2)
rc.set_num_threads(2)
a = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 300)).astype("f4"))
theirs, ours = a @ a, run()
started = tasks()
for _ in range(20):
    assert torch.equal(a @ a, theirs)
    assert run() == ours
print(tasks() <= started + 1, torch.get_num_threads(), rc.get_num_threads())
torch.set_num_threads(1)
assert run() == ours
rc.set_num_threads(1)
assert torch.allclose(a @ a, theirs, rtol=1e-4, atol=1e-4)
print(torch.get_num_threads(), rc.get_num_threads())
""",
        timeout=120,
        env={"OMP_NUM_THREADS": "", "RNNCORE_NUM_THREADS": ""},
    )
    assert output.splitlines() == ["True 2 2", "1 1"]
