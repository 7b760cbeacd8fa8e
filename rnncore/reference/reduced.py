"""Weights held in fewer bits for inference, as the equations of the steps meet them.

bfloat16
    Weights are rounded to the nearest bfloat16, ties to even; everything else is as it was.
int8
    Each row w of a matrix becomes ``scale * q`` with whole numbers q from -127 to 127 and
    ``scale = max |w| / 127``; each row of x, h or of the output before a projection likewise,
    whenever it is multiplied. Sums of products of q's are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def round_to_bfloat16(values: Array) -> Array:
    """Return the nearest bfloat16 numbers, ties to even; NaN stays NaN."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    kept = np.where(np.isnan(values), bits & 0xFFFF0000 | 0x400000, rounded)
    result: Array = kept.astype(np.uint32).view(np.float32).astype(np.float64)
    return result


def quantize(rows: Array) -> tuple[Array, Array]:
    """Return each row's whole numbers and its scale, (R, 1).

    Rounding is float32's, as the engine's is. A row with NaN or infinity has a NaN scale; one that
    nowhere exceeds 1e-30 counts as zero.
    """
    values = rows.astype(np.float32)
    finite = np.isfinite(values).all(axis=1, keepdims=True)
    values = np.where(finite, values, np.float32(0))
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    some = largest > np.float32(1e-30)
    inverse = np.where(some, np.float32(127) / np.where(some, largest, np.float32(1)), 0)
    scale = np.where(some, largest / np.float32(127), np.float32(0))
    whole = np.rint(values * inverse.astype(np.float32)).astype(np.float64)
    return whole, np.where(finite, scale.astype(np.float64), np.nan)


class Int8Matrix:
    """A weight matrix whose products with rows are made of 8-bit numbers: ``x @ matrix.T``."""

    __array_ufunc__ = None  # leaves the product of an array and a matrix to __rmatmul__

    def __init__(self, weight: Array) -> None:
        self._whole, self._scale = quantize(weight)

    @property
    def T(self) -> Int8Matrix:
        """The matrix itself, which knows products from the left alone."""
        return self

    def __getitem__(self, rows: slice) -> Int8Matrix:
        part = Int8Matrix.__new__(Int8Matrix)
        part._whole, part._scale = self._whole[rows], self._scale[rows]
        return part

    def __rmatmul__(self, rows: Array) -> Array:
        whole, scale = quantize(rows)
        result: Array = whole @ self._whole.T * scale * self._scale.T
        return result


def reduced(weights: str, value: Array) -> Any:
    """Return a parameter as it is held: biases stay as they are."""
    if weights == "full" or value.ndim != 2:
        return value
    return round_to_bfloat16(value) if weights == "bfloat16" else Int8Matrix(value)
