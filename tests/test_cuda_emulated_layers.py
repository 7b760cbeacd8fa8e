"""Layers on the emulated device: the real backend and kernels, against the same layer on the CPU.

CuPy is stood in for, and everything beneath it is what a GPU gets but for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import emulated_cuda as emulated
import numpy as np
import pytest
import stand_in_cupy
from both_backends import normal, parts
from emulation.build import compiler
from on_device import down, up
from stand_in_cupy import no_read_back

import rnncore as rc
from rnncore import functional
from rnncore.backends import cuda
from rnncore.cells import CellSpec

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler for the emulation"),
    pytest.mark.host_only,
]

T, N, D, H = 6, 3, 4, 5
KINDS = ("RNN", "LSTM", "GRU")
LENGTHS = [4, 6, 0]
# Two orders of summation of a few dozen products, over a few steps, as a share of the largest.
FLOAT32 = 2e-5
# A few roundings of y, of what a product multiplies, and of gradients.
ROUNDINGS = {"float16": 20 * 2.0**-11, "bfloat16": 20 * 2.0**-8}


@pytest.fixture(autouse=True, params=[False, True], ids=["steps", "persistent"])
def device(request: pytest.FixtureRequest) -> Iterator[emulated.EmulatedDriver]:
    """Run layers on the emulation, in either regime."""
    with emulated.emulated_layers(request.param) as device:
        yield device


def same(value: Any) -> Any:
    return value


def assert_close(actual: Any, expected: Any, allowed: float = FLOAT32) -> None:
    """Compare everything that came out, array by array, by the largest entry."""
    left, right = parts(down(actual)), parts(expected)
    assert len(left) == len(right) > 0
    for i, (one, other) in enumerate(zip(left, right, strict=True)):
        assert one.shape == other.shape
        error = np.abs(one.astype("f8") - other).max(initial=0)
        assert error <= allowed * max(np.abs(other).max(initial=0), 1e-3), f"{i}: {error}"


def make(kind: str, device: str, **options: Any) -> Any:
    return getattr(rc, kind)(D, H, **{"seed": 3, "device": device, **options})


def start(layer: Any, batch: int = N) -> Any:
    shapes = layer.spec.state_shapes(batch)
    dtype = layer.spec.state_dtype
    states = [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]
    return tuple(states) if len(states) == 2 else states[0]


def steps(
    layer: Any, x: np.ndarray, dy: np.ndarray, state: Any = None, lengths: Any = None,
    resets: Any = None,
) -> list[Any]:  # fmt: skip
    """Infer and train on arrays of the host; return all that comes out, nothing read back."""
    lift = same if layer.device == "cpu" else up
    x, dy, state, resets = (lift(value) for value in (x, dy, state, resets))
    with no_read_back():
        inferred = layer(x, state, lengths, resets)
        y, end = layer.forward(x, state, lengths, resets)
        dx, dstart = layer.backward(dy, state)
    return [inferred, y, end, dx, dstart, list(layer.grads.values())]


def compare(make_layer: Callable[[str], Any], *given: Any, on_gpu: Any = None) -> None:
    """Compare the layer on both devices; `on_gpu` are lengths in the GPU's memory."""
    expected = steps(make_layer("cpu"), *given)
    layer = make_layer("cuda")
    if on_gpu is not None:
        given = *given[:3], on_gpu, *given[4:]
    assert_close(steps(layer, *given), expected)


# --- layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_two_layers_in_two_directions(kind: str) -> None:
    def layer(device: str) -> Any:
        return make(kind, device, num_layers=2, bidirectional=True)

    x, dy = normal(T, N, D), normal(T, N, 2 * H, seed=1)
    resets = np.zeros((T, N), "?")
    resets[2, 1] = resets[0, 0] = True
    compare(layer, x, dy, start(layer("cpu")))
    compare(layer, x, dy, start(layer("cpu")), LENGTHS, resets)
    on_gpu = stand_in_cupy.asarray(np.array(LENGTHS, "i4"))
    compare(layer, x, dy, start(layer("cpu")), LENGTHS, resets, on_gpu=on_gpu)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_batch_first(lengths: list[int] | None) -> None:
    x, dy, resets = normal(N, T, D), normal(N, T, H, seed=1), np.zeros((N, T), "?")
    resets[1, 2] = True
    compare(lambda device: make("LSTM", device, batch_first=True), x, dy, None, lengths, resets)
    compare(lambda device: make("GRU", device, batch_first=True), x, dy, None, lengths)


