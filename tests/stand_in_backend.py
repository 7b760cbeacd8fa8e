"""A backend for the stand-in's arrays: a backend of the host, run on their memory.

Sequences of 16 bits are computed in float32 and rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from stand_in_cupy import ndarray, unwrap

from rnncore import backends
from rnncore.backends.interface import Backend
from rnncore.cells import CellSpec
from rnncore.masks import Masks


@dataclass
class Packed:
    """Weights that a backend of the host packed, and the types around them."""

    spec: CellSpec
    host: Any


class OnStandIn:
    """Run a backend of the host on arrays of the stand-in."""

    name = "cuda"

    def __init__(self, host: str = "cpu") -> None:
        self.host: Backend = backends.get_backend(host)

    def pack(self, spec: CellSpec, params: Sequence[Any], num_threads: int, weights: str = "full"):
        """Pack on the host; float32 stands for the types of 16 bits."""
        assert weights == "full"
        assert all(type(param) is ndarray for param in params)
        assert all(param.dtype == spec.param_dtype for param in params)
        plain = replace(spec, dtype=spec.param_dtype.name)
        return Packed(spec, self.host.pack(plain, list(map(unwrap, params)), num_threads))

    def forward(
        self, packed, x, h0, c0, lengths, resets, y, hn, cn, masks, keep, recompute, num_threads
    ):
        """Run a sequence."""
        check(packed.spec.numpy_dtype, x, y)
        check(packed.spec.state_dtype, h0, c0, hn, cn)
        taken, result = wide(x), wide(y)
        known = None if lengths is None else np.clip(unwrap(lengths), 0, len(result))
        assert known is None or known.dtype == np.int64
        tape = self.host.forward(
            packed.host, taken, unwrap(h0), unwrap(c0), known, unwrap(resets), result, unwrap(hn),
            unwrap(cn), wide_masks(masks), keep, recompute, num_threads,
        )  # fmt: skip
        store(y, result)
        return tape

    def backward(
        self, packed, tape, x, y, h0, c0, masks, dy, dhn, dcn, dx, dh0, dc0, grads, retain,
        num_threads,
    ):  # fmt: skip
        """Run a sequence's gradient."""
        check(packed.spec.numpy_dtype, x, y, dy, dx)
        check(packed.spec.state_dtype, h0, c0, dhn, dcn, dh0, dc0)
        check(packed.spec.param_dtype, *grads)
        result = wide(dx)
        self.host.backward(
            packed.host, tape, wide(x), wide(y), unwrap(h0), unwrap(c0), wide_masks(masks),
            wide(dy), unwrap(dhn), unwrap(dcn), result, unwrap(dh0), unwrap(dc0),
            list(map(unwrap, grads)), retain, num_threads,
        )  # fmt: skip
        if dx is not None:
            store(dx, result)

    def stream(self, packed: Any, spec: CellSpec, batch: int) -> Any:
        """Refuse, as the border allows."""
        raise NotImplementedError("stream: not in this version of rnncore on a CUDA device")


def check(dtype: np.dtype, *arrays: Any) -> None:
    """Hold every array to the border between layers and backends."""
    for array in arrays:
        if array is None:
            continue
        assert type(array) is ndarray
        assert array.dtype == dtype
        assert array.strides[-1] == array.itemsize or array.shape[-1] == 1 or not array.size


def wide(array: Any) -> Any:
    """Return the memory of an array, or a float32 copy of one of 16 bits."""
    if array is None or array.itemsize > 2:
        return unwrap(array)
    return unwrap(array).astype(np.float32, order="C")


def store(array: Any, result: np.ndarray) -> None:
    """Round a result into an array of 16 bits; others hold it already."""
    if array.itemsize == 2:
        unwrap(array)[...] = result.astype(array.dtype)


def wide_masks(masks: Masks | None) -> Masks | None:
    """Return masks in host memory, those of 16 bits as float32."""
    if masks is None:
        return None
    first = [[wide(mask) for mask in part] for part in masks[:2]]
    return Masks(*first, *([*map(unwrap, part)] for part in masks[2:]))
