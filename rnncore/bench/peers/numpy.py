"""NumPy: the recurrences written as one writes them with it, beside its own BLAS.

The projections of all steps are one product, and so are the gradients of the weights; the loop over
time holds the rest, in place where NumPy allows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Refused, Work
from rnncore.checks import Array

Forward: TypeAlias = Callable[[Array, Array, Array, list[Array]], tuple[Any, ...]]
Backward: TypeAlias = Callable[[Array, Array, tuple[Any, ...]], tuple[Array, Array]]


class NumPy(Peer):
    """Inference, training and streaming in plain NumPy."""

    name = "NumPy"
    version = np.__version__

    def __init__(self, threads: int) -> None:
        """Limit NumPy's BLAS, if threadpoolctl is there to do it."""
        try:
            from threadpoolctl import threadpool_limits
        except ImportError:
            self._limited: object = None
        else:
            self._limited = threadpool_limits(threads, user_api="blas")

    def inference(self, problem: Problem) -> Work:
        """Return the layers' forward passes."""
        problem.need("float32", "float64")
        note, x = problem.padded_note, problem.x

        def run() -> Array:
            return forward(problem, x)[0]

        return Work(run, lambda: {"y": problem.masked(run())}, note)

    def training(self, problem: Problem) -> Work:
        """Return forward and backward."""
        problem.need("float32", "float64")
        note = problem.padded_note

        def run() -> Arrays:
            y, tapes = forward(problem, problem.x)
            dx, grads = backward(problem, problem.dy, tapes)
            return {"y": y, "dx": dx, **grads}

        def check() -> Arrays:
            arrays = run()
            return {**arrays, "y": problem.masked(arrays["y"])}

        return Work(run, check, note)

    def streaming(self, problem: Problem) -> Work:
        """Return one step of every layer from the state before."""
        problem.need("float32", "float64")
        weights = [problem.layer_weights(layer, 0) for layer in range(problem.case.layers)]
        step = STEPS[problem.case.cell]
        shape = (problem.case.N, problem.case.H)

        def start() -> list[tuple[Array, Array]]:
            return [(np.zeros(shape, problem.number), np.zeros(shape, problem.number))
                    for _ in weights]  # fmt: skip

        states = start()
        x_t = problem.x[0].copy()

        def run(x: Array = x_t) -> Array:
            for layer, w in enumerate(weights):
                states[layer] = step(x @ w[0].T + w[2], states[layer], w)
                x = states[layer][0]
            return x

        def check() -> Arrays:
            states[:] = start()
            return {"y": np.stack([run(x) for x in problem.stream_x])}

        return Work(run, check)

    def first(self, problem: Problem) -> Work:
        """Refuse: there is no session."""
        raise Refused("no session to make")


def forward(problem: Problem, x: Array) -> tuple[Array, list[list[tuple[Any, ...]]]]:
    """Run all layers and directions; return y and what backward needs of each."""
    run = FORWARD[problem.case.cell]
    tapes: list[list[tuple[Any, ...]]] = []
    for layer in range(problem.case.layers):
        outputs, kept = [], []
        for direction in range(problem.case.directions):
            w = problem.layer_weights(layer, direction)
            seen = x[::-1] if direction else x
            rows = seen.reshape(-1, seen.shape[2])
            projected = (rows @ w[0].T + w[2]).reshape(*seen.shape[:2], -1)
            h = np.zeros((len(x) + 1, x.shape[1], problem.case.H), x.dtype)
            kept.append((seen, h, *run(projected, h, w[1].T, w)))
            outputs.append(h[:0:-1] if direction else h[1:])
        tapes.append(kept)
        x = np.concatenate(outputs, axis=2) if len(outputs) == 2 else outputs[0]
    return x, tapes


def backward(
    problem: Problem, dy: Array, tapes: list[list[tuple[Any, ...]]]
) -> tuple[Array, Arrays]:
    """Return dx and the gradients by name."""
    run, units = BACKWARD[problem.case.cell], problem.case.H
    grads: Arrays = {}
    for layer in reversed(range(problem.case.layers)):
        dx: Any = 0
        for direction in range(problem.case.directions):
            names = problem.layer_names(layer, direction)
            w, part = problem.layer_weights(layer, direction), slice(direction * units, None)
            seen, h, *rest = tapes[layer][direction]
            given = dy[..., part][..., :units]
            # Gradients of the projected input and of the recurrent product; for a GRU they differ.
            d_in, d_rec = run(given[::-1] if direction else given, w[1], (h, *rest))
            flat, flat_rec = d_in.reshape(-1, d_in.shape[2]), d_rec.reshape(-1, d_rec.shape[2])
            arrays = (
                flat.T @ seen.reshape(len(flat), -1),
                flat_rec.T @ h[:-1].reshape(len(flat), -1),
                flat.sum(axis=0),
                flat_rec.sum(axis=0),
            )
            grads.update(zip(names, arrays, strict=True))
            d_seen = (flat @ w[0]).reshape(seen.shape)
            dx = dx + (d_seen[::-1] if direction else d_seen)
        dy = dx
    return dy, grads


def sigmoid(x: Array) -> Array:
    """Replace ``x`` by its logistic function, through tanh, which NumPy has vectorised."""
    x *= 0.5
    np.tanh(x, out=x)
    x *= 0.5
    x += 0.5
    return x


# --- one step of a stream: projected input and state in, state out --------------------------------


