"""JAX: ``lax.scan`` under ``jit``, the input projection in one product before it.

XLA takes its number of threads from the CPUs that the process may use when JAX is first run; the
program narrows those before peers are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Work


class Jax(Peer):
    """Compiled by XLA; timed until the results are there."""

    name = "JAX"
    version: str = jax.__version__

    def __init__(self, threads: int) -> None:
        jax.config.update("jax_platforms", "cpu")

    def inference(self, problem: Problem) -> Work:
        """Return a jitted call whose weights are on the device already."""
        x, weights = self._placed(problem)
        call = jax.jit(sequence(problem))
        return self._inference(lambda: call(weights, x), problem)

    def training(self, problem: Problem) -> Work:
        """Return the jitted value and vector-Jacobian product with respect to x and weights."""
        note, (x, weights) = problem.padded_note, self._placed(problem)
        dy, call = jnp.asarray(problem.dy), sequence(problem)

        def step(weights: Any, x: Any, dy: Any) -> Any:
            y, pull = jax.vjp(call, weights, x)
            return y, pull(dy)

        jitted = jax.jit(step)

        def run() -> Any:
            return jax.block_until_ready(jitted(weights, x, dy))

        def check() -> Arrays:
            y, (grads, dx) = run()
            arrays = {name: np.asarray(grad) for name, grad in grads.items()}
            return {"y": problem.masked(np.asarray(y)), "dx": np.asarray(dx), **arrays}

        return Work(run, check, note)

    def streaming(self, problem: Problem) -> Work:
        """Return a jitted step; the state stays on the device."""
        x, weights = self._placed(problem)
        case, cell = problem.case, CELLS[problem.case.cell]

        def step(weights: Any, states: Any, x: Any) -> Any:
            after = []
            for layer, state in enumerate(states):
                w_ih, w_hh, b_ih, b_hh = (weights[name] for name in problem.layer_names(layer, 0))
                after.append(cell(state, x @ w_ih.T + b_ih, w_hh, b_hh)[0])
                x = after[-1][0]
            return after, x

        jitted = jax.jit(step)

        def start() -> Any:
            zeros = jnp.zeros((case.N, case.H), problem.number)
            return [(zeros, zeros) if case.cell == "LSTM" else (zeros,)] * case.layers

        kept = [start()]

        def run(x: Any = x[0]) -> Any:
            kept[0], y = jitted(weights, kept[0], x)
            return y.block_until_ready()

        def check() -> Arrays:
            kept[0] = start()
            return {"y": np.stack([np.asarray(run(x)) for x in problem.stream_x])}

        return Work(run, check)

    def first(self, problem: Problem) -> Work:
        """Return tracing, compiling and one call."""
        x, weights = self._placed(problem)
        return self._inference(lambda: jax.jit(sequence(problem))(weights, x), problem)

    def _placed(self, problem: Problem) -> tuple[Any, dict[str, Any]]:
        problem.need("float32", "float64")
        if problem.number == "float64":
            jax.config.update("jax_enable_x64", True)
        weights = {name: jnp.asarray(w) for name, w in problem.weights.items()}
        return jnp.asarray(problem.x), weights

    def _inference(self, call: Callable[[], Any], problem: Problem) -> Work:
        def run() -> Any:
            return call().block_until_ready()

        return Work(
            run, lambda: {"y": problem.masked(np.asarray(run()))}, problem.padded_note
        )  # fmt: skip


def sequence(problem: Problem) -> Callable[[dict[str, Any], Any], Any]:
    """Return a function of weights and x that gives y."""
    case, cell = problem.case, CELLS[problem.case.cell]

    def direction(weights: dict[str, Any], x: Any, layer: int, reverse: int) -> Any:
        names = problem.layer_names(layer, reverse)
        w_ih, w_hh, b_ih, b_hh = (weights[name] for name in names)
        zeros = jnp.zeros((case.N, case.H), x.dtype)
        start = (zeros, zeros) if case.cell == "LSTM" else (zeros,)
        return lax.scan(
            lambda state, projected: cell(state, projected, w_hh, b_hh),
            start,
            x @ w_ih.T + b_ih,
            reverse=bool(reverse),
        )[1]

    def run(weights: dict[str, Any], x: Any) -> Any:
        for layer in range(case.layers):
            outputs = [direction(weights, x, layer, k) for k in range(case.directions)]
            x = jnp.concatenate(outputs, axis=2) if len(outputs) == 2 else outputs[0]
        return x

    return run


def rnn(state: Any, projected: Any, w_hh: Any, b_hh: Any) -> Any:
    """Return the next state and the step's output."""
    h = jnp.tanh(projected + state[0] @ w_hh.T + b_hh)
    return (h,), h


def lstm(state: Any, projected: Any, w_hh: Any, b_hh: Any) -> Any:
    """Return the next state and the step's output; gates i f g o."""
    i, f, g, o = jnp.split(projected + state[0] @ w_hh.T + b_hh, 4, axis=1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def gru(state: Any, projected: Any, w_hh: Any, b_hh: Any) -> Any:
    """Return the next state and the step's output; gates r z n, reset after the product."""
    p_r, p_z, p_n = jnp.split(projected, 3, axis=1)
    u_r, u_z, u_n = jnp.split(state[0] @ w_hh.T + b_hh, 3, axis=1)
    z = jax.nn.sigmoid(p_z + u_z)
    n = jnp.tanh(p_n + jax.nn.sigmoid(p_r + u_r) * u_n)
    h = n + z * (state[0] - n)
    return (h,), h


CELLS: dict[str, Callable[..., Any]] = {"RNN": rnn, "LSTM": lstm, "GRU": gru}
