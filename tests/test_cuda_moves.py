"""Layers on a GPU, moved, copied, saved and frozen, on a stand-in for CuPy."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in_cupy
from both_backends import assert_same, normal
from on_device import down, up
from stand_in_cupy import no_read_back
from test_cuda_layers import HOST, D, H, N, T, Tensor, cupy, joined, make, on_host_parts, start

import rnncore as rc

pytestmark = [pytest.mark.host_only, pytest.mark.usefixtures(cupy.__name__)]

# --- moving, copying, saving ----------------------------------------------------------------------


def makers() -> dict[str, Any]:
    return {
        "lstm": lambda device: make("LSTM", device, dropout=0.2),
        "stateful": lambda device: make("GRU", device, stateful=True),
        "joined": lambda device: joined("sum", device),
        "cell": lambda device: rc.LSTMCell(D, H, seed=1, device=device),
    }


def trained(kind: str, device: str) -> Any:
    layer = makers()[kind](device)
    x = normal(N, D) if kind == "cell" else HOST
    made = layer.forward(up(x) if device != "cpu" else x)
    layer.backward(made if kind == "cell" else made[0])
    return layer


def contents(layer: Any) -> list[np.ndarray]:
    arrays = [*layer.params.values(), *layer.grads.values()]
    carried = [layer.state] if getattr(layer, "stateful", False) else []
    return on_host_parts(down([*arrays, *carried]))


@pytest.mark.parametrize("kind", makers())
def test_a_layer_moves_to_the_gpu_and_back_with_all_it_holds(kind: str) -> None:
    layer = trained(kind, "cpu")
    before, params = contents(layer), layer.params
    name = next(iter(params))
    on_cpu = params[name]
    assert layer.to("cuda") is layer
    assert layer.device == "cuda:0"
    assert "cuda:0" in repr(layer)
    assert layer.params[name] is params[name]  # the mapping is the same one
    assert {type(array) for array in params.values()} == {stand_in_cupy.ndarray}
    assert {type(array) for array in layer.grads.values()} == {stand_in_cupy.ndarray}
    assert_same(contents(layer), before)
    x = up(normal(N, D) if kind == "cell" else HOST)
    other = makers_like(layer, kind)
    assert_same(down(layer(x)), down(other(x)))
    layer.to("cuda:1").to("cpu")
    assert layer.device == "cpu"
    assert "cuda" not in repr(layer)
    assert_same(contents(layer)[: len(params)], before[: len(params)])
    assert type(layer.params[name]) is np.ndarray
    assert layer.params[name] is not on_cpu


def makers_like(layer: Any, kind: str) -> Any:
    """Return a layer made on the GPU that holds what another one does."""
    other = makers()[kind]("cuda")
    other.load_state_dict(layer.state_dict())
    if kind == "stateful":
        other.set_state(layer.state)
    return other


@pytest.mark.parametrize("kind", makers())
def test_moving_makes_older_tapes_foreign(kind: str) -> None:
    for target in ("cpu", "cuda"):
        layer = makers()[kind]("cuda")
        x = up(normal(N, D) if kind == "cell" else HOST)
        *_, tape = layer.record(x)
        layer.to(target)
        with pytest.raises(RuntimeError, match="before this one moved"):
            layer.backward(None, tape=tape)


def test_weights_held_on_one_device_are_packed_anew_on_the_other() -> None:
    layer = make("GRU", "cpu")
    with layer.hold():
        layer(HOST)
        layer.to("cuda")
        y, _ = layer(up(HOST))
    assert_same(down(y), down(make("GRU")(up(HOST))[0]))


def test_a_stack_whose_member_moved_alone_says_so() -> None:
    stack = joined("sum", "cuda")
    stack.layers[1].to("cpu")
    with pytest.raises(RuntimeError, match=r"layers\[1\]: expected device cuda:0, .* got cpu"):
        stack(up(HOST))
    with pytest.raises(ValueError, match=r"layers\[1\]: expected device cuda:0, got cpu"):
        rc.Stack([rc.GRU(D, H, device="cuda"), rc.GRU(H, H)])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
@pytest.mark.parametrize("kind", makers())
def test_copies_and_pickles_are_equal_and_share_nothing(kind: str, device: str, duplicate) -> None:
    layer = trained(kind, "cuda").to(device)
    twin = duplicate(layer)
    assert twin.device == layer.device
    assert_same(contents(twin), contents(layer))
    for ours, theirs in zip(twin.params.values(), layer.params.values(), strict=True):
        assert ours.data.ptr != theirs.data.ptr
        assert ours.device.id == theirs.device.id


def test_state_dicts_go_between_devices() -> None:
    here, there = make("LSTM", "cpu"), make("LSTM", seed=9)
    there.load_state_dict(here.state_dict())
    assert_same(down(list(there.params.values())), list(here.params.values()))
    other = make("LSTM", "cpu", seed=9)
    other.load_state_dict(there.state_dict())
    assert_same(list(other.params.values()), list(here.params.values()))
    state = there.state_dict()
    assert {type(array) for array in state.values()} == {stand_in_cupy.ndarray}
    state["bias_ih_l0"].fill(7)
    assert (down(there.params["bias_ih_l0"]) != 7).all()
    with pytest.raises(ValueError, match="missing bias_ih_l0"):
        there.load_state_dict({k: v for k, v in state.items() if k != "bias_ih_l0"})
    there.load_state_dict({name: Tensor(array) for name, array in state.items()})
    assert (down(there.params["bias_ih_l0"]) == 7).all()


@pytest.mark.parametrize("kind", makers())
def test_files_do_not_tell_where_a_layer_was(kind: str, tmp_path: Path) -> None:
    on_gpu, on_cpu = trained(kind, "cuda"), trained(kind, "cpu")
    rc.save(tmp_path / "gpu", on_gpu)
    rc.save(tmp_path / "cpu", on_cpu)
    assert (tmp_path / "gpu").read_bytes() == (tmp_path / "cpu").read_bytes()
    here, there = rc.load(tmp_path / "gpu"), rc.load(tmp_path / "gpu", device="cuda")
    assert (here.device, there.device) == ("cpu", "cuda:0")
    for layer in (here, there):
        assert_same(down(list(layer.params.values())), list(on_cpu.params.values()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_layer_of_sixteen_bits_is_loaded_onto_a_gpu_alone(dtype: str, tmp_path: Path) -> None:
    layer = make("LSTM", dtype=dtype)
    rc.save(tmp_path / "layer", layer)
    with pytest.raises(NotImplementedError, match=f"dtype: {dtype} is not in .* on the CPU"):
        rc.load(tmp_path / "layer")
    there = rc.load(tmp_path / "layer", device="cuda")
    assert there.dtype == dtype
    assert_same(contents(there)[:8], contents(layer)[:8])


@pytest.mark.parametrize("kind", makers())
def test_a_move_that_fails_half_way_leaves_the_layer_as_it_was(kind, monkeypatch) -> None:
    layer, copies = trained(kind, "cpu"), []
    before, name = contents(layer), next(iter(layer.params))
    held = layer.params[name]

    def fail_at_last(value: Any, asarray: Any = stand_in_cupy.asarray) -> Any:
        copies.append(value)
        if len(copies) == len(layer.params) + 2:
            raise MemoryError("cudaErrorMemoryAllocation")
        return asarray(value)

    monkeypatch.setattr(sys.modules["cupy"], "asarray", fail_at_last)
    with pytest.raises(MemoryError):
        layer.to("cuda")
    assert layer.device == "cpu"
    assert layer.params[name] is held
    assert_same(contents(layer), before)
    layer(normal(N, D) if kind == "cell" else HOST)


def test_a_carried_state_stays_on_the_gpu() -> None:
    layer, x = make("LSTM", stateful=True), up(HOST)
    with no_read_back():
        first, _ = layer(x)
        second, _ = layer(x)
        layer.reset_state([0, 2])
        layer.reset_state()
        again, _ = layer(x)
        layer.set_state(layer.state)
    assert not np.array_equal(down(first), down(second))
    assert_same(down(again), down(first))
    with pytest.raises(TypeError, match="state: expected a CuPy array"):
        layer.set_state(down(layer.state))


# --- frozen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_engine_gives_the_bits_of_its_layer(dtype: str) -> None:
    layer = make("LSTM", dtype=dtype)
    engine, x = layer.freeze(), up(HOST.astype(layer.spec.numpy_dtype))
    out = stand_in_cupy.empty((T, N, H), layer.spec.numpy_dtype)
    with no_read_back():
        y, end = engine(x, out=out)
        expected = layer(x)
    assert y is out
    assert_same(down([y, end]), down(list(expected)))
    layer.params["weight_ih_l0"].fill(0)
    assert_same(down(engine(x)[0]), down(y))
    assert engine.weight_dtype == dtype


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_reduced_weights_are_for_the_cpu_alone(name: str) -> None:
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(NotImplementedError, match=f"dtype: {name} weights .* on cuda:0"):
            make("GRU", dtype=dtype).freeze(name)


def test_a_layer_of_sixteen_bits_can_be_frozen_in_float32() -> None:
    layer = make("GRU", dtype="bfloat16")
    engine = layer.freeze("float32")
    assert engine.dtype == "float32"
    assert_same(down(engine(up(HOST))[0]), down(make("GRU")(up(HOST))[0]))


def test_an_out_that_cannot_take_the_result_is_refused() -> None:
    engine, memory = make("GRU").freeze(), up(normal(2 * T, N, 9))
    x = memory[:T, :, :D]
    for out, error, words in (
        (normal(T, N, H), TypeError, "out: expected a CuPy array of float32 on cuda:0, got a Num"),
        (up(normal(T, N, H).astype("f8")), TypeError, "out: expected dtype float32, got float64"),
        (up(normal(N, T, H)), ValueError, r"out: expected \(6, 3, 5\), got \(3, 6, 5\)"),
        (memory[:T, :, 4:], ValueError, "out: expected memory of its own, got one that overlaps x"),
        (stand_in_cupy.make().broadcast_to(up(normal(1, N, H)), (T, N, H)), ValueError,
         "out: expected elements apart in memory"),
    ):  # fmt: skip
        with no_read_back(), pytest.raises(error, match=words):
            engine(x, out=out)
    out = memory[T:, :, 4:]
    assert_same(down(engine(x, out=out)[0]), down(engine(x)[0]))


def test_an_empty_call_hands_the_state_on() -> None:
    layer = make("LSTM")
    state = start(layer)
    y, end = layer.forward(up(np.zeros((0, N, D), "f4")), up(state))
    dx, dstart = layer.backward(y, end)
    assert y.shape == (0, N, H)
    assert dx.shape == (0, N, D)
    assert_same(down([end, dstart]), [state, state])
