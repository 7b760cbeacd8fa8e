"""Layers and losses that stand around the recurrent engine.

A module has ``y = m.forward(x)``, ``dx = m.backward(dy)``, ``m(x)`` for inference, ``params``,
``grads``, ``zero_grad``, ``state_dict`` and ``load_state_dict``, as the recurrent layers have. A
loss has ``value = loss.forward(prediction, target)`` and ``dprediction = loss.backward()``.
"""

from rnncore.layers.pointwise import register
from rnncore.nn.attention import Attention
from rnncore.nn.dropout import Dropout
from rnncore.nn.elementwise_losses import MeanSquaredError, SigmoidCrossEntropy
from rnncore.nn.embedding import Embedding
from rnncore.nn.layer_norm import LayerNorm
from rnncore.nn.linear import Linear
from rnncore.nn.module import Module
from rnncore.nn.multi_head_attention import MultiHeadAttention
from rnncore.nn.positional_encoding import PositionalEncoding
from rnncore.nn.softmax_cross_entropy import SoftmaxCrossEntropy
from rnncore.nn.transformer import TransformerDecoder, TransformerEncoder
from rnncore.nn.word_vectors import read_word2vec

__all__ = [
    "Attention",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "MeanSquaredError",
    "Module",
    "MultiHeadAttention",
    "PositionalEncoding",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "TransformerDecoder",
    "TransformerEncoder",
    "read_word2vec",
]

# What rc.load may meet in a stack's file.
for _kind in (Dropout, LayerNorm, Linear):
    register(_kind)
