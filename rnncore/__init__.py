"""A recurrent-network engine: C++ kernels under a thin Python layer API."""

from __future__ import annotations

from rnncore import cuda, functional, nn, reference
from rnncore._version import __version__
from rnncore.config import get_include, show_config
from rnncore.cuda import allow_tf32, tf32_allowed
from rnncore.errors import DeviceError, FormatError
from rnncore.io import load, save
from rnncore.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    RNNCell,
    Stack,
)
from rnncore.threadpool import register_if_loaded as _register_if_loaded
from rnncore.threads import get_num_threads, set_num_threads, threads

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "DeviceError",
    "FormatError",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Stack",
    "__version__",
    "allow_tf32",
    "cuda",
    "functional",
    "get_include",
    "get_num_threads",
    "load",
    "nn",
    "reference",
    "save",
    "set_num_threads",
    "show_config",
    "tf32_allowed",
    "threads",
]

_register_if_loaded()
