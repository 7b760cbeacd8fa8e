"""The device table on host memory, and the numbers that the emulation's words make."""

from __future__ import annotations

import ctypes
import itertools

import ml_dtypes
import numpy as np
import pytest
from emulation import small_kernels
from emulation.bindings import TYPES, DeviceFailure, Emulation, Product
from emulation.small_kernels import arrays

SHORTS = {"float16": np.dtype("float16"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
DTYPES = {**SHORTS, "float32": np.dtype("float32"), "float64": np.dtype("float64")}


@pytest.fixture
def device() -> Emulation:
    return small_kernels.load()


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHORTS)
def test_every_16_bit_number_widens_exactly(device: Emulation, kind: str) -> None:
    bits, out = np.arange(2**16, dtype="uint16"), np.zeros(2**16, "float32")
    with device.memory(bits, out):
        device.launch(f"entry_widen_{kind}", arrays(bits, out, 2**16), blocks=(256, 1), threads=256)
    expected = bits.view(SHORTS[kind]).astype("float32")
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(
        np.signbit(out)[expected == 0], np.signbit(expected)[expected == 0]
    )


def edges(dtype: np.dtype) -> np.ndarray:
    """Make all 16-bit numbers, what lies halfway between two, and the floats next to those."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.arange(2**16, dtype="uint16").view(dtype).astype("float32")
        finite = np.unique(values[np.isfinite(values)]).astype("float64")
        largest = np.array([finite[-1] + (finite[-1] - finite[-2]) / 2])
        halves = np.concatenate([(finite[1:] + finite[:-1]) / 2, largest, -largest])
        halves = halves.astype("float32")
        infinity = np.float32(np.inf)
        nearby = [np.nextafter(halves, -infinity), np.nextafter(halves, infinity)]
    return np.concatenate([values, halves, *nearby])


@pytest.mark.parametrize("kind", SHORTS)
def test_floats_narrow_to_the_nearest_ties_to_even(device: Emulation, kind: str) -> None:
    rng = np.random.default_rng(3)
    anything = rng.integers(0, 2**32, 200_000, dtype="uint32").view("float32")
    source = np.concatenate([edges(SHORTS[kind]), anything, rng.normal(size=50_000).astype("f4")])
    out = np.zeros(source.size, "uint16")
    with device.memory(source, out):
        values = arrays(source, out, source.size)
        device.launch(f"entry_narrow_{kind}", values, blocks=(4, 1), threads=256)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = source.astype(SHORTS[kind]).view("uint16")
    numbers = ~np.isnan(source)
    np.testing.assert_array_equal(out[numbers], expected[numbers])
    assert (out[~numbers] == 0x7FFF).all()
    assert numbers.sum() not in (0, source.size)


def test_a_high_half_of_a_product_is_exact(device: Emulation) -> None:
    rng = np.random.default_rng(4)
    source = rng.integers(0, 2**64, (64, 2), dtype="uint64")
    source[0] = 2**64 - 1
    out = np.zeros(64, "uint64")
    with device.memory(source, out):
        device.launch("entry_multiply_all", arrays(source, out, 0), threads=64)
    assert out.tolist() == [int(a) * int(b) >> 64 for a, b in source]


@pytest.mark.parametrize(("kind", "dtype"), [("float", "float32"), ("double", "float64")])
def test_functions_are_those_of_the_reference(device: Emulation, kind: str, dtype: str) -> None:
    source = np.random.default_rng(5).normal(0, 3, 200).astype(dtype)
    out = np.zeros((200, 7), dtype)
    with device.memory(source, out):
        device.launch(f"entry_functions_{kind}", arrays(source, out, 200), threads=256)
    x, below = source.astype("float64"), -np.abs(source.astype("float64"))
    expected = [np.tanh(x), 1 / (1 + np.exp(-x)), np.exp(below), np.expm1(below)]
    expected += [np.log1p(np.exp(below)), np.sqrt(-below), x * x + 1]
    # A few roundings each, and as many more as exp's argument is large.
    np.testing.assert_allclose(out.T, expected, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("kind", "dtype"), [("float", "float32"), ("double", "float64")])
def test_a_cell_compiles_to_its_equations(device: Emulation, kind: str, dtype: str) -> None:
    source = np.random.default_rng(6).normal(0, 2, (64, 5)).astype(dtype)
    out = np.zeros((64, 2), dtype)
    with device.memory(source, out):
        device.launch(f"entry_lstm_step_{kind}", arrays(source, out, 0), threads=64)
    i, f, g, o, c = source.T.astype("float64")
    new_c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    new_h = np.tanh(new_c) / (1 + np.exp(-o))
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(out.T, [new_h, new_c], rtol=tolerance, atol=tolerance)


# --- products -------------------------------------------------------------------------------------

M, N, K = 5, 7, 11


def stored(rows: int, columns: int, transposed: bool, dtype: np.dtype, seed: int) -> np.ndarray:
    """Draw a matrix with three values more in each stored row, which are NaN."""
    shape = (columns, rows) if transposed else (rows, columns)
    padded = np.full((shape[0], shape[1] + 3), np.nan, dtype)
    padded[:, : shape[1]] = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    return padded


def values_of(padded: np.ndarray, transposed: bool) -> np.ndarray:
    values = padded[:, :-3].astype("float64")
    return values.T if transposed else values


def product_of(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    factors: str,
    /,
    *,
    transposed: tuple[bool, bool] = (False, False),
    **options: object,
) -> Product:
    values: dict[str, object] = {
        "factors": TYPES[factors],
        "result": TYPES[str(c.dtype)],
        **{"m": M, "n": N, "k": K, "beta": 0.0},
        **{"a": a.ctypes.data, "b": b.ctypes.data, "c": c.ctypes.data},
        **{"a_stride": a.shape[1], "b_stride": b.shape[1], "c_stride": c.shape[1]},
        **{"a_transposed": transposed[0], "b_transposed": transposed[1]},
    }
    return Product(**{**values, **options})


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("transposed", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("factors", TYPES)
def test_a_product_is_numpys(
    device: Emulation, factors: str, transposed: tuple[bool, bool], beta: float
) -> None:
    a = stored(M, K, transposed[0], DTYPES[factors], 1)
    b = stored(K, N, transposed[1], DTYPES[factors], 2)
    result = "float64" if factors == "float64" else "float32"
    c = stored(M, N, False, np.dtype(result), 3)
    before = c[:, :-3].astype("float64")
    if beta == 0:
        c[:] = np.nan  # is not read
    with device.memory(a, b, c):
        device.multiply(product_of(a, b, c, factors, transposed=transposed, beta=beta))
    expected = values_of(a, transposed[0]) @ values_of(b, transposed[1]) + beta * before
    tolerance = 20 * np.finfo(result).eps
    np.testing.assert_allclose(c[:, :-3], expected, rtol=tolerance, atol=tolerance)
    assert np.isnan(c[:, -3:]).all()


def test_a_product_over_nothing_leaves_beta_c(device: Emulation) -> None:
    a, b, c = np.ones((M, K)), np.ones((K, N)), np.full((M, N), 3.0)
    with device.memory(c):
        device.multiply(product_of(a, b, c, "float64", k=0, beta=0.5))
        np.testing.assert_array_equal(c, 1.5)
        device.multiply(product_of(a, b, c, "float64", k=0))
        np.testing.assert_array_equal(c, 0)
        device.multiply(product_of(a, b, c, "float64", m=0))


WRONG_PRODUCTS = [
    ({"a_stride": K - 1}, "a has rows of 11 values 10 apart"),
    ({"b_stride": N + 1}, "b, 11 rows of 7 values 8 apart, leaves its allocation: .* byte 0 of"),
    ({"m": M + 1}, "c, 6 rows of 7 values 7 apart, leaves its allocation"),
    ({"result": TYPES["float16"]}, "c is float32 or float64"),
    ({"factors": TYPES["float16"]}, "factors of 16 bits have a float32 result"),
    ({"factors": TYPES["float32"]}, "factors are of c's type or of 16 bits"),
    ({"k": -1}, "a size is negative"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_PRODUCTS)
def test_a_wrong_product_is_refused(
    device: Emulation, options: dict[str, int], message: str
) -> None:
    a, b, c = np.ones((M, K)), np.ones((K, N)), np.ones((M, N))
    with device.memory(a, b, c), pytest.raises(DeviceFailure, match=f"multiply: {message}"):
        device.multiply(product_of(a, b, c, "float64", **options))
    np.testing.assert_array_equal(c, 1)


def test_factors_may_lie_between_the_results_rows_but_not_in_them(device: Emulation) -> None:
    both, b = np.ones((M, K + N)), np.ones((K, N))
    with device.memory(both, b):
        c = both[:, K:]
        at = {"c": c.ctypes.data, "c_stride": K + N, "a_stride": K + N}
        device.multiply(product_of(both, b, c, "float64", **at))
        np.testing.assert_array_equal(c, K)
        at["c"] -= 8
        with pytest.raises(DeviceFailure, match="multiply: c overlaps a"):
            device.multiply(product_of(both, b, c, "float64", **at))


# --- copies, launches and failures ----------------------------------------------------------------


def test_clear_copy_and_upload_move_bytes(device: Emulation) -> None:
    table, host = device.table, np.arange(1, 9, dtype="float64")
    first, second = np.full(8, np.nan), np.full(8, np.nan)
    with device.memory(first, second):
        device.check(table.upload(None, None, first.ctypes.data, host.ctypes.data, 64))
        device.check(table.copy(None, None, second.ctypes.data + 8, first.ctypes.data, 48))
        device.check(table.clear(None, None, second.ctypes.data, 16))
        device.check(table.clear(None, None, None, 0))
    np.testing.assert_array_equal(first, host)
    np.testing.assert_array_equal(second, [0, 0, 2, 3, 4, 5, 6, np.nan])


def test_copies_that_leave_their_memory_are_refused(device: Emulation) -> None:
    table, host, inside = device.table, np.ones(8), np.zeros(8)
    here, there = inside.ctypes.data, host.ctypes.data
    with device.memory(inside):
        for call, message, *values in (
            (table.clear, "clear of 64 bytes out of bounds: .* byte 8 of", here + 8, 64),
            (table.upload, "upload: it reads memory of the device", here, here + 32, 8),
            (table.upload, "upload to of 8 bytes out of bounds", there, here, 8),
            (table.copy, "copy from of 8 bytes out of bounds", here, there, 8),
            (table.copy, "copy: its two ranges overlap", here, here + 8, 16),
        ):
            with pytest.raises(DeviceFailure, match=message):
                device.check(call(None, None, *values))
    np.testing.assert_array_equal(inside, 0)


def test_memory_is_registered_once(device: Emulation) -> None:
    array = np.zeros(8)
    overlap = pytest.raises(ValueError, match=r"16 bytes at .* overlap registered memory")
    with device.memory(array), overlap:
        device.register(array.ctypes.data + 8, 16)
    with pytest.raises(ValueError, match="is not where registered memory starts"):
        device.unregister(array.ctypes.data)


WRONG_LAUNCHES = [
    ({"threads": 257}, "a block has 1 .. 256 threads, not 257"),
    ({"threads": 0}, "a block has 1 .. 256 threads, not 0"),
    ({"blocks": (0, 1)}, "times 1 .. 65535 blocks, not 0 times 1"),
    ({"blocks": (1, 65536)}, "blocks, not 1 times 65536"),
    ({"shared": 49153}, "a block has 0 .. 49152 bytes of shared memory, not 49153"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_LAUNCHES)
def test_a_wrong_launch_is_refused(
    device: Emulation, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DeviceFailure, match=f"launch of entry_exchange: .*{message}"):
        device.launch("entry_exchange", arrays(None, None, 0), **{"threads": 32, **options})


def test_a_launch_with_arguments_of_another_kernel_is_refused(device: Emulation) -> None:
    size = ctypes.sizeof(Product)
    with pytest.raises(DeviceFailure, match=f"takes arguments of 24 bytes, not of {size}"):
        device.launch("entry_exchange", Product(), threads=32)


def test_a_kernel_is_found_by_its_name_alone(device: Emulation) -> None:
    assert device.kernel("entry_exchange") != device.kernel("entry_hand_over")
    with pytest.raises(KeyError, match="no kernel, or more than one, is named exchange"):
        device.kernel("exchange")


def test_the_call_that_a_test_names_fails_and_no_other(device: Emulation) -> None:
    array = np.ones(4)
    with device.memory(array):
        clear = (None, None, array.ctypes.data, 8)
        device.fail_after(3)
        statuses = [device.table.clear(*clear) for _ in range(5)]
        device.fail_after(1)
        array[:] = 1
        failed = device.table.clear(*clear)
        device.fail_after(0)
    assert [status != 0 for status in statuses] == [False, False, True, False, False]
    np.testing.assert_array_equal(array, 1)
    with pytest.raises(DeviceFailure, match="clear failed, as the test asked"):
        device.check(failed)
