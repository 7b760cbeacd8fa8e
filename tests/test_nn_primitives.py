"""The C++ primitives around the engine beside their naive twins, and their bits."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import UNIT_ROUNDOFF

import rnncore as rc
from rnncore.nn import naive, primitives

DTYPES = ["float32", "float64"]
SHAPES = [(1, 1, 1), (5, 17, 3), (33, 64, 76), (130, 70, 31)]


def drawn(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(got: np.ndarray, expected: np.ndarray, terms: int) -> None:
    """Allow two orders of a sum of ``terms`` products of numbers of size one."""
    unit = UNIT_ROUNDOFF[str(got.dtype)]
    np.testing.assert_allclose(got, expected, rtol=8 * unit, atol=4 * unit * (terms + 8))


def linear(module: object, dtype: str, shape: tuple[int, int, int]) -> list[np.ndarray]:
    rows, inputs, outputs = shape
    x, weight = drawn(dtype, rows, inputs), drawn(dtype, outputs, inputs, seed=1)
    bias, dout = drawn(dtype, outputs, seed=2), drawn(dtype, rows, outputs, seed=3)
    out, dx = np.empty((rows, outputs), dtype), np.empty((rows, inputs), dtype)
    dweight, dbias = drawn(dtype, outputs, inputs, seed=4), drawn(dtype, outputs, seed=5)
    module.linear_forward(x, weight, bias, out)
    module.linear_backward(x, weight, dout, dx, dweight, dbias)
    return [out, dx, dweight, dbias]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_is_its_twin(dtype: str, shape: tuple[int, int, int], isa: str) -> None:
    for got, expected in zip(
        linear(primitives, dtype, shape), linear(naive, dtype, shape), strict=True
    ):
        assert_close(got, expected, max(shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 76, 1000])
def test_softmax_cross_entropy_is_its_twin(dtype: str, classes: int, isa: str) -> None:
    logits = 4 * drawn(dtype, 40, classes)
    targets = np.random.default_rng(1).integers(-1, classes, 40)
    got, expected = np.empty_like(logits), np.empty_like(logits)
    value = primitives.softmax_cross_entropy(logits, targets, got)
    twin = naive.softmax_cross_entropy(
        logits.astype(np.float64), targets, expected_wide := np.empty(logits.shape)
    )
    expected[...] = expected_wide
    assert value == pytest.approx(twin, rel=40 * UNIT_ROUNDOFF[dtype])
    assert value == primitives.softmax_cross_entropy(logits, targets, None)
    assert_close(got, expected, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 17, 300])
def test_weighted_softmax_cross_entropy_is_its_twin(dtype: str, classes: int, isa: str) -> None:
    logits, weights = 4 * drawn(dtype, 40, classes), np.abs(drawn(dtype, classes, seed=2))
    targets = np.random.default_rng(1).integers(-1, classes, 40)
    got, expected = np.empty_like(logits), np.empty(logits.shape)
    value = primitives.softmax_cross_entropy(logits, targets, got, weights, 0.25)
    wide = logits.astype(np.float64)
    twin = naive.softmax_cross_entropy(wide, targets, expected, weights, 0.25)
    assert value == pytest.approx(twin, rel=40 * UNIT_ROUNDOFF[dtype])
    assert value == primitives.softmax_cross_entropy(logits, targets, None, weights)
    assert_close(got, expected, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 17, 9), (4, 200, 33, 70), (2, 1, 64, 96)])
def test_batched_products_are_their_twin(dtype: str, transposed: bool, shape, isa: str) -> None:
    count, rows, inner, columns = shape
    a = drawn(dtype, count, rows, inner)
    b = drawn(dtype, count, *((columns, inner) if transposed else (inner, columns)), seed=1)
    got, expected = np.full((2, count, rows, columns), np.nan, dtype)
    primitives.batched_product(a, b, got, transposed)
    naive.batched_product(a, b, expected, transposed)
    assert_close(got, expected, inner)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf", "log1p"])
def test_functions_are_their_twin(dtype: str, name: str, isa: str) -> None:
    x = drawn(dtype, 3, 41) ** 2 if name == "log1p" else 3 * drawn(dtype, 3, 41)
    got, expected = np.empty_like(x), np.empty(x.shape)
    primitives.function(name, x, got)
    naive.function(name, x.astype(np.float64), expected)
    np.testing.assert_allclose(got, expected, rtol=16 * UNIT_ROUNDOFF[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding_backward_is_its_twin(dtype: str) -> None:
    indices, dout = np.random.default_rng(0).integers(0, 9, 200), drawn(dtype, 200, 13)
    got, expected = drawn(dtype, 9, 13, seed=1), drawn(dtype, 9, 13, seed=1)
    primitives.embedding_backward(indices, dout, got)
    naive.embedding_backward(indices, dout, expected)
    assert_close(got, expected, 30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_threads(dtype: str) -> None:
    def run(threads: int) -> list[bytes]:
        logits = drawn(dtype, 300, 76)
        targets = np.random.default_rng(1).integers(-1, 76, 300)
        with rc.threads(threads):
            arrays = linear(primitives, dtype, (300, 256, 76))
            value = primitives.softmax_cross_entropy(logits, targets, dlogits := logits.copy())
            arrays += [dlogits, np.float64(value)]
            a, b = drawn(dtype, 3, 300, 50), drawn(dtype, 3, 40, 50, seed=1)
            primitives.batched_product(a, b, product := np.empty((3, 300, 40), dtype), True)
            indices, table = np.arange(2000) % 7, np.zeros((7, 50), dtype)
            primitives.embedding_backward(indices, drawn(dtype, 2000, 50), table)
            arrays += [product, table]
            for name in ("exp", "erf"):
                primitives.function(name, logits, out := np.empty_like(logits))
                arrays.append(out)
        return [array.tobytes() for array in arrays]

    expected = run(1)
    for threads in (2, 3, 5):
        assert run(threads) == expected
