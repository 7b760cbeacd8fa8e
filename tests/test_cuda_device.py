"""On a real GPU through CuPy: what a stand-in cannot tell. Run with ``--device cuda``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def on_gpu(kind: str, units: int = H, **options: Any) -> Any:
    """Return a layer on the GPU as it is, called with CuPy's arrays."""
    return on_device.bare(getattr(rc, kind)(D, units, seed=1, **options))


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


@pytest.mark.parametrize("units", [31, 64, 96, 128, 200])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_wider_layers_and_more_rows_equal_the_reference(cell: str, units: int, cp) -> None:
    """Every width of a persistent block, and what is beyond the widest."""
    case = Case(cell=cell, T=40, N=70, D=D, H=units, bidirectional=True, ragged=True)
    problem = draw(case)
    assert_results_close(train(case, problem), run_reference(case, problem), "float32")


def training(layer: Any, x: Any) -> list[Any]:
    """Return all that comes out of a training call, as bytes on the GPU."""
    layer.zero_grad()
    y, end = layer.forward(x, None, [6, 2, 0])
    dx, start = layer.backward(y)
    states = [*end, *start] if isinstance(end, tuple) else [end, start]
    return [
        array.view("u1") for array in (y, dx, *states, *(g.copy() for g in layer.grads.values()))
    ]


@pytest.mark.parametrize("units", [H, 200], ids=["persistent", "steps"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_thousand_runs_give_the_same_bits(dtype: str, units: int, cp) -> None:
    layer = on_gpu("LSTM", units, num_layers=2, bidirectional=True, dtype=dtype)
    x = x_of(cp).astype(layer.spec.numpy_dtype)
    first = training(layer, x)
    differing = cp.zeros((), "i8")
    for _ in range(1000):
        for one, other in zip(training(layer, x), first, strict=True):
            differing += (one != other).sum()  # added on the GPU, read back once
    assert int(differing) == 0
    assert any(array.any() for array in first)


@pytest.mark.parametrize("units", [H, 200], ids=["persistent", "steps"])
def test_calls_on_two_streams_do_not_disturb_each_other(units: int, cp) -> None:
    layers = [on_gpu("LSTM", units), on_gpu("GRU", units)]
    inputs = [x_of(cp, seed) for seed in range(2)]
    expected = [[array.get() for array in run] for run in map(training, layers, inputs)]
    cp.cuda.runtime.deviceSynchronize()
    streams = [cp.cuda.Stream(non_blocking=True) for _ in range(2)]
    results: list[list[Any]] = [[], []]
    for _ in range(50):
        for i, stream in enumerate(streams):
            with stream:
                results[i].append(training(layers[i], inputs[i]))
    for stream, runs, wanted in zip(streams, results, expected, strict=True):
        with stream:
            for run in runs:
                for one, other in zip(run, wanted, strict=True):
                    assert np.array_equal(one.get(), other)


def test_two_threads_train_at_the_same_time(cp) -> None:
    layers = [on_gpu("LSTM"), on_gpu("LSTM", 96)]
    inputs = [x_of(cp, seed) for seed in range(2)]
    expected = [[array.get() for array in run] for run in map(training, layers, inputs)]
    cp.cuda.runtime.deviceSynchronize()

    def work(i: int) -> int:
        with cp.cuda.Stream(non_blocking=True):
            runs = [training(layers[i], inputs[i]) for _ in range(50)]
            return sum(
                not np.array_equal(one.get(), other)
                for run in runs
                for one, other in zip(run, expected[i], strict=True)
            )

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, range(2))) == [0, 0]


def test_out_of_memory_leaves_the_layer_as_it_was(cp) -> None:
    layer, pool = on_gpu("LSTM", 96), cp.get_default_memory_pool()
    expected = [array.get() for array in training(layer, x_of(cp))]
    grads = [grad.get() for grad in layer.grads.values()]
    long = cp.zeros((4000, N, D), "f4")
    before = pool.get_limit()
    pool.free_all_blocks()
    try:
        pool.set_limit(size=pool.used_bytes() + (1 << 20))
        with pytest.raises(MemoryError):
            layer.forward(long)
    finally:
        pool.set_limit(size=before)
    for one, other in zip(layer.grads.values(), grads, strict=True):
        assert np.array_equal(one.get(), other)
    for one, other in zip(training(layer, x_of(cp)), expected, strict=True):
        assert np.array_equal(one.get(), other)


def test_lengths_on_the_gpu_are_clamped_and_told_of_later(cp) -> None:
    layer, x = on_gpu("GRU"), x_of(cp)
    expected = layer(x, None, [6, 2, 0])[0].get()
    y = layer(x, None, cp.asarray([99, 2, -4]))[0].get()
    assert y.tobytes() == expected.tobytes()
    with pytest.raises(rc.DeviceError, match="lengths: expected 0 to T, got others in an earlier"):
        layer(x)
    layer(x, None, cp.asarray([6, 2, 0]))
    rc.cuda.check()


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
