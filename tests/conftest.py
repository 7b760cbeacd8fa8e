"""What all tests share: instruction sets, thread counts, and Hypothesis' profile."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import emulated_cuda
import hypothesis
import on_device
import pytest

import rnncore as rc
from rnncore import _rnncore, backends, openmp

hypothesis.settings.register_profile(
    "house", deadline=None, print_blob=True, derandomize=True, max_examples=60
)
hypothesis.settings.load_profile("house")

# A shell that starts the suite in the background has it, and all that it starts, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ISAS = _rnncore.supported_isas()
# Files about the C++ core, host memory, or parts of the package that take NumPy arrays alone.
HOST_ONLY = (
    "activations", "add_a_cell", "bits", "cli", "codebase", "concurrency", "cuda_absent",
    "denormals_and_environment", "docs_examples", "errors", "examples", "interrupts", "layers_own",
    "memory", "objects", "openmp", "reduced_weights", "short_calls", "strides", "threads",
    "variants_bits",
)  # fmt: skip
HOST_ONLY_PARTS = ("bench", "demo", "nn_", "torch", "train_", "wheel")
VARIANT_BACKENDS = ("reference", "cpu")  # those that have every option of the cells


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        choices=("cpu", "cuda", "stand-in", "emulated"),
        help="where layers run: on the CPU, on a GPU through CuPy, on the CPU behind a stand-in "
        "for CuPy, or there with the GPU's own kernels, emulated, which is slow; but for the "
        "first, tests marked host_only are skipped",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    device = config.getoption("--device")
    items[:] = [item for item in items if not _senseless(item)]
    for item in items:
        if item.get_closest_marker("cuda") and device != "cuda":
            item.add_marker(pytest.mark.skip(reason="needs a GPU: --device cuda"))
        if device != "cpu" and (item.get_closest_marker("host_only") or _of_the_host(item.path)):
            item.add_marker(pytest.mark.skip(reason="about the host alone"))


def _of_the_host(path: Path) -> bool:
    name = path.stem.removeprefix("test_")
    return name in HOST_ONLY or name.startswith(HOST_ONLY_PARTS)


def _senseless(item: pytest.Item) -> bool:
    """Tell a test about the host alone, asked of the GPU's backend."""
    chosen = getattr(item, "callspec", None)
    return (
        chosen is not None
        and chosen.params.get("both_backends") == "cuda"
        and item.get_closest_marker("host_only") is not None
    )


@pytest.fixture(autouse=True)
def threads_of_the_engine(request: pytest.FixtureRequest) -> None:
    """Compute on the engine's own threads, but for the tests of rnncore.torch, which borrows."""
    if request.path.stem.startswith("test_torch"):
        openmp.borrow(sys.modules["torch"]._C.__file__)
    else:
        openmp.give_back()


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run all layers of the test where ``--device`` says."""
    chosen = request.config.getoption("--device")
    with ExitStack() as stack:
        if chosen == "stand-in":
            stack.enter_context(on_device.stand_in())
        if chosen == "emulated":
            stack.enter_context(emulated_cuda.emulated_layers())
        if chosen != "cpu":
            stack.enter_context(on_device.lifted_layers())
        yield chosen


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every instruction set of this machine."""
    before = _rnncore.isa()
    _rnncore.set_isa(request.param)
    assert _rnncore.isa() == request.param
    yield request.param
    _rnncore.set_isa(before)


@pytest.fixture(params=VARIANT_BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once on every backend that has all options."""
    with backends.use(request.param):
        yield request.param


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Run the test with two threads, whatever the machine has."""
    with rc.threads(2):
        yield


@pytest.fixture(autouse=True)
def settings_restored() -> Iterator[None]:
    """Catch a test that leaves the process' thread count or instruction set changed."""
    before = rc.get_num_threads(), _rnncore.isa()
    yield
    assert (rc.get_num_threads(), _rnncore.isa()) == before
