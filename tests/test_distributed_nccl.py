"""NCCL: the adapter on a stand-in for CuPy, and in a world of one where there is a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

import cupy_stand_in
import emulated_cuda as emulated
import numpy as np
import pytest
import stand_in_cupy
from emulation.build import compiler
from on_device import down, up

import rnncore as rc
from rnncore import distributed, nn
from rnncore.distributed.nccl import NCCLCommunicator


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return cupy_stand_in.install(monkeypatch)


def on_device(layer: nn.Linear) -> nn.Linear:
    """Hold a layer's arrays as the stand-in does."""
    for arrays in (layer._own_params, layer._own_grads):
        for name, array in arrays.items():
            arrays[name] = array.view(cupy_stand_in.ndarray)
    return layer


def test_an_identifier_travels_and_arrays_are_summed_on_a_stream_of_their_own(
    cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_stand_in.NcclCommunicator, "other", 2)
    world = NCCLCommunicator.join(distributed.SingleProcess())
    assert world._world.identifier == bytes(range(100, 228))
    assert (world.rank, world.size, world._stream.non_blocking) == (0, 1, True)
    for dtype in ("float32", "float64", "int64"):
        array = world.empty(5, dtype)
        array[...] = np.arange(5)
        started = world.all_reduce(array)
        assert world._stream.waited_for, "what the caller asked for before comes first"
        assert array.tolist() == [0, 1, 2, 3, 4], "summed before it was waited for"
        started.wait()
        assert array.tolist() == [0, 3, 6, 9, 12]
        assert cupy.cuda.get_current_stream().waited_for[-1].done


def test_gradients_on_the_device_become_means(
    cupy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = NCCLCommunicator.join(distributed.SingleProcess())
    layer = on_device(nn.Linear(3, 2, seed=0))
    reducer = distributed.Reducer(layer, world, bucket_bytes=1)
    monkeypatch.setattr(cupy_stand_in.NcclCommunicator, "other", 2)
    reducer.weight = 5
    layer._own_grads["weight"][...] = [[1, 2, 3], [4, 5, 6]]
    reducer.finished(list(layer._own_grads.values()))
    assert layer._own_grads["weight"].tolist() == [[1, 2, 3], [4, 5, 6]]
    reducer.synchronize()
    np.testing.assert_allclose(layer._own_grads["weight"], [[1, 2, 3], [4, 5, 6]], rtol=1e-6)


def test_gradients_in_host_memory_are_refused_by_name(cupy: ModuleType) -> None:
    world = NCCLCommunicator.join(distributed.SingleProcess())
    with pytest.raises(TypeError, match=r"modules: expected gradients .* numpy's for weight"):
        distributed.Reducer(nn.Linear(3, 2, seed=0), world)
    with pytest.raises(TypeError, match="array: expected a CuPy array, got a ndarray"):
        world.all_reduce(np.zeros(3))


def test_a_sum_that_does_not_come_aborts_nccl(cupy: ModuleType) -> None:
    world = NCCLCommunicator.join(distributed.SingleProcess(), timeout=0.05)
    started = world.all_reduce(world.empty(3, "float32"))
    with pytest.raises(TimeoutError, match=r"NCCL: expected all processes within 0\.05 seconds"):
        started.wait()
    assert world._world.aborted


def test_cupy_without_nccl_is_told(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy.cuda.nccl, "available", False)
    with pytest.raises(ModuleNotFoundError, match="expected the NCCL library beside CuPy"):
        NCCLCommunicator.join(distributed.SingleProcess())


class AloneOnTheDevice(distributed.SingleProcess):
    """A world of one for arrays of the emulated device."""

    def empty(self, count: int, dtype: str) -> np.ndarray:
        return stand_in_cupy.empty(count, dtype)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation")
@pytest.mark.host_only
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_layer_of_any_dtype_on_the_device_trains_in_parallel(dtype: str) -> None:
    draw = np.random.default_rng(0)
    x, dy = (draw.standard_normal((5, 2, size)).astype(dtype) for size in (3, 4))
    gradients = []
    with emulated.emulated_layers(False):
        for parallel in (False, True):
            model = rc.GRU(3, 4, dtype=dtype, device="cuda", seed=0)
            if parallel:
                model = distributed.DataParallel(model, AloneOnTheDevice())
                assert model.dtype == dtype
            model.forward(up(x))
            model.backward(up(dy))
            gradients.append({name: down(grad) for name, grad in model.grads.items()})
    alone, together = gradients
    for name, expected in alone.items():
        assert np.abs(expected).max() > 0
        np.testing.assert_array_equal(together[name], expected, err_msg=name)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation")
@pytest.mark.host_only
def test_a_model_moves_before_it_trains_in_parallel_and_not_after() -> None:
    with emulated.emulated_layers(False):
        parallel = distributed.DataParallel(rc.GRU(3, 4, seed=0), distributed.SingleProcess())
        with pytest.raises(RuntimeError, match="to: expected the model on cuda:0 before"):
            parallel.to("cuda")
        assert parallel.device == "cpu"
        assert parallel.to("cpu") is parallel
        parallel.forward(np.ones((2, 1, 3), np.float32))
        parallel.backward(np.ones((2, 1, 4), np.float32))
        assert all(np.abs(grad).max() > 0 for grad in parallel.grads.values())


@pytest.mark.cuda
@pytest.mark.skipif(find_spec("cupy") is None, reason="no CuPy")
def test_a_world_of_one_on_the_gpu_sums_to_the_same_array() -> None:
    import cupy
    from cupy.cuda import nccl

    if not cupy.is_available() or not nccl.available:
        pytest.skip("no CUDA device, or no NCCL")
    world = NCCLCommunicator.join(distributed.SingleProcess())
    array = world.empty(1000, "float32")
    array[...] = cupy.arange(1000)
    world.all_reduce(array).wait()
    world.broadcast(array)
    assert array.get().tolist() == list(range(1000))
