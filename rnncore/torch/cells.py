"""Stand in for ``torch.nn.RNNCell``, ``LSTMCell`` and ``GRUCell``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncore.torch import checks, ops

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Cell(torch.nn.RNNCellBase):
    """Run one step of one layer: a sequence with ``T = 1`` under PyTorch's cell names.

    Weights are packed at every step; :func:`rnncore.torch.hold` around a loop packs them once.
    """

    cell: str
    nonlinearity: str = "tanh"

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
        x = checks.cast("input", x, weights[0])
        state = [checks.cast("hx", part, weights[0]) for part in state]
        h0, c0 = [*state, None, None][:2]
        tracked = (x, *state, *weights)
        checks.no_transform(*tracked)
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tracked)
        spec = (
            f"{self.cell} {self.input_size} {self.hidden_size} 1 1 0 {int(self.bias)} "
            f"{self.nonlinearity} {{}}"
        )
        _, hn, cn, _ = ops.forward(
            x, h0, c0, weights, None, None, [], spec, False, False, keep, True
        )
        parts = [hn, cn] if self.cell == "lstm" else [hn]
        return [part.reshape(*outer, self.hidden_size) for part in parts]

    def _take_state(self, hx: Any, outer: tuple[int, ...]) -> list[Tensor]:
        if hx is None:
            return []
        names, parts = ["hx"], [hx]
        if self.cell == "lstm":
            if not isinstance(hx, tuple | list) or len(hx) != 2:
                raise ValueError(f"hx: expected a pair (h_0, c_0), got {type(hx).__name__}")
            names, parts = ["hx[0]", "hx[1]"], list(hx)
        taken = []
        for name, part in zip(names, parts, strict=True):
            checks.shape(name, checks.tensor(name, part), (*outer, self.hidden_size))
            checks.same_device(name, part, self.weight_ih)
            taken.append(part.reshape(1, -1, self.hidden_size))
        return taken


class RNNCell(Cell):
    """Run one step of a plain recurrence, as ``torch.nn.RNNCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, nonlinearity, device, dtype
        As ``torch.nn.RNNCell`` takes them.
    """

    cell = "rnn"
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
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(input_size, hidden_size, bias, 1, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

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


class LSTMCell(Cell):
    """Run one step of a long short-term memory, as ``torch.nn.LSTMCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As ``torch.nn.LSTMCell`` takes them.
    """

    cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device=device, dtype=dtype)

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


class GRUCell(Cell):
    """Run one step of a gated recurrent unit, as ``torch.nn.GRUCell`` does.

    Parameters
    ----------
    input_size, hidden_size, bias, device, dtype
        As ``torch.nn.GRUCell`` takes them.
    """

    cell = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device=device, dtype=dtype)

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
