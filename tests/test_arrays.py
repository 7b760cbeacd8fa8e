"""Arrays of other libraries, and arrays that lie oddly in memory: taken where they are, or refused.

How strides and offsets of NumPy's own arrays keep the bits is in test_strides.py.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnncore as rc
from rnncore import checks, functional, nn

T, N, D, H = 5, 3, 4, 6
FLOAT = np.dtype("float32")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def address(value: np.ndarray) -> int:
    return value.__array_interface__["data"][0]


class Interface:
    """An array that has nothing but ``__array_interface__``."""

    def __init__(self, held: np.ndarray) -> None:
        self.held = held
        self.__array_interface__ = held.__array_interface__


class Capsule:
    """An array that has nothing but DLPack."""

    def __init__(self, held: np.ndarray) -> None:
        self.held = held

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.held.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> object:
        return self.held.__dlpack__(**options)


class Elsewhere:
    """An array in another device's memory."""

    shape, dtype = (T, N, D), FLOAT

    def __init__(self, kind: int = 2) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 1)

    def __dlpack__(self, **options: Any) -> object:
        raise AssertionError("nobody may ask for memory that is out of reach")


class CudaOnly:
    __cuda_array_interface__ = {"shape": (T, N, D), "typestr": "<f4", "version": 3}  # noqa: RUF012