def rnn_step(projected: Array, state: tuple[Array, Array], w: list[Array]) -> tuple[Array, Array]:
    """Return ``tanh(W x + U h + b)``."""
    return np.tanh(projected + state[0] @ w[1].T + w[3]), state[1]


def lstm_step(projected: Array, state: tuple[Array, Array], w: list[Array]) -> tuple[Array, Array]:
    """Return h and c, gates in the order i f g o."""
    units = state[0].shape[1]
    gates = projected + state[0] @ w[1].T + w[3]
    g = np.tanh(gates[:, 2 * units : 3 * units])
    sigmoid(gates)
    c = gates[:, units : 2 * units] * state[1] + gates[:, :units] * g
    return gates[:, 3 * units :] * np.tanh(c), c


def gru_step(projected: Array, state: tuple[Array, Array], w: list[Array]) -> tuple[Array, Array]:
    """Return h, gates in the order r z n."""
    h, units = state[0], state[0].shape[1]
    product = h @ w[1].T + w[3]
    rz = sigmoid(projected[:, : 2 * units] + product[:, : 2 * units])
    n = np.tanh(projected[:, 2 * units :] + rz[:, :units] * product[:, 2 * units :])
    return n + rz[:, units:] * (h - n), state[1]


# --- sequences: projected (T, N, G*H), h (T + 1, N, H) to be filled, U transposed -----------------


def rnn_forward(projected: Array, h: Array, u: Array, w: list[Array]) -> tuple[Any, ...]:
    """Fill ``h``."""
    projected += w[3]
    for t, gates in enumerate(projected):
        gates += h[t] @ u
        np.tanh(gates, out=h[t + 1])
    return ()


def rnn_backward(dy: Array, u: Array, tape: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return the gradients of both products."""
    (h,) = tape
    d, dh = np.empty_like(h[1:]), np.zeros_like(h[0])
    for t in reversed(range(len(d))):
        np.multiply(dh + dy[t], 1 - h[t + 1] ** 2, out=d[t])
        dh = d[t] @ u
    return d, d


def lstm_forward(projected: Array, h: Array, u: Array, w: list[Array]) -> tuple[Any, ...]:
    """Fill ``h``; the projection becomes the gates i f g o."""
    projected += w[3]
    c = np.zeros_like(h)
    for t, gates in enumerate(projected):
        gates += h[t] @ u
        i, f, g, o = np.split(gates, 4, axis=1)  # views: the gates replace their inputs
        sigmoid(i), sigmoid(f), np.tanh(g, out=g), sigmoid(o)
        np.multiply(f, c[t], out=c[t + 1])
        c[t + 1] += i * g
        np.multiply(o, np.tanh(c[t + 1]), out=h[t + 1])
    return projected, c


def lstm_backward(dy: Array, u: Array, tape: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return the gradients of both products."""
    h, gates, c = tape
    d, dh, dc = np.empty_like(gates), np.zeros_like(h[0]), np.zeros_like(h[0])
    for t in reversed(range(len(d))):
        i, f, g, o = np.split(gates[t], 4, axis=1)
        di, df, dg, do = np.split(d[t], 4, axis=1)
        dh = dh + dy[t]
        tanh_c = np.tanh(c[t + 1])
        dc += dh * o * (1 - tanh_c**2)
        di[...] = dc * g * i * (1 - i)
        df[...] = dc * c[t] * f * (1 - f)
        dg[...] = dc * i * (1 - g**2)
        do[...] = dh * tanh_c * o * (1 - o)
        dc *= f
        dh = d[t] @ u
    return d, d


def gru_forward(projected: Array, h: Array, u: Array, w: list[Array]) -> tuple[Any, ...]:
    """Fill ``h``; the projection becomes the gates r z n."""
    units = h.shape[2]
    products = np.empty_like(projected[:, :, 2 * units :])
    for t, gates in enumerate(projected):
        product = h[t] @ u
        product += w[3]
        rz, n = gates[:, : 2 * units], gates[:, 2 * units :]
        rz += product[:, : 2 * units]
        sigmoid(rz)
        products[t] = product[:, 2 * units :]
        n += rz[:, :units] * products[t]
        np.tanh(n, out=n)
        np.subtract(h[t], n, out=h[t + 1])
        h[t + 1] *= rz[:, units:]
        h[t + 1] += n
    return projected, products


def gru_backward(dy: Array, u: Array, tape: tuple[Any, ...]) -> tuple[Array, Array]:
    """Return the gradients of the projection and of the recurrent product, whose n differ by r."""
    h, gates, products = tape
    d_in, d_rec, dh = np.empty_like(gates), np.empty_like(gates), np.zeros_like(h[0])
    for t in reversed(range(len(d_in))):
        r, z, n = np.split(gates[t], 3, axis=1)
        dr, dz, dn = np.split(d_in[t], 3, axis=1)
        dh = dh + dy[t]
        dn[...] = dh * (1 - z) * (1 - n**2)
        dz[...] = dh * (h[t] - n) * z * (1 - z)
        dr[...] = dn * products[t] * r * (1 - r)
        d_rec[t] = d_in[t]
        d_rec[t, :, 2 * r.shape[1] :] *= r
        dh = dh * z + d_rec[t] @ u
    return d_in, d_rec


STEPS = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step}
FORWARD: dict[str, Forward] = {"RNN": rnn_forward, "LSTM": lstm_forward, "GRU": gru_forward}
BACKWARD: dict[str, Backward] = {"RNN": rnn_backward, "LSTM": lstm_backward, "GRU": gru_backward}
