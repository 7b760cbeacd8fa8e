"""Hold the arguments that an operator and its gradient have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from rnncore.cells import CellSpec
from rnncore.torch import specification

Outputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""What a forward call returns: y, hn, cn and the tape."""

OutputGradients: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Those of y, hn and cn that a gradient starts from; None is zero."""

Gradients: TypeAlias = tuple[Tensor, Tensor, Tensor, list[Tensor]]
"""What a backward call returns: dx, dh0, dc0 and those of the parameters."""


class Call(NamedTuple):
    """The arguments of a call, in the order in which the operators take them."""

    x: Tensor
    h0: Tensor | None
    c0: Tensor | None
    params: Sequence[Tensor]
    lengths: Tensor | None
    resets: Tensor | None
    masks: Sequence[Tensor]
    spec: str
    batch_first: bool
    recompute: bool

    def cell(self, dtypes: Collection[torch.dtype]) -> CellSpec:
        """Return the recurrence, where its dtype is one of those that the device computes in."""
        if self.x.dtype not in dtypes:
            raise NotImplementedError(
                f"input: expected {' or '.join(map(str, dtypes))}, got {self.x.dtype}, "
                f"which this version of rnncore does not compute in on {self.x.device}"
            )
        return specification.read(self.spec, self.x.dtype)

    def extent(self) -> tuple[int, int]:
        """Return ``T`` and ``N``."""
        first, second = self.x.shape[:2]
        return (second, first) if self.batch_first else (first, second)

    def places(self, features: int) -> tuple[int, int, int]:
        """Return the shape of a sequence as the caller sees it."""
        return (*self.x.shape[:2], features)

    def is_masked(self, spec: CellSpec) -> list[bool]:
        """Say of each layer whether its input has a mask; an absent one has one axis."""
        return [mask.dim() > 1 for mask in self.masks[: spec.num_layers]]

    def mask_parts(self, spec: CellSpec) -> list[list[Tensor | None]]:
        """Return the masks as the fields of ``rnncore.masks.Masks`` have them."""
        entries = [None if mask.dim() == 1 else mask for mask in self.masks]
        layers, rows = spec.num_layers, spec.state_rows
        ends = [0, layers, layers + rows, layers + 2 * rows, layers + 3 * rows]
        return [entries[a:b] for a, b in pairwise(ends)]

    def states(self, spec: CellSpec, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Return room for h and c of a state, an empty tensor for a c that there is not.

        `dtype` is that of the input if None.
        """
        h, *c = spec.state_shapes(self.extent()[1])
        return self.x.new_empty(h, dtype=dtype), self.x.new_empty(c[0] if c else (0,), dtype=dtype)


def aligned(tape: Tensor, alignment: int) -> Tensor:
    """Return the tape, copied where whoever saved it put it at an odd address."""
    if tape.is_contiguous() and tape.data_ptr() % alignment == 0:
        return tape
    return torch.empty(tape.shape, dtype=tape.dtype, device=tape.device).copy_(tape)