def torch_tensor(value: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(value)


def jax_array(value: np.ndarray) -> Any:
    return pytest.importorskip("jax.numpy").asarray(value)


WRAPPERS: dict[str, Callable[[np.ndarray], Any]] = {
    "torch": torch_tensor,
    "jax": jax_array,
    "interface": Interface,
    "capsule": Capsule,
    "memoryview": memoryview,
    "memmap": lambda value: value.view(np.memmap),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_arrays_of_other_libraries_are_seen_where_they_are(wrapper: str) -> None:
    held = drawn(T, N, D)
    given = WRAPPERS[wrapper](held)
    taken = checks.array("x", given, FLOAT)
    assert type(taken) is np.ndarray
    assert np.array_equal(taken, held)
    expected = given.unsafe_buffer_pointer() if wrapper == "jax" else address(held)
    assert address(taken) == expected
    if wrapper == "jax":
        assert not taken.flags.writeable


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_entrance_takes_them_and_gives_numpy_arrays(wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    layer = rc.LSTM(D, H, 2, seed=0)
    x, dy, h0, c0 = drawn(T, N, D), drawn(T, N, H), drawn(2, N, H, seed=2), drawn(2, N, H, seed=3)
    lengths, resets = np.array([5, 2, 0]), drawn(T, N, seed=4) > 0.5
    results = []
    for take in (lambda value: value, wrap):
        layer.zero_grad()
        call = (take(x), (take(h0), take(c0)), take(lengths.astype("i4")), take(resets))
        y, state = layer.forward(*call)
        dx, dstate = layer.backward(take(dy), (take(h0), None))
        frozen = layer.freeze()(*call)
        stream = layer.freeze().stream(N)
        stream.state = (take(h0), take(c0))
        steps = [stream.step(take(step)) for step in x]
        flat = functional.forward(
            layer.spec, {k: take(v) for k, v in layer.params.items()}, call[0]
        )
        arrays = [y, *state, dx, *dstate, frozen[0], *frozen[1], *steps, flat[0]]
        arrays += [gradient.copy() for gradient in layer.grads.values()]
        results.append(arrays)
    assert all(type(one) is np.ndarray for one in results[1])
    assert all(np.array_equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("wrapper", [name for name in WRAPPERS if name != "memmap"])
def test_modules_and_losses_take_them_too(wrapper: str) -> None:
    wrap = WRAPPERS[wrapper]
    x, indices, target = drawn(T, D), np.array([1, 0, 2], "i4"), np.array([0, 5, 1, 1, 2], "i4")
    linear, table = nn.Linear(D, H, seed=0), nn.Embedding(3, 2, seed=0)
    y = linear(x)
    assert np.array_equal(linear.forward(wrap(x)), y)
    dx = linear.backward(wrap(y))
    linear.forward(x)
    assert np.array_equal(dx, linear.backward(y))
    assert np.array_equal(table(wrap(indices)), table.params["weight"][[1, 0, 2]])
    loss = nn.SoftmaxCrossEntropy()
    assert loss(wrap(y), wrap(target)) == loss(y, target)


def entrances() -> dict[str, tuple[str, Callable[[Any], object]]]:
    layer = rc.LSTM(D, H, seed=0)
    x, h = drawn(T, N, D), drawn(1, N, H)
    layer.forward(x)
    linear, stream = nn.Linear(D, 2, seed=0), layer.freeze().stream(N)
    names = {name: value.copy() for name, value in layer.params.items()}
    return {
        "x": ("x", layer),
        "frozen x": ("x", layer.freeze()),
        "state": (r"state\[1\]", lambda bad: layer(x, (h, bad))),
        "lengths": ("lengths", lambda bad: layer(x, lengths=bad)),
        "resets": ("resets", lambda bad: layer(x, resets=bad)),
        "dy": ("dy", layer.backward),
        "dstate": (r"dstate\[0\]", lambda bad: layer.backward(None, (bad, None))),
        "x_t": ("x_t", stream.step),
        "stream state": ("h", lambda bad: setattr(stream, "state", (bad, h))),
        "out": ("out", lambda bad: layer.freeze()(x, out=bad)),
        "state_dict": (
            "bias_ih_l0",
            lambda bad: layer.load_state_dict(names | {"bias_ih_l0": bad}),
        ),
        "functional": ("x", lambda bad: functional.forward(layer.spec, layer.params, bad)),
        "cell": ("x", rc.GRUCell(D, H, seed=0)),
        "linear": ("x", linear.forward),
        "embedding": ("x", nn.Embedding(3, 2, seed=0)),
        "prediction": ("prediction", lambda bad: nn.SoftmaxCrossEntropy()(bad, [0])),
    }


# These bring arrays of a GPU over, or compute there.
TAKE_GPUS = {"state_dict", "functional", "prediction"}
ELSEWHERE = [
    (kind, entrance)
    for kind in ("CUDA", "ROCm", "CUDA interface")
    for entrance in entrances()
    if kind == "ROCm" or entrance not in TAKE_GPUS
]


@pytest.mark.parametrize(("kind", "entrance"), ELSEWHERE)
def test_memory_of_another_device_is_an_error_that_names_argument_and_device(
    entrance: str, kind: str
) -> None:
    name, call = entrances()[entrance]
    bad = CudaOnly() if kind == "CUDA interface" else Elsewhere({"CUDA": 2, "ROCm": 10}[kind])
    expected = name if entrance == "out" else f"{name}.*host memory.*another device, .*device"
    with pytest.raises(TypeError, match=expected):
        call(bad)


@pytest.mark.parametrize("entrance", [name for name in entrances() if name != "out"])
def test_a_tensor_that_requires_grad_is_an_error_that_says_detach(entrance: str) -> None:
    torch = pytest.importorskip("torch")
    name, call = entrances()[entrance]
    with pytest.raises(TypeError, match=rf"{name}.*requires grad.*\.detach\(\)"):
        call(torch.nn.Parameter(torch.zeros(T, N, D)))


def test_torch_tensors_without_memory_of_their_own_are_type_errors() -> None:
    torch = pytest.importorskip("torch")
    layer, x = rc.GRU(D, H, seed=0), torch.ones(T, N, D)
    for bad in (x.to("meta"), x.to_sparse(), x.bfloat16(), x.half(), x.to(torch.complex64)):
        with pytest.raises(TypeError, match=r"^x: expected"):
            layer(bad)


def test_a_tensor_with_a_minus_that_waits_is_taken_with_its_sign() -> None:
    torch = pytest.importorskip("torch")
    layer, x = rc.GRU(D, H, seed=0), drawn(T, N, D)
    pair = torch.view_as_complex(torch.from_numpy(np.stack([x, x], -1)))
    negative = pair.conj().imag
    assert negative.is_neg()
    assert np.array_equal(layer(negative)[0], layer(-x)[0])


def test_expanded_and_turned_tensors_are_taken_as_they_lie() -> None:
    torch = pytest.importorskip("torch")
    layer, x = rc.GRU(D, H, seed=0), drawn(T, N, D)
    turned = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))).permute(1, 2, 0)
    assert np.array_equal(layer(turned)[0], layer(x)[0])
    wide = torch.from_numpy(x[0]).expand(T, N, D)
    assert np.array_equal(layer(wide)[0], layer(np.repeat(x[:1], T, 0))[0])


def test_a_traced_array_of_jax_is_a_type_error() -> None:
    jax = pytest.importorskip("jax")
    layer = rc.GRU(D, H, seed=0)
    with pytest.raises(TypeError, match=r"^x: expected"):
        jax.jit(lambda x: layer(x)[0])(drawn(T, N, D))


@pytest.mark.parametrize("bad", [[[0.0] * D], "x", b"xxxx", 1.0, np.float32(1), None, object()])
def test_what_lends_no_memory_is_a_type_error(bad: object) -> None:
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array of float32, got"):
        rc.GRU(D, H, seed=0)(bad)


def test_buffers_of_another_type_or_shape_are_told_as_arrays_are() -> None:
    layer = rc.GRU(D, H, seed=0)
    with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
        layer(array.array("d", [0.0] * D))
    with pytest.raises(ValueError, match=r"x: expected .* got \(4,\)"):
        layer(array.array("f", [0.0] * D))


@pytest.mark.parametrize("name", ["x", "dy", "h0"])
def test_a_foreign_byte_order_is_told(name: str) -> None:
    layer, x = rc.GRU(D, H, seed=0), drawn(T, N, D)
    foreign = ">f4" if sys.byteorder == "little" else "<f4"
    y, _ = layer.forward(x)
    call = {
        "x": lambda: layer(x.astype(foreign)),
        "dy": lambda: layer.backward(y.astype(foreign)),
        "h0": lambda: layer(x, drawn(1, N, H).astype(foreign)),
    }[name]
    with pytest.raises(TypeError, match="foreign byte order"):
        call()


def test_fields_of_packed_records_are_taken_by_value() -> None:
    """Neither their address nor their strides are those of whole numbers."""
    layer, x = rc.GRU(D, H, seed=0), drawn(T, N, D)
    records = np.zeros((T, N), np.dtype([("flag", "u1"), ("values", "f4", (D,))]))
    records["values"] = x
    field = records["values"]
    assert not field.flags.aligned
    assert field.strides[1] % 4
    assert np.array_equal(layer(field)[0], layer(x)[0])
    stream, other = layer.freeze().stream(N), layer.freeze().stream(N)
    assert np.array_equal(stream.step(field[0]), other.step(x[0]))


@pytest.mark.parametrize("stride", [37, -41, 2**40 + 4, 2**40 + 1, 0])
def test_a_stride_that_no_index_takes_may_be_anything(stride: int) -> None:
    layer, x = rc.GRU(D, H, seed=0), drawn(1, 1, D)
    odd = np.lib.stride_tricks.as_strided(x, (1, 1, D), (stride, stride, 4))
    assert odd.strides[:2] == (stride, stride)
    y, _ = layer.forward(odd)
    assert np.array_equal(y, layer(x)[0])
    dx, _ = layer.backward(np.lib.stride_tricks.as_strided(y, y.shape, (stride, stride, 4)))
    assert dx.shape == (1, 1, D)
    assert np.array_equal(layer.freeze()(odd)[0], y)


@pytest.mark.parametrize("shape", [(0, N, D), (T, 0, D), (0, 0, D), (0, D)])
def test_arrays_of_no_size_are_taken_with_any_strides(shape: tuple[int, ...]) -> None:
    layer = rc.GRU(D, H, seed=0)
    empty = np.lib.stride_tricks.as_strided(
        np.zeros(1, "f4"), shape, (7,) * (len(shape) - 1) + (4,)
    )
    y, h = layer.forward(empty)
    assert y.shape == (*shape[:-1], H)
    assert (h == 0).all()
    out = np.empty_like(y)
    assert layer.freeze()(empty, out=out)[0] is out
    dx, _ = layer.backward(y)
    assert dx.shape == shape
    assert not any(gradient.any() for gradient in layer.grads.values())


def test_rows_of_a_step_are_taken_however_they_lie_and_not_written() -> None:
    engine = rc.LSTM(D, H, seed=0).freeze()
    x = drawn(N, D)
    expected = engine.stream(N).step(x)
    unaligned = np.zeros(x.nbytes + 1, "u1")[1:].view("f4").reshape(x.shape)
    unaligned[...] = x
    wide = np.zeros((2 * N, 2 * D), "f4")
    wide[::2, ::2] = x
    for given in (unaligned, wide[::2, ::2], np.asfortranarray(x), x[::-1].copy()[::-1]):
        assert np.array_equal(engine.stream(N).step(given), expected)
    x.flags.writeable = False
    assert np.array_equal(engine.stream(N).step(x), expected)


@pytest.mark.parametrize("what", ["x", "h0", "c0", "itself", "x unaligned"])
def test_out_may_share_no_element_with_what_is_read(what: str) -> None:
    engine = rc.LSTM(D, D, seed=0).freeze()
    room = drawn(T + 2, N, D)
    x, h0, c0 = room[:T], drawn(1, N, D, seed=1), drawn(1, N, D, seed=2)
    out = np.zeros((T, N, D), np.float32)
    if what == "x":
        out = room[2:]
    elif what == "itself":
        out = np.lib.stride_tricks.as_strided(out, out.shape, (4, 4 * D, 4))
    elif what == "x unaligned":
        raw = np.zeros(x.nbytes + 4, "u1")
        x, out = raw[1 : x.nbytes + 1].view("f4").reshape(T, N, D), raw[4:].view("f4")
        out = out.reshape(T, N, D)
    elif what == "h0":
        h0 = out[:1]
    else:
        c0 = out[-1:]
    before = out.copy()
    with pytest.raises(ValueError, match=r"^out: expected"):
        engine(x, (h0, c0), out=out)
    if what.startswith("x"):
        with pytest.raises(ValueError, match=r"^out: overlaps x_t"):
            engine.stream(N).step(x[0] if "un" in what else room[2], out=out[0])
    assert np.array_equal(out, before)


def test_out_between_the_elements_of_x_shares_none() -> None:
    engine = rc.LSTM(D, D, seed=0).freeze()
    both = np.zeros((T, N, 2 * D), np.float32)
    both[:, :, :D] = drawn(T, N, D)
    expected, _ = engine(both[:, :, :D].copy())
    assert np.may_share_memory(both[:, :, :D], both[:, :, D:])
    engine(both[:, :, :D], out=both[:, :, D:])
    assert np.array_equal(both[:, :, D:], expected)


@pytest.mark.parametrize("bad", ["dtype", "shape", "read-only", "list", "torch", "unaligned"])
def test_out_of_a_step_and_of_a_sequence_is_checked_before_any_work(bad: str) -> None:
    engine = rc.LSTM(D, H, seed=0).freeze()
    for shape, x in (((N, H), drawn(N, D)), ((T, N, H), drawn(T, N, D))):
        stream = engine.stream(N)
        out: Any = np.zeros(shape, "f8" if bad == "dtype" else "f4")
        if bad == "shape":
            out = out[..., :-1]
        elif bad == "read-only":
            out.flags.writeable = False
        elif bad == "list":
            out = out.tolist()
        elif bad == "torch":
            out = torch_tensor(out)
        elif bad == "unaligned":
            out = np.zeros(out.nbytes + 1, "u1")[1:].view("f4").reshape(shape)
        error = TypeError if bad in ("dtype", "list", "torch") else ValueError
        with pytest.raises(error, match=r"^out: "):
            stream.step(x, out=out) if x.ndim == 2 else engine(x, out=out)
        assert not any(part.any() for part in stream.state), "the stream did not move"
