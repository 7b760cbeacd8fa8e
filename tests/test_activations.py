"""The kernels' own exp, tanh and sigmoid, over one float in 64 and at every edge."""

from __future__ import annotations

import numpy as np
import pytest
from cases import assert_array_same_bits
from tolerances import ACTIVATION_ULP

from rnncore import _rnncore

ISAS = _rnncore.supported_isas()
NAMES = ("exp", "tanh", "sigmoid")
CHUNK = 1 << 20
SMALLEST_NORMAL = 2.0**-126

TANH_IS_ONE = np.array(0x41102CB4, "u4").view("f4")  # 9.010914, the first to round to 1
SIGMOID_IS_ONE = np.array(0x418AA123, "u4").view("f4")  # 17.32868


def activate(name: str, x: np.ndarray, isa: str | None = None) -> np.ndarray:
    """Return the kernels' value; what is not written stays at a value none of them can have."""
    out = np.full_like(x, -7.0)
    _rnncore.activation(name, x, out, isa)
    return out


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """Return the function in the next wider type."""
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(all="ignore"):
        if name == "exp":
            return np.exp(wide)
        if name == "tanh":
            return np.tanh(wide)
        e = np.exp(-np.abs(wide))
        return np.where(wide < 0, e, 1.0) / (1.0 + e)


