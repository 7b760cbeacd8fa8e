"""Run recurrences of PyTorch models in this engine.

:class:`LSTM`, :class:`GRU`, :class:`RNN` and their cells stand in for those of ``torch.nn``: the
same constructors, ``state_dict``, inputs and results, and options that torch lacks.
:func:`accelerate` exchanges the modules of a model in place, :func:`restore` puts torch's back.

Modules run on the CPU, and through CuPy on CUDA devices. Nothing else in ``rnncore`` imports this
package, which needs PyTorch 2.4 or newer.

Examples
--------
>>> import torch
>>> import rnncore.torch
>>> model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4), "head": torch.nn.Linear(4, 2)})
>>> with rnncore.torch.accelerate(model) as accelerated:
...     y, h = model["rnn"](torch.ones(5, 2, 3))
>>> accelerated.swapped, y.shape
(('rnn',), torch.Size([5, 2, 4]))
"""

from __future__ import annotations

from rnncore.torch.cells import GRUCell, LSTMCell, RNNCell
from rnncore.torch.layers import GRU, LSTM, RNN
from rnncore.torch.packing import hold
from rnncore.torch.swap import Accelerated, accelerate, restore

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Accelerated",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "accelerate",
    "hold",
    "restore",
]
