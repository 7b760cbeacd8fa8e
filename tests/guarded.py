"""Arrays between two pages that may not be touched: a read one past an end kills the process.

Run as a script, it puts every array of forward, backward and a stream there, for one instruction
set, and compares the results with those of ordinary arrays; test_strides.py runs it.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
import weakref
from collections.abc import Callable

import numpy as np

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
READ_WRITE, NOTHING, PRIVATE_ANONYMOUS = 3, 0, 0x22


def guarded(array: np.ndarray, at_end: bool = True) -> np.ndarray:
    """Return a copy that ends right before an untouchable page, or begins right after one."""
    page, size = mmap.PAGESIZE, array.nbytes
    body = -(-max(size, 1) // page) * page
    base = LIBC.mmap(None, body + 2 * page, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
    assert base not in (None, ctypes.c_void_p(-1).value)
    assert LIBC.mprotect(base, page, NOTHING) == 0
    assert LIBC.mprotect(base + page + body, page, NOTHING) == 0
    start = base + page + (body - size if at_end else 0)
    raw = (ctypes.c_char * size).from_address(start)
    weakref.finalize(raw, LIBC.munmap, base, body + 2 * page)
    copy = np.frombuffer(raw, array.dtype, array.size).reshape(array.shape)
    copy[...] = array
    assert copy.flags.c_contiguous
    return copy


def make_at(at_end: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return `guarded` with its side chosen."""
    return lambda array: guarded(array, at_end)


def sizes() -> list[dict[str, int]]:
    """Return sizes around the lanes, each with one of several batches and lengths."""
    widths = [1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 33]
    others = itertools.cycle([(1, 5), (2, 8), (5, 16), (7, 3), (17, 33), (6, 1), (13, 17)])
    return [{"H": H, "N": N, "D": D} for H, (N, D) in zip(widths, others, strict=False)]


def check_training(dtype: str) -> int:
    """Run forward and backward with every array guarded, outputs and gradients included."""
    from cases import CELLS, Case, assert_same_bits, draw
    from engine import train_at_the_border

    runs = 0
    for (cell, kind), size in itertools.product([*CELLS, ("lstm", "projected")], sizes()):
        options = {"nonlinearity": kind}
        if kind == "projected":
            options = {"proj_size": max(1, size["H"] // 2)}
        case = Case(
            cell=cell, T=4, layers=2, bidirectional=True, ragged=size["N"] % 2 == 1,
            dtype=dtype, **size, **options,
        )  # fmt: skip
        problem = draw(case)
        for threads in (1, 2):
            expected = train_at_the_border(case, problem, threads=threads)
            for at_end in (True, False):
                actual = train_at_the_border(case, problem, make_at(at_end), threads)
                assert_same_bits(actual, expected)
                runs += 1
    return runs


def check_variants() -> int:
    """Run random combinations of the cells' options with masks and resets guarded, too."""
    from cases import assert_same_bits, draw
    from engine import train_at_the_border
    from variants import random_case

    runs = 0
    for seed, size in enumerate(sizes()):
        for dtype, recompute in itertools.product(("float32", "float64"), (False, True)):
            case = random_case(seed, T=4, **size).but(dtype=dtype)
            problem = draw(case)
            expected = train_at_the_border(case, problem, recompute=recompute)
            for at_end in (True, False):
                actual = train_at_the_border(case, problem, make_at(at_end), 2, recompute)
                assert_same_bits(actual, expected)
                runs += 1
    return runs


def check_streaming() -> int:
    """Run streams and frozen engines with x, the state and out guarded."""
    from cases import CELLS, Case, assert_array_same_bits, draw
    from engine import build, state_of

    runs = 0
    weights = (None, "bfloat16", "int8")
    for (cell, kind), size, dtype in itertools.product(CELLS, sizes(), weights):
        case = Case(cell=cell, nonlinearity=kind, T=3, layers=2, **size)
        problem = draw(case)
        engine = build(case, problem).freeze(dtype)
        expected, _ = engine(problem.x, state_of(problem.h0, problem.c0))
        for make in (make_at(True), make_at(False)):
            h0, c0 = make(problem.h0), None if problem.c0 is None else make(problem.c0)
            y = make(np.full_like(expected, np.nan))
            engine(make(problem.x), state_of(h0, c0), out=y)
            assert_array_same_bits(y, expected, "y")
            stream = engine.stream(batch=case.N)
            stream.state = state_of(h0, c0)
            for x_t, y_t in zip(problem.x, expected, strict=True):
                out = make(np.full_like(y_t, np.nan))
                stream.step(make(x_t), out=out)
                assert_array_same_bits(out, y_t, "streamed y")
            runs += 1
    return runs


def check_activations() -> int:
    """Run the activations on every size up to three vectors."""
    from rnncore import _rnncore

    runs = 0
    for name, dtype, size, at_end in itertools.product(
        ("exp", "tanh", "sigmoid", "erf", "log1p"), ("f4", "f8"), range(1, 50), (True, False)
    ):
        x = guarded(np.linspace(-0.9, 3, size).astype(dtype), at_end)
        out = guarded(np.full_like(x, np.nan), at_end)
        _rnncore.activation(name, x, out, None)
        assert np.isfinite(out).all()
        runs += 1
    return runs


def check_primitives() -> int:
    """Run products of batches and the softmax loss at sizes around the lanes of a vector."""
    from rnncore import _rnncore

    runs, draw = 0, np.random.default_rng(0)
    for size, dtype, at_end in itertools.product(range(1, 70, 3), ("f4", "f8"), (True, False)):
        for transposed in (True, False):
            a = guarded(draw.standard_normal((2, 5, size + 1)).astype(dtype), at_end)
            shape = (2, size, size + 1) if transposed else (2, size + 1, size)
            b = guarded(draw.standard_normal(shape).astype(dtype), at_end)
            out = guarded(np.full((2, 5, size), np.nan, dtype), at_end)
            _rnncore.batched_product(a, b, out, transposed, 1)
            np.testing.assert_allclose(
                out, a @ (b.swapaxes(1, 2) if transposed else b), rtol=1e-4, atol=1e-4
            )
        logits = guarded(draw.standard_normal((4, size)).astype(dtype), at_end)
        weights = guarded(np.ones(size, dtype), at_end)
        targets = guarded(np.array([0, size - 1, -1, size // 2]), at_end)
        dlogits = guarded(np.full((4, size), np.nan, dtype), at_end)
        value = _rnncore.softmax_cross_entropy(logits, targets, dlogits, weights)
        assert value == _rnncore.softmax_cross_entropy(logits, targets, None)
        np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-5)
        runs += 3
    return runs


def main(isa: str) -> None:
    """Check everything on one instruction set and print how much ran."""
    from rnncore import _rnncore

    _rnncore.set_isa(isa)
    runs = check_training("float32") + check_training("float64")
    runs += check_variants() + check_streaming() + check_activations() + check_primitives()
    print(f"guarded runs: {runs}")


if __name__ == "__main__":
    main(sys.argv[1])
