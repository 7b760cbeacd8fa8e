"""Every number of the demonstration that was chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Say what is trained and how; equal settings and text give equal numbers everywhere."""

    updates: int
    """Updates in all."""
    hidden: int
    """Units of each of the two LSTM layers."""
    dropout: float
    """After each LSTM layer."""
    rate: float
    """Peak learning rate of Adam; it rises over the first 3 % and falls along a cosine to 0."""
    embedding: int = 64
    """Size of a character's vector."""
    batch: int = 32
    """Tracks of text side by side, ``N``."""
    steps: int = 64
    """Characters of a track in an update, ``T``."""
    beta2: float = 0.99
    """Decay of Adam's running square."""
    max_norm: float = 1.0
    """Bound of the gradient's norm."""
    seed: int = 0
    """Of the first weights, the dropout masks, the offsets of the tracks and the sample."""

    @property
    def warmup(self) -> int:
        """Updates until the peak learning rate."""
        return max(1, round(0.03 * self.updates))


SHORT = Settings(updates=1500, hidden=256, dropout=0.1, rate=0.006)
"""About two minutes on two cores."""

LONG = Settings(updates=3000, hidden=512, dropout=0.4, rate=0.003)
"""About fifteen minutes on two cores."""
