"""What the machine could do at best, measured in the same run as everything else."""

from __future__ import annotations

from dataclasses import dataclass

from rnncore import _rnncore
from rnncore.bench.measure import wait_for_quiet

LOOK = 0.1
"""Seconds of each measurement."""
WEIGHT_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Limit:
    """The rate that no program can pass: the smaller of what arithmetic and reading allow.

    Parameters
    ----------
    peak : float
        Fused multiply-adds of all threads together, in operations a second, two a multiply-add.
    bandwidth : float
        Bytes a second, reading an array of the size that every step reads.
    intensity : float
        Operations for each byte of the weights that must be read: ``2 N / itemsize`` where every
        step reads all of them.
    """

    peak: float
    bandwidth: float
    intensity: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return min(self.peak, self.intensity * self.bandwidth)

    @property
    def bound(self) -> str:
        """Which of the two it is."""
        return "arithmetic" if self.peak <= self.intensity * self.bandwidth else "reading"


class Looks:
    """Measure the machine some times around a row.

    Parameters
    ----------
    weight_bytes : int
        Size of the array that is read.
    dtype : str
        A float64 register holds half as many numbers; types that weights are only stored in count
        as float32.
    threads : int
        How many multiply and read.
    """

    def __init__(self, weight_bytes: int, dtype: str, threads: int) -> None:
        self._bytes, self._threads = max(weight_bytes, 64 * threads), threads
        self._width = 0.5 if dtype == "float64" else 1.0
        self._rates: list[tuple[float, float]] = []

    def look(self) -> None:
        """Measure once more, with nobody else's threads about."""
        wait_for_quiet()
        fma = _rnncore._limits.fma_rate(self._threads, LOOK)
        read = _rnncore._limits.read_rate(self._bytes, self._threads, LOOK)
        self._rates.append((fma * self._width, read))

    def limit(self, intensity: float) -> Limit:
        """Return the best of all looks: what disturbs one makes a machine slower, never faster."""
        peaks, reads = zip(*self._rates, strict=True)
        return Limit(max(peaks), max(reads), intensity)
