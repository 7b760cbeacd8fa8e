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
    Gers et al. 2000). With a projection, ``h' = W_hr (s(o) tanh(c'))`` (Sak et al. 2014). With
    peepholes, i and f have ``p_i c`` and ``p_f c`` added, o has ``p_o c'`` (Gers et al. 2002).

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    num_layers : int, optional
        Layers one above the other; each takes the output of the one below.
    proj_size : int, optional
        Size of the projected output, below `hidden_size`; 0 for none.
    peephole : bool, optional
        Whether the gates see the cell: i and f the old one, o the new one, each unit its own by
        ``peephole_l0 (3*H,)`` in the order i f o (ONNX, oneDNN).
    coupled : bool, optional
        Whether ``f = 1 - i``; the parameters' f rows are then not used (ONNX' ``input_forget``).
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
        One dropout mask a sequence instead of one a step, on the first layer's input too [1]_.
    recurrent_dropout : float, optional
        Probability that a unit of ``h[t-1]`` is dropped in training where it enters ``weight_hh``:
        one mask a sequence, the same for all gates [1]_.
    zoneout : float or (p_h, p_c), optional
        Probability that a unit keeps its old h, and its old c, for a step of training; inference
        takes ``p * old + (1 - p) * new`` [2]_. The output reads the new c; h is kept after the
        projection.
    layer_norm : bool, optional
        Whether each product is normalised over its rows and scaled by a gain, ``norm_ih_l0`` and
        ``norm_hh_l0``, before biases are added: biased variance, eps 1e-5 [3]_. The output is then
        ``s(o) tanh(norm(c'))`` with ``norm_c_l0`` and ``norm_c_bias_l0``, the carried c as it is.
    activations : sequence of three, optional
        What stands in the place of (Sigmoid, Tanh, Tanh), for gates, candidate and output: ONNX'
        names Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus, Softsign,
        Tanh and ThresholdedRelu, or such a name with its numbers, ``("LeakyRelu", 0.01)``.
    clip : float, optional
        The input of every activation is clamped to ``[-clip, clip]`` (ONNX); the carried c is not.
    dtype : {"float32", "float64", "float16", "bfloat16"}, optional
        Type of every array. The last two are for GPUs alone; parameters, gradients and states are
        then float32.
    device : {"cpu", "cuda", "cuda:0", ...}, optional
        Where it runs: with NumPy arrays on the CPU, with CuPy arrays on a GPU.
    seed : int, optional
        What initial values and masks are drawn from; a fresh one if None.

    Raises
    ------
    ValueError, TypeError
        If an argument makes no sense.
    NotImplementedError
        If the device lacks the dtype.
    DeviceError
        If the device is not there.

    References
    ----------
    .. [1] Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural
       networks", 2016.
    .. [2] Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden activations",
       2016.
    .. [3] Ba, Kiros and Hinton, "Layer normalization", 2016.

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
