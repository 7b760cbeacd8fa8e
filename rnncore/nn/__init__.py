"""Layers and losses that stand around the recurrent engine.

A module has ``y = m.forward(x)``, ``dx = m.backward(dy)``, ``m(x)`` for inference, ``params``,
``grads``, ``zero_grad``, ``state_dict`` and ``load_state_dict``, as the recurrent layers have. A
loss has ``value = loss.forward(prediction, target)`` and ``dprediction = loss.backward()``.
"""

from rnncore.nn.dropout import Dropout
from rnncore.nn.embedding import Embedding
from rnncore.nn.linear import Linear
from rnncore.nn.module import Module
from rnncore.nn.softmax_cross_entropy import SoftmaxCrossEntropy

__all__ = ["Dropout", "Embedding", "Linear", "Module", "SoftmaxCrossEntropy"]
