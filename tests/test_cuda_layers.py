"""Layers on a GPU, on a stand-in for CuPy: what goes in and comes out, and is not read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import on_device
import pytest
import stand_in_cupy
from both_backends import assert_same, normal
from cases import Case, assert_results_close, draw, masks_of_call, run_reference
from on_device import down, up
from stand_in_cupy import no_read_back

import rnncore as rc
from rnncore import functional
from rnncore.cells import CellSpec

pytestmark = pytest.mark.host_only  # with --device cuda, the whole suite asks a GPU the same

T, N, D, H = 6, 3, 4, 5
KINDS = ("RNN", "LSTM", "GRU")


@pytest.fixture(autouse=True, params=["cpu", "reference"])
def cupy(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    with on_device.stand_in(request.param) as module:
        yield module


def make(kind: str, device: str = "cuda", **options: Any) -> Any:
    return getattr(rc, kind)(D, H, **{"num_layers": 2, "seed": 3, "device": device, **options})


def start(layer: Any, batch: int = N) -> Any:
    """Return a state of the layer in host memory."""
    shapes = layer.spec.state_shapes(batch)
    dtype = layer.spec.state_dtype
    parts = [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]
    return tuple(parts) if len(parts) == 2 else parts[0]


def run(layer: Any, x: np.ndarray, dy: np.ndarray, state: Any, lengths: Any, resets: Any) -> list:
    """Train through a layer of either device on arrays of the host; return all that comes out."""
    lift = up if layer.device != "cpu" else (lambda value: value)
    given = [lift(value) for value in (x, state)], [lift(value) for value in (dy, state)]
    with no_read_back():
        inferred = layer(*given[0], lengths, lift(resets))
        y, end = layer.forward(*given[0], lengths, lift(resets))
        dx, dstart = layer.backward(*given[1])
    return down([y, end, dx, dstart, *layer.grads.values(), *inferred])


def joined(kind: str, device: str, **options: Any) -> Any:
    """Return a layer made of layers."""
    first = rc.Bidirectional(make("GRU", device, **options), merge=kind)
    return rc.Stack([first, rc.LSTM(first.output_size, 3, seed=5, device=device, **options)])


# --- the same numbers as on the CPU ---------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [6, 2, 0]])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bidirectional": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_on_the_gpu_gives_what_it_gives_on_the_cpu(kind, options, lengths) -> None:
    here, there = make(kind, "cpu", **options), make(kind, **options)
    shape = (N, T) if options else (T, N)
    x, dy = normal(*shape, D), normal(*shape, here.output_size, seed=1)
    resets = np.zeros(shape, "?")
    resets[2, 1] = True
    arguments = (x, dy, start(here), lengths, resets)
    on_gpu = run(there, *arguments)
    with on_device.backends.use(on_device.backends.current("cuda").host):
        assert_same(on_gpu, run(here, *arguments))


@pytest.mark.parametrize("lengths", [None, [6, 2, 0]])
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
def test_layers_of_layers_run_on_the_gpu(merge: str, lengths: Any) -> None:
    here, there = joined(merge, "cpu"), joined(merge, "cuda")
    x, dy = normal(T, N, D), normal(T, N, 3, seed=1)
    resets = np.zeros((T, N), "?")
    resets[2, 1] = True
    with no_read_back():
        y, _ = there.forward(up(x), None, lengths, up(resets))
        dx, _ = there.backward(up(dy))
    with on_device.backends.use(on_device.backends.current("cuda").host):
        expected = [here.forward(x, None, lengths, resets)[0], here.backward(dy)[0]]
    assert_same(down([y, dx, *there.grads.values()]), [*expected, *here.grads.values()])


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cell_on_the_gpu_gives_what_it_gives_on_the_cpu(kind: str) -> None:
    results = []
    x, h = normal(N, D), normal(N, H)
    before = (h, normal(N, H, seed=1)) if kind == "LSTMCell" else h
    for device, lift in (("cpu", lambda value: value), ("cuda", up)):
        cell = getattr(rc, kind)(D, H, seed=3, device=device)
        with no_read_back():
            state = cell.forward(lift(x), lift(before))
            dx, dstate = cell.backward(state)
        results.append(down([state, dx, dstate, *cell.grads.values()]))
    for ours, theirs in zip(*map(on_host_parts, results), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-7)
        assert np.abs(theirs).max() > 0


def on_host_parts(nested: Any) -> list[np.ndarray]:
    if isinstance(nested, np.ndarray):
        return [nested]
    return [array for part in nested for array in on_host_parts(part)]


@pytest.mark.parametrize("options", [
    {"dropout": 0.4}, {"dropout": 0.4, "variational": True}, {"recurrent_dropout": 0.3},
    {"zoneout": 0.2},
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_masks_have_the_bits_that_the_cpu_draws(options: dict, dtype: str) -> None:
    spec = replace(make("GRU").spec, dtype=dtype, zoneout=(options.get("zoneout", 0.0), 0.0))
    rates = {name: rate for name, rate in options.items() if name != "zoneout"}
    expected = functional.draw_masks(spec, T, N, seed=3, call=2, **rates)
    layer = make("GRU", dtype=dtype, **options)
    layer.rng_state = {"seed": 3, "calls": 2}
    with no_read_back():
        *_, tape = layer.record(up(normal(T, N, D).astype(spec.numpy_dtype)))
    with tape.record() as record:
        for ours, theirs in zip(record.masks, expected, strict=True):
            assert [mask is None for mask in ours] == [mask is None for mask in theirs]
            for mask, wanted in zip(ours, theirs, strict=True):
                if mask is not None:
                    assert mask.dtype == wanted.dtype
                    assert np.array_equal(mask.get(), wanted)
    assert any(mask is not None for part in expected for mask in part)


def test_functions_run_where_x_lies() -> None:
    spec = CellSpec("lstm", D, H, num_layers=2, zoneout=(0.2, 0.1))
    params = {name: normal(*shape) for name, shape in spec.param_shapes().items()}
    x, dy, state = normal(T, N, D), normal(T, N, H), start(make("LSTM"))
    masks = functional.draw_masks(spec, T, N, dropout=0.3, recurrent_dropout=0.2, seed=1)
    results = []
    host = on_device.backends.current("cuda").host
    with on_device.backends.use(host):
        for lift in (lambda value: value, up):
            weights = {name: lift(value) for name, value in params.items()}
            taken = functional.Masks(*([*map(lift, part)] for part in masks))
            with no_read_back():
                y, end, tape = functional.forward(
                    spec, weights, lift(x), lift(state), [6, 2, 0], masks=taken
                )
                dx, dstart, grads = functional.backward(spec, weights, tape, lift(dy), lift(state))
            results.append(down([y, end, dx, dstart, *grads.values()]))
    assert_same(*results)


# --- sixteen bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_sequences_of_sixteen_bits_have_float32_around_them(cell: str, dtype: str) -> None:
    case = Case(cell=cell, T=T, N=N, D=D, H=H, layers=2, ragged=True, dropout=0.3)
    problem, short = draw(case), np.dtype(getattr(ml_dtypes, dtype, dtype))
    problem.x, problem.dy = problem.x.astype(short), problem.dy.astype(short)
    layer = make(cell.upper(), dtype=dtype, dropout=0.3, seed=0)
    layer.load_state_dict(problem.params)
    state, dstate = (problem.h0, problem.c0), (problem.dhn, problem.dcn)
    if cell != "lstm":
        state, dstate = problem.h0, problem.dhn
    with no_read_back():
        y, end = layer.forward(up(problem.x), up(state), problem.lengths)
        dx, dstart = layer.backward(up(problem.dy), up(dstate))
    assert y.dtype == dx.dtype == short
    parts = [part for pair in (end, dstart) for part in (pair if cell == "lstm" else [pair])]
    arrays = [*parts, *layer.params.values(), *layer.grads.values()]
    assert {array.dtype for array in arrays} == {np.dtype("float32")}
    problem.x, problem.dy = problem.x.astype("f4"), problem.dy.astype("f4")
    expected = run_reference(case, problem.but(masks=masks_of_call(case, 0)))
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    for ours, name in ((y, "y"), (dx, "dx"), *((layer.grads[k], f"d {k}") for k in layer.grads)):
        error = np.abs(down(ours).astype("f8") - expected[name]).max()
        assert error <= 8 * unit * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
def test_layers_of_layers_take_sixteen_bits(merge: str, dtype: str) -> None:
    layer, wide = joined(merge, "cuda", dtype=dtype), joined(merge, "cuda")
    short = layer.layers[0].spec.numpy_dtype
    x, dy = normal(T, N, D).astype(short), normal(T, N, 3, seed=1).astype(short)
    y, _ = layer.forward(up(x), None, [6, 2, 0])
    dx, _ = layer.backward(up(dy))
    expected_y, _ = wide.forward(up(x.astype("f4")), None, [6, 2, 0])
    expected_dx, _ = wide.backward(up(dy.astype("f4")))
    for ours, theirs in ((y, expected_y), (dx, expected_dx)):
        assert ours.dtype == short
        ours, theirs = down(ours).astype("f4"), down(theirs)
        assert np.abs(ours - theirs).max() <= 0.05 * np.abs(theirs).max()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits_are_for_gpus_alone(dtype: str) -> None:
    words = f"dtype: {dtype} is not in this version of rnncore on the CPU; device='cuda' has it"
    with pytest.raises(NotImplementedError, match=words):
        make("GRU", "cpu", dtype=dtype)
    with pytest.raises(NotImplementedError, match=words):
        rc.LSTMCell(D, H, dtype=dtype)
    layer = make("GRU", dtype=dtype)
    before = layer.params["weight_ih_l0"]
    with pytest.raises(NotImplementedError, match=words):
        layer.to("cpu")
    assert layer.device == "cuda:0"
    assert layer.params["weight_ih_l0"] is before
    spec = CellSpec("gru", D, H, dtype=dtype)
    with pytest.raises(NotImplementedError, match=words):
        functional.forward(spec, {}, normal(T, N, D).astype(spec.numpy_dtype))


# --- what is taken --------------------------------------------------------------------------------


class Tensor:
    """Another library's array on a GPU, known by DLPack."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        return self.array.__dlpack__()


