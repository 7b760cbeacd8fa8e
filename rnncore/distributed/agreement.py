"""See that all processes hold the same parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from rnncore.checks import Array
from rnncore.distributed.buckets import Parameter
from rnncore.distributed.communicator import Communicator


def other_ranks(communicator: Communicator, texts: Iterable[bytes]) -> list[int]:
    """Return the ranks whose digest of `texts` is not that of rank 0.

    Each process writes its SHA-256 into its own row of zeros, and the rows are summed.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    size = communicator.size
    flat = communicator.empty(4 * size, np.int64)
    flat[...] = 0
    begin, own = 4 * communicator.rank, np.frombuffer(digest.digest(), np.int64)
    for place, word in enumerate(own):
        flat[begin + place] = word
    communicator.all_reduce(flat).wait()
    rows = on_host(flat).reshape(size, 4)
    return [rank for rank in range(size) if not np.array_equal(rows[rank], rows[0])]


def shape_texts(parameters: Sequence[Parameter], bucket_bytes: int) -> list[bytes]:
    """Return what must agree before any array is exchanged: names, shapes, dtypes, buckets."""
    shapes = [f"{one.name} {one.value.shape} {one.value.dtype}" for one in parameters]
    return [text.encode() for text in (*shapes, f"bucket_bytes {bucket_bytes}")]


def value_texts(parameters: Sequence[Parameter]) -> Iterable[bytes]:
    """Yield the parameters' bytes."""
    for one in parameters:
        yield on_host(one.value).tobytes()


def on_host(array: Array) -> Array:
    """Return an array in host memory: itself, or a CuPy array's copy."""
    return array if isinstance(array, np.ndarray) else array.get()


def told_ranks(ranks: Sequence[int]) -> str:
    """Return "rank 1" or "ranks 1, 2"."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
