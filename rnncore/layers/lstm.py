"""The long short-term memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncore.layers.options import arguments
from rnncore.layers.recurrent import Recurrent


class LSTM(Recurrent):
    r"""Run a long short-term memory over sequences.

    With ``[i f g o] = W x + b_ih + U h + b_hh``: ``c' = s(f) c + s(i) tanh(g)`` and
    ``h' = s(o) tanh(c')``, where ``s`` is the logistic function (Hochreiter and Schmidhuber 1997,
    Gers et al. 2000). With a projection, ``h' = W_hr (s(o) tanh(c'))`` (Sak et al. 2014).

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    num_layers : int, optional
        Layers one above the other; each takes the output of the one below.
    proj_size : int, optional
        Size of the projected output, below `hidden_size`; 0 for none.
    forget_bias : float, optional
        Added to the forget gate's ``bias_ih`` when parameters are first drawn.
    bias : bool, optional
        Whether there are ``bias_ih`` and ``bias_hh``.
    batch_first : bool, optional
        Whether sequences are ``(N, T, D)`` instead of ``(T, N, D)``. States are not affected.
    bidirectional : bool, optional
        Whether a second direction runs from the end; outputs are joined after every layer.
    stateful : bool, optional
        Whether a call starts from the state that the last one ended in.
    dropout : float, optional
        Probability that an output of a layer but the last is dropped in training.
    variational : bool, optional
        One dropout mask a sequence instead of one a step, on the first layer's input too.
    peephole, coupled, recurrent_dropout, zoneout, layer_norm, activations, clip : optional
        Not in this version.
    dtype : {"float32", "float64"}, optional
        Type of every array.
    device : {"cpu"}, optional
        Where it runs.
    seed : int, optional
        What initial values and masks are drawn from; a fresh one if None.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense.
    NotImplementedError
        If this version lacks an option.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 4, num_layers=2, seed=1)
    >>> y, (h, c) = layer.forward(np.ones((5, 2, 3), np.float32))
    >>> dx, (dh, dc) = layer.backward(np.ones_like(y))
    >>> y.shape, h.shape, dx.shape
    ((5, 2, 4), (2, 2, 4), (5, 2, 3))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        forget_bias: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        stateful: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
        activations: Sequence[Any] | None = None,
        clip: float | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__("lstm", arguments(locals()))
