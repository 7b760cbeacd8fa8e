"""What all tests share: instruction sets, thread counts, and Hypothesis' profile."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

import rnncore as rc
from rnncore import _rnncore, backends

hypothesis.settings.register_profile(
    "house", deadline=None, print_blob=True, derandomize=True, max_examples=60
)
hypothesis.settings.load_profile("house")

# A shell that starts the suite in the background has it, and all that it starts, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ISAS = _rnncore.supported_isas()
VARIANT_BACKENDS = ("reference", "cpu")  # those that have every option of the cells


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
