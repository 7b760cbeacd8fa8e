"""The shapes that speed is judged on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One layer or stack over one batch of sequences, float32."""

    cell: str
    T: int
    N: int
    D: int
    H: int
    layers: int = 1
    directions: int = 1

    def __str__(self) -> str:
        text = f"{self.cell} T={self.T} N={self.N} D={self.D} H={self.H}"
        if self.layers > 1:
            text += f" x{self.layers}"
        return text + (" bidirectional" if self.directions == 2 else "")

    @property
    def gates(self) -> int:
        """Rows of the weights for each hidden unit."""
        return {"RNN": 1, "GRU": 3, "LSTM": 4}[self.cell]

    @property
    def forward_operations(self) -> int:
        """Operations of the matrix products in one forward pass, two a multiply-add."""
        inputs = self.D + (self.layers - 1) * self.directions * self.H
        weights = self.gates * self.H * self.directions * (inputs + self.layers * self.H)
        return 2 * self.T * self.N * weights


# The recurrent part alone: one input makes the projection a small part of the work, and sequences
# are long enough for what a call costs once (about 20 us with two threads) not to count.
RECURRENT = [
    Case("LSTM", 50, 50, 1, 512),
    Case("LSTM", 50, 20, 1, 650),
    Case("LSTM", 100, 64, 1, 64),
    Case("LSTM", 400, 1, 1, 256),
    Case("LSTM", 100, 1, 1, 1024),
]

TRAINING = [
    Case("LSTM", 1, 1, 64, 128),
    Case("GRU", 200, 1, 16, 32),
    Case("LSTM", 100, 1, 256, 256),
    Case("LSTM", 50, 1, 512, 1024),
    Case("LSTM", 128, 64, 9, 64, layers=2),
    Case("LSTM", 50, 50, 128, 512, layers=2),
    Case("LSTM", 35, 20, 650, 650, layers=2),
    Case("LSTM", 300, 8, 80, 320, layers=2, directions=2),
    Case("GRU", 50, 32, 512, 512),
    Case("RNN", 50, 16, 1760, 1760),
    Case("LSTM", 25, 32, 1024, 1024),
    Case("GRU", 25, 16, 1536, 1536),
    Case("GRU", 2000, 4, 16, 128),
    Case("RNN", 64, 128, 128, 256),
]
