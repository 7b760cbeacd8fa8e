"""One time step of every cell, forward and backward, in the open.

Each cell is two small functions and one line of `CELLS`. They work on R rows at once: ``x`` is
(R, D), ``h`` is (R, P), ``c`` is (R, H), gates are (R, H). ``weights`` holds the arrays of one
layer and one direction under the names ``weight_ih``, ``weight_hh``, and where the cell has them
``bias_ih``, ``bias_hh`` and ``weight_hr``. Everything is float64.

A backward function receives what its forward one saved and the gradients of the new states, and
returns the gradients of x, of the old states and of the weights, these summed over the R rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
Saved = dict[str, Any]


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)) without overflow, accurate in the left tail as well."""
    e = np.exp(-np.abs(a))
    numerator: Array = np.where(a < 0, e, 1.0)
    return numerator / (1.0 + e)


def input_product(weights: Weights, x: Array) -> Array:
    """Return ``x W_ih^T + b_ih``, (R, G*H)."""
    product: Array = x @ weights["weight_ih"].T
    return product + weights["bias_ih"] if "bias_ih" in weights else product


def state_product(weights: Weights, h: Array) -> Array:
    """Return ``h W_hh^T + b_hh``, (R, G*H)."""
    product: Array = h @ weights["weight_hh"].T
    return product + weights["bias_hh"] if "bias_hh" in weights else product


def products_backward(
    weights: Weights, x: Array, h: Array, d_input: Array, d_state: Array
) -> tuple[Array, Array, Weights]:
    """Return dx, dh and the weights' gradients from those of the two products, (R, G*H) each."""
    grads = {"weight_ih": d_input.T @ x, "weight_hh": d_state.T @ h}
    if "bias_ih" in weights:
        grads["bias_ih"] = d_input.sum(axis=0)
        grads["bias_hh"] = d_state.sum(axis=0)
    return d_input @ weights["weight_ih"], d_state @ weights["weight_hh"], grads


def rnn_tanh_forward(weights: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array, Saved]:
    """Take one step of the plain cell.

    Notes
    -----
    ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)`` (Elman 1990; ``torch.nn.RNN``). ``c`` is not used.
    """
    h_new = np.tanh(input_product(weights, x) + state_product(weights, h))
    return h_new, c, {"x": x, "h": h, "h_new": h_new}


def rnn_tanh_backward(
    weights: Weights, saved: Saved, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Weights]:
    """Return dx, dh, dc and the weights' gradients of `rnn_tanh_forward`."""
    d_gate = dh * (1.0 - saved["h_new"] ** 2)
    dx, dh_old, grads = products_backward(weights, saved["x"], saved["h"], d_gate, d_gate)
    return dx, dh_old, dc, grads


def rnn_relu_forward(weights: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array, Saved]:
    """Take one step of the plain cell with ``h' = max(0, W_ih x + b_ih + W_hh h + b_hh)``."""
    h_new = np.maximum(input_product(weights, x) + state_product(weights, h), 0.0)
    return h_new, c, {"x": x, "h": h, "h_new": h_new}


def rnn_relu_backward(
    weights: Weights, saved: Saved, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Weights]:
    """Return dx, dh, dc and the weights' gradients of `rnn_relu_forward`; the slope at 0 is 0."""
    d_gate: Array = np.where(saved["h_new"] > 0, dh, 0.0)
    dx, dh_old, grads = products_backward(weights, saved["x"], saved["h"], d_gate, d_gate)
    return dx, dh_old, dc, grads


