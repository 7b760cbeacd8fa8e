"""PyTorch's layers, run in float64 on a problem of the suite."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Problem, Results, collect

torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs it installed")


def build(case: Case, problem: Problem) -> torch.nn.Module:
    """Return PyTorch's layer of the same configuration and weights."""
    options = {
        "num_layers": case.layers,
        "bias": case.bias,
        "bidirectional": case.bidirectional,
        "dtype": torch.float64,
    }
    if case.cell == "rnn":
        layer = torch.nn.RNN(case.D, case.H, nonlinearity=case.nonlinearity, **options)
    elif case.cell == "lstm":
        layer = torch.nn.LSTM(case.D, case.H, proj_size=case.proj_size, **options)
    else:
        layer = torch.nn.GRU(case.D, case.H, **options)
    state = {name: torch.from_numpy(value.astype("f8")) for name, value in problem.params.items()}
    layer.load_state_dict(state, strict=True)
    return layer


def leaf(array: np.ndarray | None, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor that collects its gradient; zero where there is no array."""
    value = np.zeros(shape) if array is None else array.astype("f8")
    return torch.from_numpy(np.ascontiguousarray(value)).requires_grad_()


def run_torch(case: Case, problem: Problem) -> Results:
    """Run forward and backward; lengths go through pack_padded_sequence."""
    p, layer = problem, build(case, problem)
    shapes = case.spec.state_shapes(case.N)
    x = leaf(p.x, p.x.shape)
    state = [leaf(array, shape) for array, shape in zip((p.h0, p.c0), shapes, strict=False)]
    inputs = x
    if p.lengths is not None:
        inputs = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.from_numpy(p.lengths), enforce_sorted=False
        )
    y, final = layer(inputs, tuple(state) if len(state) == 2 else state[0])
    if p.lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=case.T)
    finals = list(final) if isinstance(final, tuple) else [final]
    outer = [p.dy, p.dhn, p.dcn][: 1 + len(finals)]
    torch.autograd.backward([y, *finals], [torch.from_numpy(g.astype("f8")) for g in outer])
    arrays = [t.detach().numpy() for t in (y, *finals)]
    slopes = [t.grad.numpy() for t in (x, *state)]
    pad = [None] * (2 - len(state))
    grads = {name: value.grad.numpy() for name, value in layer.named_parameters()}
    return collect(*arrays, *pad, *slopes, *pad, grads)
