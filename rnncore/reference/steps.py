"""One time step of every cell, forward and backward, in the open.

Each cell is two small functions and one line of `CELLS`. They work on R rows at once: ``x`` is
(R, D), ``h`` is (R, P), ``c`` is (R, H), gates are (R, H). ``h_in`` is h as it enters
``weight_hh``: with recurrent dropout, not h itself. Everything is float64.

``weights`` holds the arrays of one layer and one direction under the names ``weight_ih``,
``weight_hh``, and where the cell has them ``bias_ih``, ``bias_hh``, ``weight_hr``, ``peephole``,
``norm_ih``, ``norm_hh``, ``norm_c`` and ``norm_c_bias``. Those that go by gate hold the rows of the
gates in use alone.

A backward function receives what its forward one saved and the gradients of the new states, and
returns the gradients of x, of the old states and of the weights, these summed over the R rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnncore.cells import CellSpec
from rnncore.reference.activations import Activation
from rnncore.reference.products import (
    Saved,
    Weights,
    layer_norm,
    layer_norm_backward,
    product,
    product_backward,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Equations:
    """What the steps of one direction of one layer read."""

    spec: CellSpec
    weights: Weights
    activations: tuple[Activation, ...]


class Old(NamedTuple):
    """What a step starts from."""

    x: Array
    h: Array
    h_in: Array
    c: Array


Gradients = tuple[Old, Weights]
"""Gradients of what a step started from, and of its weights."""


def rnn_forward(own: Equations, old: Old) -> tuple[Array, Array, Saved]:
    """Take one step of the plain cell.

    Notes
    -----
    ``h' = act(W_ih x + b_ih + W_hh h + b_hh)`` (Elman 1990; ``torch.nn.RNN``). ``c`` is not used.
    """
    (activation,) = own.activations
    from_x, input_saved = product(own.weights, "ih", old.x)
    from_h, state_saved = product(own.weights, "hh", old.h_in)
    a = from_x + from_h
    return activation.value(a), old.c, {"a": a, "ih": input_saved, "hh": state_saved}


def rnn_backward(own: Equations, saved: Saved, dh: Array, dc: Array) -> Gradients:
    """Return the gradients of `rnn_forward`."""
    (activation,) = own.activations
    d_a = dh * activation.slope(saved["a"])
    dx, input_grads = product_backward(own.weights, saved["ih"], d_a)
    dh_in, state_grads = product_backward(own.weights, saved["hh"], d_a)
    return Old(dx, np.zeros_like(dh), dh_in, dc), input_grads | state_grads


def gates_in_use(spec: CellSpec) -> tuple[str, ...]:
    """Return the gates whose rows of the parameters the equations read."""
    return tuple(gate for gate in spec.gates if not (spec.coupled and gate == "f"))


def lstm_forward(own: Equations, old: Old) -> tuple[Array, Array, Saved]:
    """Take one step of the LSTM, with the projection of its output where ``weight_hr`` is given.

    Notes
    -----
    With the rows of the parameters in the order i, f, g, o::

        i = gate(W_ii x + b_ii + W_hi h + b_hi + p_i * c)        f alike; coupled: f = 1 - i
        g =  act(W_ig x + b_ig + W_hg h + b_hg)
        c' = f * c + i * g
        o = gate(W_io x + b_io + W_ho h + b_ho + p_o * c')
        h' = o * out(c')                                         projected: h' = W_hr (o * out(c'))

    where p are the peepholes, if any; with layer norm ``out`` sees ``norm(c') * gain + bias``.

    Hochreiter and Schmidhuber 1997, with the forget gate and the peepholes of Gers et al. 2000 and
    2002 and the projection of Sak et al. 2014; order and names are those of ``torch.nn.LSTM``.
    """
    weights, (gate, act, out), c = own.weights, own.activations, old.c
    from_x, input_saved = product(weights, "ih", old.x)
    from_h, state_saved = product(weights, "hh", old.h_in)
    names = gates_in_use(own.spec)
    a = dict(zip(names, np.split(from_x + from_h, len(names), axis=1), strict=True))
    if "peephole" in weights:
        p_i, p_f, p_o = np.split(weights["peephole"], 3)
        a["i"] = a["i"] + p_i * c
        if "f" in a:
            a["f"] = a["f"] + p_f * c
    i, g = gate.value(a["i"]), act.value(a["g"])
    f = gate.value(a["f"]) if "f" in a else 1.0 - i
    c_new = f * c + i * g
    if "peephole" in weights:
        a["o"] = a["o"] + p_o * c_new
    o = gate.value(a["o"])
    seen, norm_saved = seen_cell(weights, c_new)
    hidden = o * out.value(seen)
    h_new = hidden @ weights["weight_hr"].T if "weight_hr" in weights else hidden
    saved = {"ih": input_saved, "hh": state_saved, "norm": norm_saved, "a": a, "c": c, "i": i}
    saved |= {"f": f, "g": g, "o": o, "c_new": c_new, "seen": seen, "hidden": hidden}
    return h_new, c_new, saved


def lstm_backward(own: Equations, saved: Saved, dh: Array, dc: Array) -> Gradients:
    """Return the gradients of `lstm_forward`."""
    weights, (gate, act, out), a = own.weights, own.activations, saved["a"]
    i, f, g, o, c, c_new, seen = (saved[key] for key in ("i", "f", "g", "o", "c", "c_new", "seen"))
    d_hidden = dh @ weights["weight_hr"] if "weight_hr" in weights else dh
    d_a = {"o": d_hidden * out.value(seen) * gate.slope(a["o"])}
    d_seen = d_hidden * o * out.slope(seen)
    d_c, grads = seen_cell_backward(weights, saved["norm"], d_seen)
    d_c = dc + d_c
    if "peephole" in weights:
        p_i, p_f, p_o = np.split(weights["peephole"], 3)
        d_c = d_c + d_a["o"] * p_o
    d_i, d_f = d_c * g, d_c * c
    if "f" in a:
        d_a["f"] = d_f * gate.slope(a["f"])
    else:
        d_i = d_i - d_f
    d_a["i"] = d_i * gate.slope(a["i"])
    d_a["g"] = d_c * i * act.slope(a["g"])
    d_c_old = d_c * f
    if "peephole" in weights:
        d_p_i, d_p_f, d_p_o = d_a["i"] * c, np.zeros_like(c), d_a["o"] * c_new
        d_c_old = d_c_old + d_a["i"] * p_i
        if "f" in a:
            d_p_f = d_a["f"] * c
            d_c_old = d_c_old + d_a["f"] * p_f
        grads["peephole"] = np.concatenate([d_p_i, d_p_f, d_p_o], axis=1).sum(axis=0)
    if "weight_hr" in weights:
        grads["weight_hr"] = dh.T @ saved["hidden"]
    d_gates = np.concatenate([d_a[name] for name in gates_in_use(own.spec)], axis=1)
    dx, input_grads = product_backward(weights, saved["ih"], d_gates)
    dh_in, state_grads = product_backward(weights, saved["hh"], d_gates)
    return Old(dx, np.zeros_like(dh), dh_in, d_c_old), grads | input_grads | state_grads


def seen_cell(weights: Weights, c: Array) -> tuple[Array, Saved]:
    """Return c as the LSTM's output sees it, and what the gradient needs."""
    if "norm_c" not in weights:
        return c, {}
    normed, inverse = layer_norm(c)
    seen = normed * weights["norm_c"] + weights["norm_c_bias"]
    return seen, {"normed": normed, "inverse": inverse}


def seen_cell_backward(weights: Weights, saved: Saved, d_seen: Array) -> tuple[Array, Weights]:
    """Return the gradients of c and of the weights of `seen_cell`."""
    if "norm_c" not in weights:
        return d_seen, {}
    normed = saved["normed"]
    grads = {"norm_c": (d_seen * normed).sum(axis=0), "norm_c_bias": d_seen.sum(axis=0)}
    return layer_norm_backward(normed, saved["inverse"], d_seen * weights["norm_c"]), grads


def gru_forward(own: Equations, old: Old) -> tuple[Array, Array, Saved]:
    """Take one step of the GRU.

    Notes
    -----
    With the rows of the parameters in the order r, z, n::

        r = gate(W_ir x + b_ir + W_hr h + b_hr)        z alike
        n =  act(W_in x + b_in + r * (W_hn h + b_hn))  reset before: W_hn (r * h) + b_hn
        h' = (1 - z) * n + z * h

    Cho et al. 2014, who reset before the product; resetting after it is the variant of cuDNN and
    ``torch.nn.GRU``. ``c`` is not used.
    """
    weights, (gate, act), H = own.weights, own.activations, own.spec.hidden_size
    from_x, input_saved = product(weights, "ih", old.x)
    saved: Saved = {"ih": input_saved, "old": old}
    if own.spec.reset_after:
        from_h, saved["hh"] = product(weights, "hh", old.h_in)
        from_h, u_n = from_h[:, : 2 * H], from_h[:, 2 * H :]
    else:
        from_h, saved["hh"] = product(weights, "hh", old.h_in, slice(0, 2 * H))
    a_r, a_z = np.split(from_x[:, : 2 * H] + from_h, 2, axis=1)
    r, z = gate.value(a_r), gate.value(a_z)
    if own.spec.reset_after:
        added, saved["u_n"] = r * u_n, u_n
    else:
        added, saved["hh_n"] = product(weights, "hh", r * old.h_in, slice(2 * H, 3 * H))
    a_n = from_x[:, 2 * H :] + added
    n = act.value(a_n)
    saved |= {"r": r, "z": z, "n": n, "a_r": a_r, "a_z": a_z, "a_n": a_n}
    return (1.0 - z) * n + z * old.h, old.c, saved


def gru_backward(own: Equations, saved: Saved, dh: Array, dc: Array) -> Gradients:
    """Return the gradients of `gru_forward`."""
    weights, (gate, act), old = own.weights, own.activations, saved["old"]
    r, z, n = (saved[name] for name in ("r", "z", "n"))
    d_a_n = dh * (1.0 - z) * act.slope(saved["a_n"])
    d_a_z = dh * (old.h - n) * gate.slope(saved["a_z"])
    if own.spec.reset_after:
        d_a_r = d_a_n * saved["u_n"] * gate.slope(saved["a_r"])
        d_state = np.concatenate([d_a_r, d_a_z, d_a_n * r], axis=1)
        dh_in, grads = product_backward(weights, saved["hh"], d_state)
    else:
        d_reset, grads_n = product_backward(weights, saved["hh_n"], d_a_n)
        d_a_r = d_reset * old.h_in * gate.slope(saved["a_r"])
        d_state = np.concatenate([d_a_r, d_a_z], axis=1)
        dh_in, grads = product_backward(weights, saved["hh"], d_state)
        dh_in = dh_in + d_reset * r
        grads = {name: np.concatenate([grads[name], grads_n[name]]) for name in grads}
    d_input = np.concatenate([d_a_r, d_a_z, d_a_n], axis=1)
    dx, input_grads = product_backward(weights, saved["ih"], d_input)
    return Old(dx, dh * z, dh_in, dc), input_grads | grads


@dataclass(frozen=True)
class Cell:
    """The two functions of one step."""

    forward: Callable[[Equations, Old], tuple[Array, Array, Saved]]
    backward: Callable[[Equations, Saved, Array, Array], Gradients]


CELLS = {
    "rnn": Cell(rnn_forward, rnn_backward),
    "lstm": Cell(lstm_forward, lstm_backward),
    "gru": Cell(gru_forward, gru_backward),
}
