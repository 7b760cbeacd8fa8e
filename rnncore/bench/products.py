"""The engine's large plain products beside those of NumPy's BLAS and of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rnncore.bench.contest import Contest, Entry
from rnncore.bench.peers.interface import Arrays, Peer, Work
from rnncore.bench.peers.ours import NAME
from rnncore.checks import Array
from rnncore.nn import primitives

TITLE = "large plain products"


@dataclass(frozen=True)
class Product:
    """``y = x W^T``, or the gradient ``dW += dy^T x`` of the same sizes."""

    rows: int
    inputs: int
    outputs: int
    gradient: bool

    def __str__(self) -> str:
        form = "dW += dy^T x" if self.gradient else "y = x W^T"
        return f"{form}, {self.rows} rows {self.inputs} -> {self.outputs}"


SIZES = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (2500, 640, 2048))
PRODUCTS = tuple(Product(*sizes, gradient) for sizes in SIZES for gradient in (False, True))


def contest(product: Product, dtype: str, peers: Sequence[Peer]) -> Contest:
    """Return the row's question; of the peers, NumPy and PyTorch take part."""
    draw = np.random.default_rng(0)
    rows, inputs, outputs = product.rows, product.inputs, product.outputs
    x = draw.standard_normal((rows, inputs)).astype(dtype)
    other_shape = (rows, outputs) if product.gradient else (outputs, inputs)
    other = draw.standard_normal(other_shape).astype(dtype)
    expected = other.T @ x if product.gradient else x @ other.T
    names = [peer.name for peer in peers if peer.name in MULTIPLIERS]
    entries = [Entry(NAME, False, lambda: _ours(product, x, other))]
    entries += [_entry(name, product, x, other) for name in names]
    itemsize = np.dtype(dtype).itemsize
    return Contest(
        str(product),
        "products",
        dtype,
        2.0 * rows * inputs * outputs,
        itemsize * inputs * outputs,
        2 * rows / itemsize,
        {"product": expected},
        entries,
    )


def _entry(name: str, product: Product, x: Array, other: Array) -> Entry:
    return Entry(name, True, lambda: MULTIPLIERS[name](product, x, other))


def _work(run: Callable[[], object], out: Array) -> Work:
    """Return the work of a run into `out`, which a gradient is added to."""

    def check() -> Arrays:
        out[...] = 0
        run()
        return {"product": out.copy()}

    return Work(run, check)


def _out(product: Product, dtype: object) -> Array:
    rows = product.outputs if product.gradient else product.rows
    return np.zeros((rows, product.inputs if product.gradient else product.outputs), dtype)  # type: ignore[call-overload, no-any-return]


def _ours(product: Product, x: Array, other: Array) -> Work:
    out = _out(product, x.dtype)
    if product.gradient:
        weight = np.zeros((product.outputs, product.inputs), x.dtype)
        return _work(lambda: primitives.linear_backward(x, weight, other, None, out, None), out)
    return _work(lambda: primitives.linear_forward(x, other, None, out), out)


def _numpy(product: Product, x: Array, other: Array) -> Work:
    out = _out(product, x.dtype)

    def gradient() -> None:
        out.__iadd__(other.T @ x)

    return _work(gradient if product.gradient else lambda: np.matmul(x, other.T, out=out), out)


def _torch(product: Product, x: Array, other: Array) -> Work:
    import torch

    out = _out(product, x.dtype)
    given, second, result = map(torch.from_numpy, (x, other, out))
    if product.gradient:
        return _work(lambda: result.addmm_(second.T, given), out)
    return _work(lambda: torch.mm(given, second.T, out=result), out)


MULTIPLIERS: dict[str, Callable[[Product, Array, Array], Work]] = {
    "NumPy": _numpy,
    "PyTorch": _torch,
}
