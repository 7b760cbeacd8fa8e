"""Draw dropout masks that depend on nothing but a seed and a place.

Bits come from NumPy's counter-based Philox4x64-10. Its key is made of the seed; its counter starts
at ``(0, direction, layer, call)``, so a mask is the same for any number of threads, and no mask
depends on how many others were drawn before it.
"""

from __future__ import annotations

import numpy as np

from rnncore.cells import CellSpec
from rnncore.checks import Array


def draw_keep_mask(
    shape: tuple[int, ...], rate: float, dtype: str, seed: int, place: tuple[int, int, int]
) -> Array:
    """Draw one inverted dropout mask.

    Parameters
    ----------
    shape : tuple of int
        Shape of the mask.
    rate : float
        Probability of a zero, ``0 <= rate < 1``.
    dtype : str
        Type of the mask.
    seed : int
        Any non-negative integer.
    place : (call, layer, direction)
        What tells this mask from the others of its seed.

    Returns
    -------
    ndarray of `dtype`
        0 with probability `rate`, else ``1 / (1 - rate)``. Entry ``j`` is kept when the ``j``-th
        32-bit word of the stream (low halves first) is at least ``rate * 2**32``.
    """
    call, layer, direction = place
    key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    generator = np.random.Philox(counter=[0, direction, layer, call], key=key)
    count = int(np.prod(shape, dtype=np.int64))
    words = generator.random_raw((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    keep = words >= np.uint32(min(int(rate * 2.0**32), 2**32 - 1))
    scale = np.array(1.0 / (1.0 - rate), dtype)
    mask: Array = np.multiply(keep, scale, dtype=dtype).reshape(shape)
    return mask


def draw_masks(
    spec: CellSpec,
    steps: int,
    batch: int,
    *,
    dropout: float,
    variational: bool = False,
    seed: int = 0,
    call: int = 0,
) -> list[Array | None] | None:
    """Draw the dropout masks of one training call.

    Parameters
    ----------
    spec : CellSpec
        The layer's specification.
    steps, batch : int
        ``T`` and ``N`` of the call.
    dropout : float
        Probability that an output of a layer is dropped before it enters the next one.
    variational : bool, optional
        One mask a sequence instead of one a step, and one for the first layer's input too.
    seed, call : int, optional
        The two numbers of ``layer.rng_state``.

    Returns
    -------
    list of L entries, or None
        Entry ``l`` is None or an array ``(T, N, F)`` of ``spec.dtype`` that multiplies the input
        of layer ``l``. A variational mask is a read-only view with stride 0 over time. None stands
        for a call that drops nothing.

    References
    ----------
    .. [1] Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
       networks", 2016.

    Examples
    --------
    >>> spec = CellSpec("lstm", 3, 4, num_layers=2)
    >>> masks = draw_masks(spec, 5, 2, dropout=0.5, seed=1)
    >>> masks[0] is None, masks[1].shape
    (True, (5, 2, 4))
    """
    if dropout == 0.0 or (spec.num_layers == 1 and not variational):
        return None
    rows = 1 if variational else steps
    masks: list[Array | None] = []
    for layer in range(spec.num_layers):
        if layer == 0 and not variational:
            masks.append(None)
            continue
        widths = [spec.input_size] if layer == 0 else [spec.output_size] * spec.num_directions
        parts = [
            draw_keep_mask(
                (rows, batch, width), dropout, spec.dtype, seed, (call, layer, direction)
            )
            for direction, width in enumerate(widths)
        ]
        mask = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        masks.append(np.broadcast_to(mask, (steps, *mask.shape[1:])))
    return masks