class Described:
    """Another library's array on a GPU, known by CUDA's array interface."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.array.__cuda_array_interface__


@pytest.mark.parametrize("kind", [Tensor, Described])
def test_arrays_of_other_libraries_are_taken_without_a_copy(kind: Any) -> None:
    layer, x = make("LSTM"), up(normal(T, N, D))
    state = up(start(layer))
    with no_read_back():
        y, end, tape = layer.record(kind(x), tuple(map(kind, state)))
        expected = layer.record(x, state)[:2]
    assert_same(down([y, end]), down(expected))
    with tape.record() as record:
        assert record.inputs.x.data.ptr == x.data.ptr
        assert record.inputs.state[1].data.ptr == state[1].data.ptr
    dx, _ = layer.backward(kind(y), tape=tape)
    assert type(dx) is stand_in_cupy.ndarray


def test_results_are_new_arrays_and_inputs_are_referenced() -> None:
    layer, x = make("GRU", batch_first=True), up(normal(N, T, D))
    y, _, tape = layer.record(x)
    assert y.flags.c_contiguous
    with tape.record() as record:
        assert record.inputs.x.data.ptr == x.data.ptr
        assert record.y.data.ptr == y.data.ptr


def test_arrays_whose_last_axis_is_not_contiguous_are_copied_on_the_gpu() -> None:
    layer, x = make("GRU"), normal(D, T, N)
    with no_read_back():
        y, _ = layer(up(x).transpose(1, 2, 0))
    assert_same(down(y), down(layer(up(np.ascontiguousarray(x.transpose(1, 2, 0))))[0]))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_lengths_on_the_gpu_are_used_and_never_read_back(dtype: str) -> None:
    layer, x = make("LSTM", bidirectional=True), up(normal(T, N, D))
    expected = layer(x, None, [6, 2, 0])
    lengths = up_any(np.array([6, 2, 0], dtype))
    with no_read_back():
        results = layer(x, None, lengths)
        layer.forward(x, None, lengths)
        lengths.fill(6)  # they were copied
        dx, _ = layer.backward(expected[0])
    assert_same(down(results), down(expected))
    assert (down(dx)[2:, 1] == 0).all()
    alone = layer(up(normal(T, D)), None, up_any(np.array(2, dtype)))
    assert_same(down(alone), down(layer(up(normal(T, D)), None, 2)))


def test_lengths_on_the_gpu_out_of_range_are_clamped() -> None:
    x, far = up(normal(T, N, D)), up_any(np.array([99, 2, -4]))
    for layer in (make("GRU"), rc.Bidirectional(make("GRU"))):
        assert_same(down(layer(x, None, far)), down(layer(x, None, [6, 2, 0])))


def up_any(array: np.ndarray) -> Any:
    return stand_in_cupy.asarray(array)


HOST = normal(T, N, D)
REFUSED = [
    ({"x": HOST}, TypeError, "x: expected a CuPy array of float32 on cuda:0, got a NumPy array"),
    ({"x": None}, TypeError, "x: expected a CuPy array of float32 on cuda:0, got None"),
    ({"x": [[1.0]]}, TypeError, "x: expected a CuPy array of float32 on cuda:0, got a list"),
    ({"x": lambda: up(HOST.astype("f8"))}, TypeError, "x: expected dtype float32, got float64"),
    ({"x": lambda: up(HOST[..., :2])}, ValueError, r"x: expected \(T, N, 4\), got \(6, 3, 2\)"),
    ({"state": normal(2, N, H)}, TypeError, "state: expected a CuPy array of float32 on cuda:0"),
    ({"state": lambda: up(normal(2, 9, H))}, ValueError, r"state: expected \(2, 3, 5\)"),
    ({"lengths": [7, 0, 0]}, ValueError, r"lengths\[0\]: expected 0 to 6, got 7"),
    ({"lengths": lambda: up_any(np.zeros(2, "i8"))}, ValueError, r"lengths: expected shape \(3,\)"),
    ({"lengths": lambda: up_any(np.zeros(3))}, TypeError, "lengths: expected integers, got dtype"),
    ({"resets": np.zeros((T, N), "i8")}, TypeError, "resets: expected dtype bool, got int64"),
    ({"resets": lambda: up_any(np.zeros((T, N), "i8"))}, TypeError, "resets: expected dtype bool"),
    ({"resets": lambda: up_any(np.zeros((N, T), "?"))}, ValueError, r"resets: expected \(6, 3\)"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED)
def test_bad_calls_name_argument_expectation_and_what_came(changes, error, words) -> None:
    layer = make("GRU")
    given = {"x": up(HOST)} | {k: v() if callable(v) else v for k, v in changes.items()}
    for call in (layer, layer.forward, layer.record, layer.freeze()):
        with no_read_back(), pytest.raises(error, match=words):
            call(**given)


def test_an_array_on_another_gpu_is_refused() -> None:
    layer, x = make("GRU"), up(HOST)
    with stand_in_cupy.Device(1):
        elsewhere = up(HOST)
    words = "x: expected a CuPy array of float32 on cuda:0, got one on cuda:1"
    for given in (elsewhere, Tensor(elsewhere)):
        with pytest.raises(TypeError, match=words):
            layer(given)
    layer.forward(x)
    with pytest.raises(TypeError, match="dy: expected a CuPy array of float32 on cuda:0, got one"):
        layer.backward(up_on(1, normal(T, N, H)))


def up_on(gpu: int, array: np.ndarray) -> Any:
    with stand_in_cupy.Device(gpu):
        return up(array)


def test_a_gpu_array_for_a_layer_on_the_cpu_is_refused() -> None:
    words = "x: expected a NumPy array of float32 in host memory, got a .* on another device"
    for given in (up(HOST), Tensor(up(HOST))):
        with pytest.raises(TypeError, match=words):
            make("GRU", "cpu")(given)


def test_a_layer_is_called_where_its_gpu_is_current() -> None:
    layer = make("GRU", "cuda:1")
    x = up_on(1, HOST)
    words = "x: expected cuda:1, where the layer is, to be CuPy's current GPU, got cuda:0"
    with pytest.raises(RuntimeError, match=words):
        layer(x)
    with stand_in_cupy.Device(1):
        expected = down(layer.forward(x)[0])
        layer.backward(None)
        assert make("GRU").device == "cuda:1"
    layer.zero_grad()
    assert_same(expected, down(make("GRU")(up(HOST))[0]))
    assert {array.device.id for array in layer.params.values()} == {1}
    assert {array.device.id for array in layer.grads.values()} == {1}


def test_the_case_runner_agrees_with_the_reference_on_the_gpu() -> None:
    case = Case(layers=2, bidirectional=True, ragged=True, T=T, N=5, resets=True, layer_norm=True)
    from engine import train

    with on_device.lifted_layers():
        assert_results_close(train(case, draw(case)), run_reference(case, draw(case)), "float32")
