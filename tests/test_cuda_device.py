"""On a real GPU through CuPy: what a stand-in cannot tell. Run with ``--device cuda``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import on_device
import pytest
from cases import CELLS, Case, assert_results_close, draw, run_reference
from engine import train

import rnncore as rc

pytestmark = pytest.mark.cuda

T, N, D, H = 6, 3, 9, 17


@pytest.fixture
def cp(device: str) -> Iterator[Any]:
    cupy = pytest.importorskip("cupy")
    yield cupy
    rc.cuda.check()


def on_gpu(kind: str, **options: Any) -> Any:
    """Return a layer on the GPU as it is, called with CuPy's arrays."""
    return on_device.bare(getattr(rc, kind)(D, H, seed=1, **options))


def x_of(cp: Any, seed: int = 0) -> Any:
    return cp.asarray(np.random.default_rng(seed).standard_normal((T, N, D)).astype("f4"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_outputs_and_gradients_equal_the_reference(cell: str, kind: str, dtype: str, cp) -> None:
    case = Case(cell=cell, nonlinearity=kind, dtype=dtype, layers=2, bidirectional=True,
                ragged=True, T=T, N=5, D=D, H=H)  # fmt: skip
    problem = draw(case)
    assert_results_close(train(case, problem), run_reference(case, problem), dtype)


def test_work_is_ordered_by_the_callers_stream(cp) -> None:
    layer, stream = on_gpu("LSTM"), cp.cuda.Stream(non_blocking=True)
    expected = layer(x_of(cp))[0].get()
    with stream:
        x = cp.zeros((T, N, D), "f4")
        for _ in range(200):  # the input is still being made when the layer is called
            x += x_of(cp) / 200
        y, _ = layer(x)
    assert np.allclose(y.get(stream=stream), expected, rtol=1e-3, atol=1e-4)


def test_bits_repeat_from_run_to_run(cp) -> None:
    layer, runs = on_gpu("GRU", num_layers=2), []
    for _ in range(3):
        layer.zero_grad()
        y, _ = layer.forward(x_of(cp), None, [6, 2, 0])
        dx, _ = layer.backward(cp.ones_like(y))
        runs.append([array.get().tobytes() for array in (y, dx, *layer.grads.values())])
    assert runs[0] == runs[1] == runs[2]


def test_lengths_on_the_gpu_are_clamped(cp) -> None:
    layer, x = on_gpu("GRU"), x_of(cp)
    expected = layer(x, None, [6, 2, 0])[0].get()
    y = layer(x, None, cp.asarray([99, 2, -4]))[0].get()
    assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_joined_layers_take_sixteen_bits(dtype: str, cp) -> None:
    results = []
    for chosen in (dtype, "float32"):
        layer = rc.Bidirectional(rc.GRU(D, H, seed=1, dtype=chosen, dropout=0.0), merge="average")
        layer = on_device.bare(layer)
        x = x_of(cp).astype(layer.spec.numpy_dtype)
        y, _ = layer.forward(x, None, [6, 2, 0])
        dx, _ = layer.backward(y)
        results.append([y.astype("f4").get(), dx.astype("f4").get()])
    for ours, theirs in zip(*results, strict=True):
        assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()


def test_torch_tensors_on_the_gpu_are_taken_without_a_copy(cp) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    layer = on_gpu("LSTM")
    x = torch.from_numpy(x_of(cp).get()).cuda()
    y, _, tape = layer.record(x)
    with tape.record() as record:
        assert record.inputs.x.data.ptr == x.data_ptr()
    assert y.get().tobytes() == layer(x_of(cp))[0].get().tobytes()
