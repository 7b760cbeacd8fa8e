"""Stand in for ``torch.nn.RNN``, ``LSTM`` and ``GRU``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncore.layers.options import arguments
from rnncore.torch import checks
from rnncore.torch.recurrent import Recurrent


class RNN(Recurrent):
    """Run a plain recurrence: ``torch.nn.RNN`` and the options that it lacks.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional
        As ``torch.nn.RNN`` takes them.
    device, dtype : optional
        Of the parameters: the CPU or a CUDA device; float32, float64, and on CUDA devices also
        float16 and bfloat16.
    layer_norm, zoneout, recurrent_dropout, variational, activations, clip : optional
        As :class:`rnncore.RNN` takes them. Masks are drawn from torch's generator.
    recompute : bool, optional
        Whether only states are kept for the gradient, and gates are worked out again; not on
        CUDA devices, where gates are always kept.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense.

    Examples
    --------
    >>> import torch
    >>> import rnncore.torch
    >>> y, h = rnncore.torch.RNN(3, 4, nonlinearity="relu")(torch.ones(5, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]))
    """

    cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        activations: Sequence[Any] | None = None,
        clip: float | None = None,
        recompute: bool = False,
    ) -> None:
        given = arguments(locals())
        super().__init__(f"RNN_{checks.nonlinearity(nonlinearity).upper()}", given)


class LSTM(Recurrent):
    """Run a long short-term memory: ``torch.nn.LSTM`` and the options that it lacks.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        As ``torch.nn.LSTM`` takes them.
    device, dtype : optional
        Of the parameters: the CPU or a CUDA device; float32, float64, and on CUDA devices also
        float16 and bfloat16.
    peephole, coupled, layer_norm : optional
        As :class:`rnncore.LSTM` takes them, with parameters of the same names.
    zoneout, recurrent_dropout, variational, activations, clip : optional
        As :class:`rnncore.LSTM` takes them. Masks are drawn from torch's generator.
    recompute : bool, optional
        Whether only states are kept for the gradient, and gates are worked out again; not on
        CUDA devices, where gates are always kept.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense.

    Examples
    --------
    >>> import torch
    >>> import rnncore.torch
    >>> lstm = rnncore.torch.LSTM(3, 4, peephole=True)
    >>> y, (h, c) = lstm(torch.ones(5, 2, 3), lengths=[5, 2])
    >>> y.sum().backward()
    >>> lstm.peephole_l0.grad.shape
    torch.Size([12])
    """

    cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        layer_norm: bool = False,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        activations: Sequence[Any] | None = None,
        clip: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__("LSTM", arguments(locals()))


class GRU(Recurrent):
    """Run a gated recurrent unit: ``torch.nn.GRU`` and the options that it lacks.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional
        As ``torch.nn.GRU`` takes them.
    device, dtype : optional
        Of the parameters: the CPU or a CUDA device; float32, float64, and on CUDA devices also
        float16 and bfloat16.
    reset_after, layer_norm, zoneout, recurrent_dropout, variational, activations, clip : optional
        As :class:`rnncore.GRU` takes them. Masks are drawn from torch's generator.
    recompute : bool, optional
        Whether only states are kept for the gradient, and gates are worked out again; not on
        CUDA devices, where gates are always kept.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense.

    Examples
    --------
    >>> import torch
    >>> import rnncore.torch
    >>> gru = rnncore.torch.GRU(3, 4, batch_first=True, reset_after=False)
    >>> y, h = gru(torch.ones(2, 5, 3))
    >>> gru
    GRU(3, 4, batch_first=True, reset_after=False)
    """

    cell = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        activations: Sequence[Any] | None = None,
        clip: float | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__("GRU", arguments(locals()))
