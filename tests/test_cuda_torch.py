"""rnncore.torch on a real GPU. Run with ``--device cuda``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import rnncore as rc

torch = pytest.importorskip("torch", minversion="2.4", reason="rnncore.torch needs PyTorch")
pytestmark = pytest.mark.cuda

CELLS = ["RNN", "LSTM", "GRU"]
SINGLE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(autouse=True)
def gpu(device: str) -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    yield
    torch.cuda.synchronize()
    rc.cuda.check()


def twins(kind: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    import rnncore.torch as rt

    theirs = getattr(torch.nn, kind)(*args, device="cuda", **options)
    ours = getattr(rt, kind)(*args, device="cuda", **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def trained(module: Any, given: Any) -> list[Any]:
    y, state = module(given)
    data = getattr(y, "data", y) if isinstance(y, tuple) else y
    loss = data.sin().sum() + sum(part.sum() for part in torch.utils._pytree.tree_leaves(state))
    leaves = [given] * torch.is_tensor(given) + list(module.parameters())
    return [data.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("hidden", [17, 64, 160])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_and_gradients_equal_torchs(kind: str, hidden: int, dtype: torch.dtype) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        theirs, ours = twins(kind, 20, hidden, 2, bidirectional=True, dtype=dtype)
        x = torch.randn(9, 5, 20, device="cuda", dtype=dtype, requires_grad=True)
        expected = trained(theirs, x)
    torch.testing.assert_close(trained(ours, x), expected, **SINGLE)


@pytest.mark.parametrize("kind", CELLS)
def test_packed_sequences_equal_torchs(kind: str) -> None:
    with torch.backends.cudnn.flags(allow_tf32=False):
        theirs, ours = twins(kind, 8, 33)
        x = torch.randn(7, 4, 8, device="cuda")
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [3, 7, 1, 5], enforce_sorted=False)
        expected = trained(theirs, packed)
    torch.testing.assert_close(trained(ours, packed), expected, **SINGLE)


@pytest.mark.parametrize("kind", CELLS)
def test_lengths_on_the_gpu_equal_those_on_the_host(kind: str) -> None:
    _, ours = twins(kind, 8, 33, 2)
    x = torch.randn(7, 4, 8, device="cuda")
    lengths = torch.tensor([3, 7, 0, 5])
    there = ours(x, lengths=lengths.cuda())[0]
    torch.testing.assert_close(there, ours(x, lengths=lengths)[0], **SINGLE)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_16_bit_modules_follow_those_of_32(kind: str, dtype: torch.dtype, atol: float) -> None:
    _, ours = twins(kind, 20, 64)
    ours.to(dtype)
    x = torch.randn(9, 5, 20, device="cuda", dtype=dtype, requires_grad=True)
    found = trained(ours, x)
    assert {t.dtype for t in found} == {dtype}
    expected = trained(ours.float(), x.detach().float().requires_grad_())
    for ours_, theirs in zip(found, expected, strict=True):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours_.float() / scale, theirs / scale, rtol=0, atol=atol)


def test_work_is_ordered_by_torchs_stream() -> None:
    _, ours = twins("LSTM", 20, 64)
    parts = torch.randn(9, 5, 20, device="cuda")
    expected = ours(parts)[0]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = torch.zeros_like(parts)
        for _ in range(300):  # the input is still being made when the module is called
            x += parts / 300
        y = ours(x)[0]
    stream.synchronize()
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4)


def test_a_retained_graph_gives_the_same_bits_again() -> None:
    _, ours = twins("LSTM", 20, 160, 2)
    x = torch.randn(9, 5, 20, device="cuda", requires_grad=True)
    loss = ours(x)[0].sin().sum()
    first, second, last = (
        torch.autograd.grad(loss, [x, *ours.parameters()], retain_graph=keep)
        for keep in (True, True, False)
    )
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, last))


def test_torchs_allocator_gets_all_memory_back() -> None:
    _, ours = twins("GRU", 20, 64)
    x = torch.randn(9, 5, 20, device="cuda")
    used = []
    for _ in range(3):
        ours(x)[0].sum().backward()
        ours.zero_grad()
        used.append(torch.cuda.memory_allocated())
    assert used[2] == used[1]


def test_accelerate_and_compile_take_a_model_on_the_gpu() -> None:
    import rnncore.torch as rt

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GRU(8, 16)).cuda()
    x = torch.randn(7, 4, 8, device="cuda")
    with torch.backends.cudnn.flags(allow_tf32=False):
        expected = model(x)[0]
    with rt.accelerate(model) as accelerated:
        assert accelerated.swapped == ("1",)
        torch.testing.assert_close(model(x)[0], expected, **SINGLE)
        compiled = torch.compile(lambda x: model(x)[0], fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, **SINGLE)


def test_autocast_computes_in_float32() -> None:
    _, ours = twins("LSTM", 8, 16)
    x = torch.randn(7, 4, 8, device="cuda")
    with torch.autocast("cuda", dtype=torch.float16):
        y = ours(x.half())[0]
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, ours(x.half().float())[0], **SINGLE)
