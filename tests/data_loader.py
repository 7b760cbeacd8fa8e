"""A data set that runs a layer for every item, as a host's loader does in its workers."""

from __future__ import annotations

import hashlib

import numpy as np

import rnncore as rc


class Digests:
    """Items are the digest of one and the same run, and the number of threads that it had."""

    def __init__(self) -> None:
        self.layer = rc.GRU(24, 200, 2, seed=0)
        self.x = np.random.default_rng(0).standard_normal((12, 16, 24)).astype("f4")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[str, int]:
        y, h = self.layer(self.x)
        return hashlib.sha256(y.tobytes() + h.tobytes()).hexdigest(), rc.get_num_threads()