def flipped(array: Any) -> Any:
    return array[::-1, :, :]


def every_other(array: Any) -> Any:
    return array[::2, 1::2]


def turned(array: Any) -> Any:
    return array.transpose(1, 0, 2)


def features_first(array: Any) -> Any:
    return array.transpose(2, 1, 0)


@pytest.mark.parametrize("view", [flipped, every_other, turned, features_first])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_views_are_taken_as_they_lie(view: Callable, lengths: list[int] | None) -> None:
    sizes = {
        flipped: (T, N), every_other: (2 * T, 2 * N), turned: (N, T), features_first: (N, T),
    }[view]  # fmt: skip

    def whole(width: int, seed: int) -> np.ndarray:
        shape = (width, *sizes) if view is features_first else (*sizes, width)
        return normal(*shape, seed=seed)

    x, dy = whole(D, 0), whole(H, 1)
    results = []
    for where, lift in (("cpu", same), ("cuda", up)):
        layer = make("GRU", where)
        with no_read_back():
            y, _ = layer.forward(view(lift(x)), None, lengths)
            dx, _ = layer.backward(view(lift(dy)))
        results.append([y, dx, list(layer.grads.values())])
    assert_close(results[1], results[0])


@pytest.mark.parametrize(("steps_", "batch"), [(0, N), (T, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_no_rows_and_one_of_each(kind: str, steps_: int, batch: int) -> None:
    def layer(device: str) -> Any:
        return make(kind, device, num_layers=2)

    x, dy = normal(steps_, batch, D), normal(steps_, batch, H, seed=1)
    compare(layer, x, dy, start(layer("cpu"), batch))
    lengths = [steps_] * batch
    on_gpu = stand_in_cupy.asarray(np.array(lengths, "i8"))
    compare(layer, x, dy, start(layer("cpu"), batch), lengths, on_gpu=on_gpu)


def test_a_stateful_layer_goes_on_where_it_was() -> None:
    results = []
    for where, lift in (("cpu", same), ("cuda", up)):
        layer = make("LSTM", where, stateful=True)
        collected = []
        for call in range(3):
            with no_read_back():
                y, end = layer.forward(lift(normal(T, N, D, seed=call)))
                dx, dstart = layer.backward(lift(normal(T, N, H, seed=9)))
            collected += [y, end, dx, dstart, layer.state]
        layer.reset_state([1])
        collected += [layer(lift(normal(T, N, D))), list(layer.grads.values())]
        results.append(collected)
    assert_close(results[1], results[0])


@pytest.mark.parametrize("options", [
    {"dropout": 0.4}, {"dropout": 0.4, "variational": True, "recurrent_dropout": 0.3},
    {"zoneout": 0.2},
])  # fmt: skip
def test_what_is_drawn_at_random_is_the_same(options: dict[str, Any]) -> None:
    x, dy = normal(T, N, D), normal(T, N, H, seed=1)
    compare(lambda device: make("GRU", device, num_layers=2, **options), x, dy, None, LENGTHS)


OPTIONS = [
    *((kind, {"layer_norm": True, "clip": 0.7}) for kind in KINDS),
    *((kind, {"bias": False, "recurrent_dropout": 0.3, "zoneout": 0.1}) for kind in KINDS),
    ("RNN", {"nonlinearity": "relu"}), ("RNN", {"activations": ("Softsign",)}),
    ("LSTM", {"proj_size": 3}), ("LSTM", {"peephole": True}), ("LSTM", {"coupled": True}),
    ("LSTM", {"zoneout": (0.1, 0.4)}), ("GRU", {"reset_after": False}),
]  # fmt: skip


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_options(kind: str, options: dict[str, Any], dtype: str) -> None:
    def layer(device: str) -> Any:
        return make(kind, device, num_layers=2, dtype=dtype, **options)

    resets = np.zeros((T, N), "?")
    resets[3, 1] = True
    x, dy = normal(T, N, D), normal(T, N, options.get("proj_size", H), seed=1)
    for lengths in (None, LENGTHS):
        compare(layer, x.astype(dtype), dy.astype(dtype), start(layer("cpu")), lengths, resets)


@pytest.mark.nightly
@pytest.mark.parametrize("units", [33, 70, 100, 130])
@pytest.mark.parametrize("kind", KINDS)
def test_every_width_of_a_block_and_beyond(kind: str, units: int) -> None:
    def layer(device: str) -> Any:
        return getattr(rc, kind)(D, units, seed=3, bidirectional=True, device=device)

    x, dy = normal(T, 9, D), normal(T, 9, 2 * units, seed=1)
    compare(layer, x, dy, start(layer("cpu"), 9), [6, 1, 0, 3, 3, 5, 2, 6, 4])


def test_a_retained_tape_gives_the_same_bits_and_a_spent_one_is_refused() -> None:
    layer, x, dy = make("LSTM", "cuda"), up(normal(T, N, D)), up(normal(T, N, H, seed=1))
    _, _, tape = layer.record(x)
    grads = []
    for retain in (True, False):
        layer.zero_grad()
        dx, _ = layer.backward(dy, tape=tape, retain=retain)
        grads.append([array.get().tobytes() for array in (dx, *layer.grads.values())])
    assert grads[0] == grads[1]
    with pytest.raises(RuntimeError, match="tape"):
        layer.backward(dy, tape=tape)


# --- frozen, saved, joined ------------------------------------------------------------------------


def test_a_frozen_engine_writes_into_out() -> None:
    x = normal(T, N, D)
    here, there = make("LSTM", "cpu", bidirectional=True), make("LSTM", "cuda", bidirectional=True)
    engine, out = there.freeze(), stand_in_cupy.empty((T, N, 2 * H), "f4")
    with no_read_back():
        y, state = engine(up(x), lengths=LENGTHS, out=out)
    assert y is out
    assert_close([y, state], here(x, None, LENGTHS))
    for name in there.params:
        there.params[name].fill(0)  # a snapshot sees nothing of it
    assert_close(engine(up(x), lengths=LENGTHS), here(x, None, LENGTHS))


def test_a_layer_is_saved_here_and_loaded_there(tmp_path: Any) -> None:
    here, x = make("GRU", "cuda", num_layers=2), normal(T, N, D)
    rc.save(tmp_path / "layer", here)
    there = rc.load(tmp_path / "layer")
    back = rc.load(tmp_path / "layer", device="cuda")
    assert (there.device, back.device) == ("cpu", "cuda:0")
    assert_close(here(up(x)), there(x))
    assert_close(back(up(x)), there(x))
    assert_close(here.to("cpu")(x), there(x))


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "average"])
def test_layers_of_layers(merge: str) -> None:
    def joined(device: str) -> Any:
        first = rc.Bidirectional(make("GRU", device, num_layers=2), merge=merge)
        return rc.Stack([first, rc.LSTM(first.output_size, 3, seed=5, device=device)])

    results = []
    x, dy = normal(T, N, D), normal(T, N, 3, seed=1)
    for where, lift in (("cpu", same), ("cuda", up)):
        layer = joined(where)
        with no_read_back():
            y, _ = layer.forward(lift(x), None, LENGTHS)
            dx, _ = layer.backward(lift(dy))
        results.append([y, dx, list(layer.grads.values())])
    assert_close(results[1], results[0])


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_cell(kind: str) -> None:
    x, h = normal(N, D), normal(N, H)
    before = (h, normal(N, H, seed=1)) if kind == "LSTMCell" else h
    results = []
    for where, lift in (("cpu", same), ("cuda", up)):
        cell = make(kind, where)
        with no_read_back():
            state = cell.forward(lift(x), lift(before))
            dx, dstate = cell.backward(state)
        results.append([state, dx, dstate, list(cell.grads.values())])
    assert_close(results[1], results[0])


def test_functions_run_where_x_lies() -> None:
    spec = CellSpec("lstm", D, H, num_layers=2)
    params = {name: normal(*shape) for name, shape in spec.param_shapes().items()}
    x, dy = normal(T, N, D), normal(T, N, H)
    masks = functional.draw_masks(spec, T, N, dropout=0.3, recurrent_dropout=0.2, seed=1)
    results = []
    for lift in (same, up):
        weights = {name: lift(value) for name, value in params.items()}
        taken = functional.Masks(*([*map(lift, part)] for part in masks))
        with no_read_back():
            y, end, tape = functional.forward(spec, weights, lift(x), None, LENGTHS, masks=taken)
            dx, dstart, grads = functional.backward(spec, weights, tape, lift(dy))
        results.append([y, end, dx, dstart, list(grads.values())])
    assert_close(results[1], results[0])


# --- sixteen bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sequences_of_sixteen_bits(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    wide, short = make("LSTM", "cpu", num_layers=2), make("LSTM", "cuda", num_layers=2, dtype=dtype)
    kind = short.spec.numpy_dtype
    x, dy = normal(T, N, D).astype(kind), normal(T, N, H, seed=1).astype(kind)
    ours = steps(short, x, dy, start(wide), LENGTHS)
    assert ours[1].dtype == ours[3].dtype == kind
    expected = steps(wide, x.astype("f4"), dy.astype("f4"), start(wide), LENGTHS)
    assert_close(ours, expected, ROUNDINGS[dtype])


# --- lengths that nobody may look at --------------------------------------------------------------


def test_lengths_beyond_their_range_are_told_of_by_the_next_call() -> None:
    layer, x = make("GRU", "cuda"), up(normal(T, N, D))
    words = "lengths: expected 0 to T, got others in an earlier call; they were clamped"
    for wild in ([99, 2, 0], [T, 2, -4], [2**40, 2, -(2**40)]):
        expected = down(layer(x, None, [max(0, min(T, length)) for length in wild]))
        with no_read_back():
            y, _ = layer(x, None, stand_in_cupy.asarray(np.array(wild)))
        with pytest.raises(rc.DeviceError, match=words):
            layer(x)
        assert y.get().tobytes() == expected[0].tobytes()
        layer(x)  # told once
        rc.cuda.check()
        layer.forward(x, None, stand_in_cupy.asarray(np.array(wild)))
        with pytest.raises(rc.DeviceError, match=words):
            rc.cuda.check()


def test_lengths_in_their_range_leave_no_word(device: emulated.EmulatedDriver) -> None:
    layer, many = make("GRU", "cuda"), 700  # more rows than a block has threads
    lengths = np.random.default_rng(0).integers(0, 2, many, endpoint=True)
    x = up(normal(2, many, D))
    expected = down(layer(x, None, lengths)[0])
    y, _ = layer(x, None, stand_in_cupy.asarray(lengths))
    assert device.beyond() is None
    assert y.get().tobytes() == expected.tobytes()
    lengths[-1] = 3  # one in the last row is enough
    layer(x, None, stand_in_cupy.asarray(lengths))
    assert device.beyond() is not None
    assert device.beyond() is None


def test_the_backend_is_the_real_one(device: emulated.EmulatedDriver) -> None:
    layer = make("LSTM", "cuda")
    *_, tape = layer.record(up(normal(T, N, D)))
    with tape.record() as record:
        assert type(record.core) is cuda.Tape
    packed = cuda.pack(layer.spec, list(layer.params.values()), 1)
    assert packed.nbytes > 0
    assert device.beyond_lengths()
