"""The gated recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rnncore.layers.options import arguments
from rnncore.layers.recurrent import Recurrent


class GRU(Recurrent):
    r"""Run a gated recurrent unit over sequences.

    ``r = s(W_r x + U_r h + b_r)``, ``z = s(W_z x + U_z h + b_z)``,
    ``n = tanh(W_n x + b_in + r (U_n h + b_hn))`` and ``h' = (1 - z) n + z h``, where ``s`` is the
    logistic function and ``b_r``, ``b_z`` are sums of both biases (Cho et al. 2014, in the form of
    cuDNN). With ``reset_after=False``, ``n = tanh(W_n x + b_in + U_n (r h) + b_hn)``.

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    num_layers : int, optional
        Layers one above the other; each takes the output of the one below.
    reset_after : bool, optional
        Whether the reset gate acts after the product with ``U_n`` (PyTorch, cuDNN, Keras' default)
        or before it (Cho et al. 2014, ONNX' default).
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
    zoneout : float, optional
        Probability that a unit keeps its old h for a step of training; inference takes
        ``p * old + (1 - p) * new`` [2]_.
    layer_norm : bool, optional
        Whether each product is normalised over its rows and scaled by a gain, ``norm_ih_l0`` and
        ``norm_hh_l0``, before biases are added: biased variance, eps 1e-5 [3]_. Resetting before
        makes two products of U, over 2H and over H rows.
    activations : sequence of two, optional
        What stands in the place of (Sigmoid, Tanh), for gates and candidate: ONNX' names Affine,
        Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus, Softsign, Tanh and
        ThresholdedRelu, or such a name with its numbers, ``("LeakyRelu", 0.01)``.
    clip : float, optional
        The input of every activation is clamped to ``[-clip, clip]`` (ONNX).
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
    >>> layer = rc.GRU(3, 4, batch_first=True, bidirectional=True, seed=1)
    >>> y, h = layer(np.ones((2, 5, 3), np.float32), lengths=[5, 3])
    >>> y.shape, h.shape, float(abs(y[1, 3:]).max())
    ((2, 5, 8), (2, 2, 4), 0.0)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        reset_after: bool = True,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        stateful: bool = False,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        activations: Sequence[Any] | None = None,
        clip: float | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__("gru", arguments(locals()))