def worst_ulp(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error in units in the last place of the right result.

    Subnormal results count as zero: there an error up to the smallest normal number is none.
    Beyond the largest number stands infinity, as if it were the next power of two.
    """
    kind = np.finfo(actual.dtype)
    with np.errstate(all="ignore"):
        size = np.abs(expected)
        _, exponent = np.frexp(np.clip(size, kind.smallest_normal, kind.max))
        unit = np.ldexp(np.ones_like(expected), exponent - 1 - kind.nmant)
        top = expected.dtype.type(2) ** kind.maxexp
        error = np.abs(
            np.clip(actual.astype(expected.dtype), -top, top) - np.minimum(expected, top)
        )
        error = np.where(size < kind.smallest_normal, error > kind.smallest_normal, error / unit)
    assert not np.isnan(error).any()
    return float(error.max())


def every(step: int, chunk: int, first: int = 0) -> np.ndarray:
    """Return the chunk-th block of every step-th float32 bit pattern, NaN left out."""
    start = chunk * CHUNK * step + first
    stop = min(start + CHUNK * step, 1 << 32)
    x = np.arange(start, stop, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[~np.isnan(x)]


def check_floats(name: str, step: int) -> None:
    """Check accuracy on every instruction set, and equal bits of AVX2 and AVX-512."""
    seen = 0
    for chunk in range((1 << 32) // (CHUNK * step)):
        x = every(step, chunk, first=step // 2)
        if not x.size:
            continue
        seen += x.size
        expected = exact(name, x)
        outs = {isa: activate(name, x, isa) for isa in ISAS}
        if "avx512" in outs and "avx2" in outs:
            assert_array_same_bits(outs["avx512"], outs.pop("avx2"), name)
        for isa, out in outs.items():
            worst = worst_ulp(out, expected)
            assert worst <= ACTIVATION_ULP["float32"], f"{isa}: {worst} ulp from {x[0]} on"
    assert seen >= 0.99 * ((1 << 32) - (1 << 24)) / step


@pytest.mark.parametrize("name", NAMES)
def test_one_float_in_64_is_within_two_ulp(name: str) -> None:
    check_floats(name, 64)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_float_is_within_two_ulp(name: str) -> None:
    check_floats(name, 1)


@pytest.mark.parametrize("name", NAMES)
def test_float64_is_within_a_few_ulp(name: str, isa: str) -> None:
    rng = np.random.default_rng(6)
    signs = rng.choice([-1.0, 1.0], 200_000)
    x = np.concatenate(
        [
            rng.uniform(-3, 3, 200_000),
            rng.uniform(-708, 708, 100_000),
            signs * 10.0 ** rng.uniform(-300, 2.8, 200_000),
        ]
    )
    if np.finfo(np.longdouble).nmant < 60:
        pytest.skip("long double is not wider than double here")
    assert worst_ulp(activate(name, x, isa), exact(name, x)) <= ACTIVATION_ULP["float64"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_zero_gives_the_exact_values_with_the_sign_of_zero(dtype: str, isa: str) -> None:
    zeros = np.array([0.0, -0.0] * 9, dtype)
    assert_array_same_bits(activate("tanh", zeros, isa), zeros)
    assert (activate("sigmoid", zeros, isa) == 0.5).all()
    assert (activate("exp", zeros, isa) == 1.0).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_infinity_gives_the_exact_limits(dtype: str, isa: str) -> None:
    x = np.array([np.inf, -np.inf] * 9, dtype)
    assert np.array_equal(activate("tanh", x, isa), np.array([1.0, -1.0] * 9, dtype))
    assert np.array_equal(activate("sigmoid", x, isa), np.array([1.0, 0.0] * 9, dtype))
    assert np.array_equal(activate("exp", x, isa), np.array([np.inf, 0.0] * 9, dtype))


def test_saturated_values_are_exactly_one(isa: str) -> None:
    above = np.geomspace(1, 1e37, 1000, dtype="f4")
    tails = np.concatenate([TANH_IS_ONE * above, [TANH_IS_ONE, np.finfo("f4").max]]).astype("f4")
    assert (activate("tanh", tails, isa) == 1).all()
    assert (activate("tanh", -tails, isa) == -1).all()
    tails = np.maximum(tails, SIGMOID_IS_ONE)
    assert (activate("sigmoid", tails, isa) == 1).all()
    assert (activate("sigmoid", np.array([-200.0, -1e30, -3e38] * 6, "f4"), isa) == 0).all()


def test_the_left_tail_of_sigmoid_keeps_its_relative_accuracy(isa: str) -> None:
    x = np.linspace(-87, -17, 100_000, dtype="f4")
    out = activate("sigmoid", x, isa)
    assert (out > 0).all()
    assert worst_ulp(out, exact("sigmoid", x)) <= ACTIVATION_ULP["float32"]
    assert np.isclose(activate("sigmoid", np.full(8, -17.0335, "f4"), isa), 4.0e-8, rtol=1e-2).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_of_every_kind_gives_nan(name: str, isa: str) -> None:
    patterns = [0x7FC00000, 0x7F800001, 0xFFC00000, 0xFF800001, 0x7FC12345, 0x7FFFFFFF, 0xFFFFFFFF]
    for pattern in patterns:
        x = np.linspace(-2, 2, 37, dtype="f4")
        x.view("u4")[5:20] = pattern
        out = activate(name, x, isa)
        assert np.array_equal(np.isnan(out), np.isnan(x))
    wide = np.array([0.5, np.nan, -np.nan, 0.25] * 5)
    assert np.array_equal(np.isnan(activate(name, wide, isa)), np.isnan(wide))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_tanh_is_odd_to_the_bit_and_bounded(dtype: str, isa: str) -> None:
    if dtype == "f4":
        x = every(64 * 256, 0)
        x = x[np.isfinite(x)]
    else:
        x = np.geomspace(1e-300, 1e3, 300_000)
    assert x.size > 100_000
    right, left = activate("tanh", x, isa), activate("tanh", -x, isa)
    assert_array_same_bits(-left, right)
    assert (np.abs(right) <= 1).all()
    for sign in (1, -1):
        values = activate("sigmoid", sign * x, isa)
        assert (values >= 0).all()
        assert (values <= 1).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_neighbouring_floats_never_go_down(name: str, isa: str) -> None:
    smallest = np.array(SMALLEST_NORMAL, "f4").view("u4")
    for start in [*np.geomspace(1e-6, 80, 160), 9.0109, 17.328, 0.5, 1.0, 2.0]:
        first = max(np.array(start, "f4").view("u4"), smallest)
        x = np.arange(first, first + 20_000, dtype="u4").view("f4")
        assert (np.diff(activate(name, x, isa)) >= 0).all(), f"near {start}"
        assert (np.diff(activate(name, -x, isa)) <= 0).all(), f"near {-start}"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_up_to_seventy_is_written_whole_and_alike(
    name: str, dtype: str, isa: str
) -> None:
    x = np.linspace(-5, 4, 70).astype(dtype)
    whole = activate(name, x, isa)
    assert np.allclose(whole, exact(name, x), rtol=1e-6)
    for size in range(71):
        assert_array_same_bits(activate(name, x[:size].copy(), isa), whole[:size])


def test_an_unknown_activation_or_instruction_set_is_a_value_error() -> None:
    x = np.zeros(3, "f4")
    with pytest.raises(ValueError, match="softplus"):
        activate("softplus", x)
    with pytest.raises(ValueError, match="avx1024"):
        activate("exp", x, "avx1024")
