"""Draw random bits that depend on nothing but a seed and a place.

Bits come from NumPy's counter-based Philox4x64-10. Its key is made of the seed; its counter starts
at ``(0, 2 * kind + direction, layer, call)``, so a mask is the same for any number of threads and
on any device, and no mask depends on how many others were drawn before it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rnncore.checks import Array


class Place(NamedTuple):
    """What tells a mask from the others of its seed."""

    call: int
    layer: int
    direction: int
    kind: int = 0  # which part of Masks


def draw_bits(shape: tuple[int, ...], rate: float, seed: int, place: tuple[int, ...]) -> Array:
    """Draw booleans, true with probability `rate`.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    rate : float
        Probability of a true one, ``0 <= rate < 1``.
    seed : int
        Any non-negative integer.
    place : Place, or (call, layer, direction)
        What tells these bits from the others of their seed.

    Returns
    -------
    ndarray of bool
        Entry ``j`` is true when the ``j``-th 32-bit word of the stream (low halves first) is below
        ``rate * 2**32``.
    """
    call, layer, direction, kind = Place(*place)
    key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    generator = np.random.Philox(counter=[0, 2 * kind + direction, layer, call], key=key)
    count = int(np.prod(shape, dtype=np.int64))
    words = generator.random_raw((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    bits: Array = words < np.uint32(min(int(rate * 2.0**32), 2**32 - 1))
    return bits.reshape(shape)
