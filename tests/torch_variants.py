"""The cells with their options written out in PyTorch, for autograd to differentiate, in float64.

A text of its own: nothing here is taken from the reference. Masks are given; a zoneout without one
takes its expectation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from cases import Case, Problem, Results, collect

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs it installed")
F = torch.nn.functional

PLAIN = {"rnn": ["Tanh"], "lstm": ["Sigmoid", "Tanh", "Tanh"], "gru": ["Sigmoid", "Tanh"]}


def activate(name: str, a: Any, alpha: float, beta: float) -> Any:
    """Return an activation of ONNX, put together from PyTorch's."""
    return {
        "Affine": lambda: alpha * a + beta,
        "Elu": lambda: F.elu(a, alpha),
        "HardSigmoid": lambda: torch.clamp(alpha * a + beta, 0, 1),
        "LeakyRelu": lambda: F.leaky_relu(a, alpha),
        "Relu": lambda: torch.relu(a),
        "ScaledTanh": lambda: alpha * torch.tanh(beta * a),
        "Sigmoid": lambda: torch.sigmoid(a),
        "Softplus": lambda: F.softplus(a, threshold=50),
        "Softsign": lambda: F.softsign(a),
        "Tanh": lambda: torch.tanh(a),
        "ThresholdedRelu": lambda: F.threshold(a, alpha, 0.0),
    }[name]()


class Direction:
    """One direction of one layer: its weights, and one step of its cell."""

    def __init__(self, case: Case, weights: Mapping[str, Any], masks: Mapping[str, Any]) -> None:
        self.case, self.w, self.masks = case, weights, masks
        chosen = case.activations or [(name, 0.0, 0.0) for name in PLAIN[case.cell]]
        self.acts = [self._clipped(*activation) for activation in chosen]

    def _clipped(self, name: str, alpha: float, beta: float) -> Any:
        clip = self.case.clip

        def act(a: Any) -> Any:
            return activate(name, a if clip is None else a.clamp(-clip, clip), alpha, beta)

        return act

    def product(self, side: str, v: Any, gates: list[int]) -> Any:
        """Return the norm, gain and bias of the product with the rows of some gates."""
        H = self.case.H
        rows = torch.cat([torch.arange(gate * H, gate * H + H) for gate in gates])
        a = v @ self.w[f"weight_{side}"][rows].T
        if self.case.layer_norm:
            a = F.layer_norm(a, (len(rows),), self.w[f"norm_{side}"][rows], None, 1e-5)
        return a + self.w[f"bias_{side}"][rows] if self.case.bias else a

    def rnn(self, x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
        return self.acts[0](self.product("ih", x, [0]) + self.product("hh", h_in, [0])), c

    def gru(self, x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
        H, (gate, act) = self.case.H, self.acts
        from_x = self.product("ih", x, [0, 1, 2])
        if self.case.reset_after:
            u = self.product("hh", h_in, [0, 1, 2])
            r, z = gate(from_x[:, :H] + u[:, :H]), gate(from_x[:, H : 2 * H] + u[:, H : 2 * H])
            n = act(from_x[:, 2 * H :] + r * u[:, 2 * H :])
        else:
            r, z = gate(from_x[:, : 2 * H] + self.product("hh", h_in, [0, 1])).chunk(2, 1)
            n = act(from_x[:, 2 * H :] + self.product("hh", r * h_in, [2]))
        return n - z * n + z * h, c

    def lstm(self, x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
        case, (gate, act, out) = self.case, self.acts
        gates = [0, 2, 3] if case.coupled else [0, 1, 2, 3]
        a = self.product("ih", x, gates) + self.product("hh", h_in, gates)
        parts = dict(zip(gates, a.chunk(len(gates), 1), strict=True))
        peepholes = self.w["peephole"].chunk(3) if case.peephole else (0.0, 0.0, 0.0)
        i = gate(parts[0] + peepholes[0] * c)
        f = 1 - i if case.coupled else gate(parts[1] + peepholes[1] * c)
        c_new = f * c + i * act(parts[2])
        o = gate(parts[3] + peepholes[2] * c_new)
        seen = c_new
        if case.layer_norm:
            seen = F.layer_norm(c_new, (case.H,), self.w["norm_c"], self.w["norm_c_bias"], 1e-5)
        h_new = o * out(seen)
        return (h_new @ self.w["weight_hr"].T if case.proj_size else h_new), c_new

    def step(self, t: int, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        """Return the states after a step, some of them kept by zoneout."""
        dropped = self.masks["recurrent"]
        h_in = h if dropped is None else h * dropped
        new = getattr(self, self.case.cell)(x, h, h_in, c)
        kept = (self.masks["zoneout_h"], self.masks["zoneout_c"])
        mixed = []
        for old, fresh, keep, rate in zip((h, c), new, kept, self.case.zoneout, strict=True):
            share = rate if keep is None else keep[t].to(torch.float64)
            mixed.append(share * old + (1 - share) * fresh)
        return mixed[0], mixed[1]


def run_variant(case: Case, problem: Problem) -> Results:
    """Run layers and directions forward over whole sequences, and autograd back."""
    p, spec = problem, case.spec
    leaves = {name: _leaf(value) for name, value in p.params.items()}
    x, h0 = _leaf(p.x), _leaf(p.h0)
    c0 = _leaf(np.zeros((spec.state_rows, case.N, case.H)) if p.c0 is None else p.c0)
    y, hn, cn = x, [], []
    for layer in range(case.layers):
        mask = None if p.masks is None else p.masks.inputs[layer]
        inputs = y if mask is None else y * torch.from_numpy(mask.copy())
        outputs = []
        for k in range(spec.num_directions):
            at = layer * spec.num_directions + k
            end = f"_l{layer}" + "_reverse" * k
            weights = {n.removesuffix(end): leaf for n, leaf in leaves.items() if n.endswith(end)}
            direction = Direction(case, weights, _masks_at(p, at))
            h, c, steps = h0[at], c0[at], {}
            for t in reversed(range(case.T)) if k else range(case.T):
                h, c = direction.step(t, inputs[t], h, c)
                steps[t] = h
            outputs.append(torch.stack([steps[t] for t in range(case.T)]))
            hn.append(h)
            cn.append(c)
        y = torch.cat(outputs, dim=2)
    finals = [torch.stack(hn), *([torch.stack(cn)] if spec.has_cell_state else [])]
    outer = [p.dy, p.dhn, p.dcn][: 1 + len(finals)]
    torch.autograd.backward([y, *finals], [torch.from_numpy(g) for g in outer])
    arrays = [part.detach().numpy() for part in (y, *finals)]
    slopes = [part.grad.numpy() for part in (x, h0, c0)[: 1 + len(finals)]]
    pad = [None] * (2 - len(finals))
    grads = {name: leaf.grad.numpy() for name, leaf in leaves.items()}
    return collect(*arrays, *pad, *slopes, *pad, grads)


def _masks_at(problem: Problem, at: int) -> dict[str, Any]:
    kinds = ("recurrent", "zoneout_h", "zoneout_c")
    if problem.masks is None:
        return dict.fromkeys(kinds)
    found = {kind: getattr(problem.masks, kind)[at] for kind in kinds}
    return {k: None if mask is None else torch.from_numpy(mask.copy()) for k, mask in found.items()}


def _leaf(array: np.ndarray) -> Any:
    return torch.from_numpy(array.copy()).requires_grad_()
