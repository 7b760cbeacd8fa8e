"""The demonstration's training step in plain NumPy: what the engine is compared with.

Written as one writes it with NumPy: the input projections and weight gradients of all steps in one
product, a loop over time for the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnncore.checks import Array
from rnncore.demo.settings import Settings
from rnncore.demo.text import Indices
from rnncore.nn import naive
from rnncore.train.naive import adam_step


def sigmoid(x: Array) -> Array:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def lstm_forward(x: Array, w: list[Array]) -> tuple[Array, tuple[Array, ...]]:
    """Run one LSTM layer over ``x (T, N, D)`` from a zero state; also return what backward needs.

    ``w`` is ``weight_ih, weight_hh, bias_ih, bias_hh`` with gates in the order i f g o.
    """
    steps, rows, hidden = x.shape[0], x.shape[1], w[1].shape[1]
    gates = (x.reshape(-1, x.shape[2]) @ w[0].T + (w[2] + w[3])).reshape(steps, rows, 4 * hidden)
    h = np.zeros((steps + 1, rows, hidden), x.dtype)
    c = np.zeros_like(h)
    for t in range(steps):
        gates[t] += h[t] @ w[1].T
        i, f, g, o = np.split(gates[t], 4, axis=1)  # views: the gates replace their inputs
        i[...], f[...], g[...], o[...] = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c[t + 1] = f * c[t] + i * g
        h[t + 1] = o * np.tanh(c[t + 1])
    return h[1:], (x, gates, h, c)


def lstm_backward(dy: Array, w: list[Array], tape: tuple[Array, ...]) -> tuple[Array, list[Array]]:
    """Return the gradients of ``x`` and of ``w``."""
    x, gates, h, c = tape
    dgates = np.empty_like(gates)
    dh, dc = np.zeros_like(h[0]), np.zeros_like(c[0])
    for t in reversed(range(len(x))):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        dh = dh + dy[t]
        tanh_c = np.tanh(c[t + 1])
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = (dc * g * i * (1 - i), dc * c[t] * f * (1 - f), dc * i * (1 - g**2))
        np.concatenate((*parts, dh * tanh_c * o * (1 - o)), axis=1, out=dgates[t])
        dc = dc * f
        dh = dgates[t] @ w[1]
    flat = dgates.reshape(-1, dgates.shape[2])
    dbias = flat.sum(axis=0)
    grads = [flat.T @ x.reshape(len(flat), -1), flat.T @ h[:-1].reshape(len(flat), -1)]
    return (flat @ w[0]).reshape(x.shape), [*grads, dbias, dbias]


def numpy_step(params: dict[str, Array], settings: Settings) -> Callable[[Indices, Indices], float]:
    """Return a function that does one update of its own copy of the model and returns its loss."""
    params = {name: value.copy() for name, value in params.items()}
    memory = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in params.items()}
    names = [[name for name in params if name.endswith(f"_l{layer}")] for layer in (0, 1)]
    weights = [[params[name] for name in layer] for layer in names]
    table, bias = params["embedding.weight"], params["output.bias"]
    matrix = params["output.weight"]
    done = 0

    def step(inputs: Indices, targets: Indices) -> float:
        nonlocal done
        y0, tape0 = lstm_forward(table[inputs], weights[0])
        y1, tape1 = lstm_forward(y0, weights[1])
        rows = y1.reshape(-1, y1.shape[2])
        logits = rows @ matrix.T + bias
        dlogits = np.empty_like(logits)
        total = naive.softmax_cross_entropy(logits, targets.reshape(-1), dlogits)
        dlogits /= targets.size
        dx1, grads1 = lstm_backward((dlogits @ matrix).reshape(y1.shape), weights[1], tape1)
        dx0, grads0 = lstm_backward(dx1, weights[0], tape0)
        dtable = np.zeros_like(table)
        np.add.at(dtable, inputs, dx0)
        grads = dict(zip(names[0] + names[1], grads0 + grads1, strict=True))
        grads["embedding.weight"] = dtable
        grads["output.weight"], grads["output.bias"] = dlogits.T @ rows, dlogits.sum(axis=0)
        norm = np.sqrt(sum(np.vdot(grad, grad) for grad in grads.values()))
        scale = params["output.bias"].dtype.type(min(1, settings.max_norm / norm))
        done += 1
        for name, value in params.items():
            adam_step(
                value, grads[name] * scale, *memory[name], settings.rate, 0.9, settings.beta2,
                1e-8, done,
            )  # fmt: skip
        return float(total) / targets.size

    return step
