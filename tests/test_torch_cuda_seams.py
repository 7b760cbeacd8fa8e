"""Where rnncore.torch meets a GPU, as far as it shows without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import stand_in_cupy
import variants
from hypothesis import given, settings
from torch_modules import LAYERS, torch

import rnncore as rc
import rnncore.torch as rt
from rnncore import _rnncore
from rnncore.backends import cuda_addresses
from rnncore.cells import CellSpec
from rnncore.cuda import driver
from rnncore.torch import checks, cpu, cuda, ops
from rnncore.torch.call import Call

ITEM = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def tape_bytes(spec: CellSpec, dtype: str, T: int, N: int, **how: Any) -> int:
    """Return what a tape takes; addresses but 0 are those of memory that nobody looks at."""
    params = [64] * len(spec.param_shapes())
    stack = _rnncore.CudaStack(cuda_addresses._native(spec), dtype, params)
    absent = [0] * spec.state_rows
    masks = ([(64 * mask, 1, 1) for mask in how["masked"]], absent, absent, absent)
    D = spec.input_size
    x = (64, D, T * D) if how["batch_first"] else (64, N * D, D)
    given = how["lengths"]
    known = given if isinstance(given, list) else None
    sequence = _rnncore.CudaSequence(
        stack, T, N, known, 64 if given == "device" else 0, 0, x, 0, 0, masks
    )
    return int(sequence.tape_bytes(True))


@settings(max_examples=300)
@given(st.data())
def test_a_tape_is_never_wider_than_was_said(data: Any) -> None:
    draw = data.draw
    T, N = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    dtype = draw(st.sampled_from(list(ITEM)))
    H, D = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    case = variants.random_case(
        draw(st.integers(0, 999)), H=H, D=D, layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        dtype="float64" if dtype == "float64" else "float32",
    )  # fmt: skip
    spec = case.but(proj_size=min(case.proj_size, H)).spec
    lengths = draw(
        st.sampled_from([None, "device"]) | st.lists(st.integers(0, T), min_size=N, max_size=N)
    )
    masked = draw(st.lists(st.booleans(), min_size=spec.num_layers, max_size=spec.num_layers))
    taken = tape_bytes(
        spec, dtype, T, N, masked=masked, lengths=lengths, batch_first=draw(st.booleans())
    )
    width = _rnncore.cuda_tape_width(
        cuda_addresses._native(spec), dtype, masked, lengths is not None
    )
    assert T * N * width * ITEM[dtype] >= taken


@pytest.mark.parametrize("H", [1, 2, 5])
@pytest.mark.parametrize("dtype", ITEM)
def test_the_tables_of_rows_that_all_but_one_last_fit_too(H: int, dtype: str) -> None:
    spec = variants.case_of("rnn", H=H, D=1, layers=1, bidirectional=False).spec
    width = _rnncore.cuda_tape_width(cuda_addresses._native(spec), dtype, [False], True)
    for T in range(1, 20):
        for N in range(1, 20):
            lengths = [T] * (N - 1) + [T - 1]
            taken = tape_bytes(
                spec, dtype, T, N, masked=[False], lengths=lengths, batch_first=False
            )
            assert taken <= T * N * width * ITEM[dtype]


def test_a_tape_without_lengths_is_no_wider_than_its_arrays() -> None:
    spec = rc.LSTM(16, 32).spec
    width = _rnncore.cuda_tape_width(cuda_addresses._native(spec), "float32", [], False)
    assert width == (4 + 1) * 32  # gates and c
    ragged = _rnncore.cuda_tape_width(cuda_addresses._native(spec), "float32", [], True)
    assert ragged == width + 16 + 2  # and the input in another order, and tables


# --- shapes on a device that is not there ---------------------------------------------------------


@pytest.fixture
def fake() -> Iterator[None]:
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        yield


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module whose parameters are fake ones on a GPU."""
    for name, p in module.named_parameters():
        shape = torch.empty(p.shape, dtype=p.dtype, device="cuda")
        module._parameters[name] = torch.nn.Parameter(shape)
    return module


