"""Stand in for ``torch.nn.RNNCell``, ``LSTMCell`` and ``GRUCell``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.torch import checks, ops, specification

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Cell(torch.nn.RNNCellBase):
    """Run one step of one layer: a sequence with ``T = 1`` under PyTorch's cell names.

    Weights are packed at every step; :func:`rnncore.torch.hold` around a loop packs them once.
    """

    cell: str
    gates: int
    nonlinearity: str = "tanh"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, self.gates, device=device, dtype=dtype)

    def _step(self, input: Any, hx: Any) -> list[Tensor]:
        """Return the parts of the state after a step."""
        x = checks.tensor("input", input)
        checks.same_device("input", x, self.weight_ih)
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            expected = f"(N, {self.input_size}) or ({self.input_size},)"
            raise ValueError(f"input: expected {expected}, got {tuple(x.shape)}")
        outer = x.shape[:-1]
        x = x.reshape(1, -1, self.input_size)
        state = self._take_state(hx, outer)
        weights = [getattr(self, name) for name in NAMES[: 4 if self.bias else 2]]
        x, h0, c0, keep = checks.operands(x, state, weights)
        sizes = (self.input_size, self.hidden_size, 1, 1, 0)
        spec = specification.write(self.cell, sizes, self.bias, self.nonlinearity)
        _, hn, cn, _ = ops.forward(
            x, h0, c0, weights, None, None, [], spec, False, False, keep, True
        )
        parts = [hn, cn] if self.cell == "lstm" else [hn]
        return [part.reshape(*outer, self.hidden_size) for part in parts]

    def _take_state(self, hx: Any, outer: tuple[int, ...]) -> list[Tensor]:
        if hx is None:
            return []
        shapes = [(*outer, self.hidden_size)] * 2
        parts = checks.state(hx, self.cell == "lstm", shapes, self.weight_ih)
        return [part.reshape(1, -1, self.hidden_size) for part in parts]


class _HiddenCell(Cell):
    """Run one step of a cell whose state is h alone."""

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        """Return h after a step.

        Parameters
        ----------
        input : Tensor (N, D) or (D,)
            Input.
        hx : Tensor (N, H) or (H,), optional
            The state before the step; zeros if None.
        """
        return self._step(input, hx)[0]


class RNNCell(_HiddenCell):
    """Run one step of a plain recurrence, as ``torch.nn.RNNCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As ``torch.nn.RNNCell`` takes them.
    """

    cell = "rnn"
    gates = 1
    __constants__ = ("input_size", "hidden_size", "bias", "nonlinearity")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        checks.nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity


class LSTMCell(Cell):
    """Run one step of a long short-term memory, as ``torch.nn.LSTMCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As ``torch.nn.LSTMCell`` takes them.
    """

    cell = "lstm"
    gates = 4

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        """Return h and c after a step.

        Parameters
        ----------
        input : Tensor (N, D) or (D,)
            Input.
        hx : pair of Tensor (N, H) or (H,), optional
            The state before the step; zeros if None.
        """
        h, c = self._step(input, hx)
        return h, c


class GRUCell(_HiddenCell):
    """Run one step of a gated recurrent unit, as ``torch.nn.GRUCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As ``torch.nn.GRUCell`` takes them.
    """

    cell = "gru"
    gates = 3