def lstm_forward(weights: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array, Saved]:
    """Take one step of the LSTM, with the projection of its output where ``weight_hr`` is given.

    Notes
    -----
    With the rows of the parameters in the order i, f, g, o::

        i = sigmoid(W_ii x + b_ii + W_hi h + b_hi)        f, o alike
        g =    tanh(W_ig x + b_ig + W_hg h + b_hg)
        c' = f * c + i * g
        h' = o * tanh(c')                                 projected: h' = W_hr (o * tanh(c'))

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000 and the projection of
    Sak et al. 2014; order and names are those of ``torch.nn.LSTM``.
    """
    gates = input_product(weights, x) + state_product(weights, h)
    a_i, a_f, a_g, a_o = np.split(gates, 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_new = f * c + i * g
    tanh_c = np.tanh(c_new)
    hidden = o * tanh_c
    h_new = hidden @ weights["weight_hr"].T if "weight_hr" in weights else hidden
    saved = {"x": x, "h": h, "c": c, "i": i, "f": f, "g": g, "o": o}
    return h_new, c_new, saved | {"tanh_c": tanh_c, "hidden": hidden}


def lstm_backward(
    weights: Weights, saved: Saved, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Weights]:
    """Return dx, dh, dc and the weights' gradients of `lstm_forward`."""
    i, f, g, o, tanh_c = (saved[name] for name in ("i", "f", "g", "o", "tanh_c"))
    d_hidden = dh @ weights["weight_hr"] if "weight_hr" in weights else dh
    d_c = dc + d_hidden * o * (1.0 - tanh_c**2)
    d_gates = np.concatenate(
        [
            d_c * g * i * (1.0 - i),
            d_c * saved["c"] * f * (1.0 - f),
            d_c * i * (1.0 - g**2),
            d_hidden * tanh_c * o * (1.0 - o),
        ],
        axis=1,
    )
    dx, dh_old, grads = products_backward(weights, saved["x"], saved["h"], d_gates, d_gates)
    if "weight_hr" in weights:
        grads["weight_hr"] = dh.T @ saved["hidden"]
    return dx, dh_old, d_c * f, grads


def gru_forward(weights: Weights, x: Array, h: Array, c: Array) -> tuple[Array, Array, Saved]:
    """Take one step of the GRU whose reset gate acts after the product with h.

    Notes
    -----
    With the rows of the parameters in the order r, z, n::

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)        z alike
        n =    tanh(W_in x + b_in + r * (W_hn h + b_hn))
        h' = (1 - z) * n + z * h

    Cho et al. 2014 in the variant of cuDNN and ``torch.nn.GRU``. ``c`` is not used.
    """
    x_r, x_z, x_n = np.split(input_product(weights, x), 3, axis=1)
    h_r, h_z, h_n = np.split(state_product(weights, h), 3, axis=1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = np.tanh(x_n + r * h_n)
    h_new = (1.0 - z) * n + z * h
    return h_new, c, {"x": x, "h": h, "r": r, "z": z, "n": n, "h_n": h_n}


def gru_backward(
    weights: Weights, saved: Saved, dh: Array, dc: Array
) -> tuple[Array, Array, Array, Weights]:
    """Return dx, dh, dc and the weights' gradients of `gru_forward`."""
    h, r, z, n = (saved[name] for name in ("h", "r", "z", "n"))
    d_n = dh * (1.0 - z) * (1.0 - n**2)
    d_z = dh * (h - n) * z * (1.0 - z)
    d_r = d_n * saved["h_n"] * r * (1.0 - r)
    d_input = np.concatenate([d_r, d_z, d_n], axis=1)
    d_state = np.concatenate([d_r, d_z, d_n * r], axis=1)
    dx, dh_old, grads = products_backward(weights, saved["x"], h, d_input, d_state)
    return dx, dh_old + dh * z, dc, grads


@dataclass(frozen=True)
class Cell:
    """The two functions of one step."""

    forward: Callable[[Weights, Array, Array, Array], tuple[Array, Array, Saved]]
    backward: Callable[[Weights, Saved, Array, Array], tuple[Array, Array, Array, Weights]]


CELLS = {
    "rnn_tanh": Cell(rnn_tanh_forward, rnn_tanh_backward),
    "rnn_relu": Cell(rnn_relu_forward, rnn_relu_backward),
    "lstm": Cell(lstm_forward, lstm_backward),
    "gru": Cell(gru_forward, gru_backward),
}
