"""Keep the word in which a kernel marks lengths on the device that were beyond 0 to T."""

from __future__ import annotations

from typing import Any

import numpy as np


class BeyondLengths:
    """Tell once what the word says; ``rnncore.cuda.errors.watch`` takes it.

    Parameters
    ----------
    memory : buffer
        ``BYTES`` or more of the host's memory that kernels may write; kept as long as this object.
    address : int
        Where kernels find it.
    """

    BYTES = 4
    MESSAGE = "lengths: expected 0 to T, got others in an earlier call; they were clamped"

    def __init__(self, memory: Any, address: int) -> None:
        self._word = np.frombuffer(memory, np.int32, 1)
        self._word[0] = 0
        self.address = address

    def __call__(self) -> str | None:
        """Return the message if the word was marked since it was last asked."""
        if not self._word[0]:
            return None
        self._word[0] = 0
        return self.MESSAGE
