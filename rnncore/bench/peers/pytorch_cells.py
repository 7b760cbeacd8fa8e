"""The cells with their options written out in PyTorch, as one would for a paper.

One layer in one direction: x is multiplied for all steps at once, a loop over time does the rest,
autograd the gradients, and masks are drawn by torch. Equations and names are those of
``rnncore.reference.steps``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from rnncore.cells import PLAIN_ACTIVATIONS, CellSpec
from rnncore.masks import Masks

if TYPE_CHECKING:
    from rnncore.bench.variants import OptionProblem

ACTIVATIONS: dict[str, Callable[[Any, float, float], Any]] = {
    "Elu": lambda a, alpha, beta: F.elu(a, alpha),
    "HardSigmoid": lambda a, alpha, beta: torch.clamp(alpha * a + beta, 0, 1),
    "Relu": lambda a, alpha, beta: torch.relu(a),
    "Sigmoid": lambda a, alpha, beta: torch.sigmoid(a),
    "Softsign": lambda a, alpha, beta: F.softsign(a),
    "Tanh": lambda a, alpha, beta: torch.tanh(a),
}
"""Those that the benchmark asks for, of what went in, alpha and beta."""


class WrittenOut(torch.nn.Module):  # type: ignore[misc]
    """A layer with the problem's weights; the final state is not made.

    Parameters
    ----------
    problem : OptionProblem
        The recurrence, its weights and resets, and the rates of dropout.
    """

    def __init__(self, problem: OptionProblem) -> None:
        super().__init__()
        self.spec, self.rates = problem.spec, problem.rates
        resets = problem.resets
        self.resets = None if resets is None else torch.from_numpy(resets)[:, :, None].unbind(0)
        self.masks: dict[str, Any] | None = None
        for name, value in problem.weights.items():
            self.register_parameter(name, torch.nn.Parameter(torch.from_numpy(value.copy())))

    @contextmanager
    def given(self, masks: Masks | None) -> Iterator[None]:
        """Use these masks instead of drawing some."""
        parts = {} if masks is None else masks._asdict()
        self.masks = {
            name: None if entries[0] is None else torch.from_numpy(entries[0].copy())
            for name, entries in parts.items()
        }
        try:
            yield
        finally:
            self.masks = None

    def forward(self, x: Any) -> tuple[Any, None]:
        """Return y of x ``(T, N, D)``."""
        masks = self._drawn(x) if self.masks is None else self.masks
        if (dropped := masks.get("inputs")) is not None:
            x = x * dropped
        zoneout = [_steps(masks.get(f"zoneout_{part}")) for part in "hc"]
        dropped = masks.get("recurrent")
        spec, batch = self.spec, x.shape[1]
        from_x, step = {"rnn": self._rnn, "gru": self._gru, "lstm": self._lstm}[spec.cell](x)
        h = x.new_zeros(batch, spec.output_size)
        c = x.new_zeros(batch, spec.hidden_size) if spec.has_cell_state else None
        outputs = []
        for t, a_x in enumerate(from_x.unbind(0)):
            if self.resets is not None:
                h = h.masked_fill(self.resets[t], 0)
                c = None if c is None else c.masked_fill(self.resets[t], 0)
            h_in = h if dropped is None else h * dropped
            h_new, c_new = step(a_x, h, h_in, c)
            h = h_new if zoneout[0] is None else torch.where(zoneout[0][t], h, h_new)
            c = c_new if zoneout[1] is None else torch.where(zoneout[1][t], c, c_new)
            outputs.append(h)
        return torch.stack(outputs), None

    def _drawn(self, x: Any) -> dict[str, Any]:
        """Return the masks of one call."""
        (steps, batch, inputs), spec, masks = x.shape, self.spec, {}
        if rate := self.rates.get("dropout"):
            masks["inputs"] = F.dropout(x.new_ones(batch, inputs), rate)
        if rate := self.rates.get("recurrent_dropout"):
            masks["recurrent"] = F.dropout(x.new_ones(batch, spec.output_size), rate)
        sizes = {"h": spec.output_size, "c": spec.hidden_size}
        for (part, size), rate in zip(sizes.items(), spec.zoneout, strict=True):
            if rate:
                masks[f"zoneout_{part}"] = torch.rand(steps, batch, size) < rate
        return masks

    def _product(self, side: str, rows: Any = slice(None)) -> Callable[[Any], Any]:
        """Return the product with some rows of a weight, normalised, and its bias."""
        weight, bias = (self._weight(f"{name}_{side}")[rows] for name in ("weight", "bias"))
        if not self.spec.layer_norm:
            return lambda v: F.linear(v, weight, bias)
        gain = self._weight(f"norm_{side}")[rows]
        return lambda v: F.layer_norm(F.linear(v, weight), gain.shape, gain, bias)

    def _weight(self, name: str) -> Any:
        return self.get_parameter(f"{name}_l0")

    def _rnn(self, x: Any) -> tuple[Any, Callable[..., Any]]:
        from_h = self._product("hh")
        (act,) = activations(self.spec)

        def step(a_x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
            return act(a_x + from_h(h_in)), c

        return self._product("ih")(x), step

    def _gru(self, x: Any) -> tuple[Any, Callable[..., Any]]:
        split = 2 * self.spec.hidden_size
        gate, act = activations(self.spec)
        both = slice(None) if self.spec.reset_after else slice(split)
        from_h, reset_from_h = self._product("hh", both), self._product("hh", slice(split, None))

        def step_after(a_x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = a_x.chunk(3, 1), from_h(h_in).chunk(3, 1)
            r, z = gate(x_r + h_r), gate(x_z + h_z)
            n = act(x_n + r * h_n)
            return n + z * (h - n), c

        def step_before(a_x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
            r, z = gate(a_x[:, :split] + from_h(h_in)).chunk(2, 1)
            n = act(a_x[:, split:] + reset_from_h(r * h_in))
            return n + z * (h - n), c

        return self._product("ih")(x), step_after if self.spec.reset_after else step_before

    def _lstm(self, x: Any) -> tuple[Any, Callable[..., Any]]:
        spec, units = self.spec, self.spec.hidden_size
        gate, act, out = activations(spec)
        kept = [i for i, name in enumerate(spec.gates) if name != "f" or not spec.coupled]
        rows = torch.cat([torch.arange(i * units, (i + 1) * units) for i in kept])
        from_h = self._product("hh", rows if spec.coupled else slice(None))
        p_i, p_f, p_o = self._weight("peephole").chunk(3) if spec.peephole else (None,) * 3
        projected = self._weight("weight_hr") if spec.proj_size else None
        seen = self._seen_cell()

        def step(a_x: Any, h: Any, h_in: Any, c: Any) -> tuple[Any, Any]:
            i, *f, g, o = (a_x + from_h(h_in)).chunk(len(kept), 1)
            i = gate(i if p_i is None else i + p_i * c)
            forget = 1 - i if not f else gate(f[0] if p_f is None else f[0] + p_f * c)
            c = forget * c + i * act(g)
            o = gate(o if p_o is None else o + p_o * c)
            h = o * out(seen(c))
            return h if projected is None else F.linear(h, projected), c

        return self._product("ih", rows if spec.coupled else slice(None))(x), step

    def _seen_cell(self) -> Callable[[Any], Any]:
        """Return what makes of c what the output sees."""
        if not self.spec.layer_norm:
            return lambda c: c
        gain, bias = self._weight("norm_c"), self._weight("norm_c_bias")
        return lambda c: F.layer_norm(c, gain.shape, gain, bias)


def activations(spec: CellSpec) -> list[Callable[[Any], Any]]:
    """Return a cell's activations behind their clamps."""
    plain = ("Relu",) if spec.nonlinearity == "relu" else PLAIN_ACTIVATIONS[spec.cell]
    chosen = spec.activations or [(name, 0.0, 0.0) for name in plain]
    return [_activation(name, alpha, beta, spec.clip) for name, alpha, beta in chosen]


def _activation(name: str, alpha: float, beta: float, clip: float | None) -> Callable[[Any], Any]:
    act = ACTIVATIONS[name]
    if clip is None:
        return lambda a: act(a, alpha, beta)
    return lambda a: act(a.clamp(-clip, clip), alpha, beta)


def _steps(mask: Any) -> Any:
    return None if mask is None else mask.unbind(0)