@pytest.mark.parametrize("dtype", cuda.DTYPES)
@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("ragged", [False, True])
def test_tracing_knows_shapes_and_the_tapes_width(
    cell: str, dtype: torch.dtype, ragged: bool, fake: None
) -> None:
    module = moved(getattr(rt, LAYERS[cell])(3, 4, 2, device="meta", dtype=dtype))
    x = torch.empty(5, 2, 3, device="cuda", dtype=dtype)
    lengths = torch.empty(2, dtype=torch.int64) if ragged else None
    params = list(module.parameters())
    call = (x, None, None, params, lengths, None, [], module._spec(), False, False)
    with torch.no_grad():
        y, hn, cn, tape = ops.forward(*call, True, False)
        dx, _, _, grads = ops.backward(tape, y, *call, y, None, None, True)
    assert {t.dtype for t in (y, hn, cn, tape, dx, *grads)} == {dtype}
    assert {t.device.type for t in (y, hn, cn, tape, dx, *grads)} == {"cuda"}
    assert [g.shape for g in grads] == [p.shape for p in params]
    assert (y.shape, hn.shape, dx.shape) == ((5, 2, 4), (2, 2, 4), (5, 2, 3))
    assert tape.shape == (5, 2, cuda.tape_width(Call(*call)))


def test_the_width_of_a_tape_goes_by_the_device(fake: None) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        x = torch.empty(5, 2, 3, device=device)
        params = [torch.empty(p.shape, device=device) for p in torch.nn.GRU(3, 4).parameters()]
        call = (x, None, None, params, None, None, [], "gru 3 4 1 1 0 1 tanh {}", False, False)
        found[device] = ops.forward(*call, True, False)[3].shape[2]
    assert found["cuda"] == cuda.tape_width(Call(*call)) == 4 * 4
    assert found["cpu"] == cpu.tape_width(Call(*call))
    assert found["cpu"] != found["cuda"]


def test_lengths_on_the_inputs_gpu_stay_there(fake: None) -> None:
    gpu, other = torch.device("cuda", 0), torch.device("cuda", 1)
    there = torch.empty(3, dtype=torch.int32, device=gpu)
    kept = checks.lengths(there, 3, True, gpu)
    assert (kept.device, kept.dtype) == (gpu, torch.int64)
    assert checks.lengths([3, 1, 2], 3, True, gpu).device.type == "cpu"
    assert checks.lengths(there, 3, True, other).device.type == "cpu"


# --- with and without CuPy ------------------------------------------------------------------------


@pytest.fixture
def without_cupy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(driver, "_current", None)


def test_accelerate_leaves_modules_on_a_gpu_alone_without_cupy(fake: None, without_cupy) -> None:
    module = moved(torch.nn.LSTM(3, 4, device="meta"))
    accelerated = rt.accelerate(module)
    assert accelerated.swapped == ()
    assert accelerated.left[""].startswith("weight_ih_l0 is on cuda:0; device 'cuda': ")
    assert "CuPy" in accelerated.left[""]
    assert type(module) is torch.nn.LSTM


@pytest.mark.parametrize("dtype", cuda.DTYPES)
def test_accelerate_takes_modules_on_a_gpu_in_every_dtype(fake: None, dtype: torch.dtype) -> None:
    module = moved(torch.nn.LSTM(3, 4, device="meta", dtype=dtype))
    with driver.use(SimpleNamespace()), rt.accelerate(module) as accelerated:
        assert accelerated.swapped == ("",)
        assert type(module) is rt.LSTM


def test_accelerate_says_which_types_a_gpu_takes(fake: None) -> None:
    module = moved(torch.nn.GRU(3, 4, device="meta", dtype=torch.complex64))
    with driver.use(SimpleNamespace()):
        left = rt.accelerate(module).left[""]
    assert left.endswith("computes in float32 and float64 and float16 and bfloat16")


def test_a_call_without_cupy_is_a_device_error(without_cupy) -> None:
    given = (torch.ones(5, 2, 3), None, None, list(torch.nn.GRU(3, 4).parameters()))
    call = Call(*given, None, None, [], "gru 3 4 1 1 0 1 tanh {}", False, False)
    with pytest.raises(rc.DeviceError, match="CuPy"):
        cuda.forward(call, False)


def test_torch_and_cupy_agree_on_the_device_and_torch_lends_its_stream(monkeypatch) -> None:
    now = []

    @contextmanager
    def guard(device: torch.device) -> Iterator[None]:
        now.append(device.index)
        yield
        now.pop()

    def stream(device: torch.device) -> SimpleNamespace:
        assert now == [1]
        return SimpleNamespace(cuda_stream=4096 + device.index)

    monkeypatch.setattr(torch.cuda, "device", guard)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(driver, "_current", None)
    with stand_in_cupy.installed() as cupy:
        with cuda._on(torch.device("cuda", 1)) as lent:
            assert lent == 4097
            assert cupy.cuda.runtime.getDevice() == 1
        assert cupy.cuda.runtime.getDevice() == 0
        assert now == []
