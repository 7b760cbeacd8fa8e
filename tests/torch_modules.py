"""What the tests of rnncore.torch share: torch itself, twins of modules, a module's gradients."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch", minversion="2.4", reason="rnncore.torch needs PyTorch")

from torch import library as library  # noqa: E402

import rnncore.torch as rt  # noqa: E402

LAYERS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


def twins(cell: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return torch's module and ours, with the same weights."""
    theirs = getattr(torch.nn, LAYERS.get(cell, cell))(*args, **options)
    ours = getattr(rt, LAYERS.get(cell, cell))(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def parts(state: Any) -> list[Any]:
    return list(state) if isinstance(state, tuple) else [state]


def run(module: Any, given: Any, hx: Any = None, **options: Any) -> list[Any]:
    """Return the outputs' data, and the gradient of a loss that weighs every one of them."""
    y, state = module(given, hx, **options)
    outputs = [getattr(y, "data", y), *parts(state)] if isinstance(y, tuple) else [y, *parts(state)]
    loss = sum(
        (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).reshape(out.shape)).sum()
        for out in outputs
    )
    leaves = [t for t in (given, *parts(hx)) if torch.is_tensor(t) and t.requires_grad]
    leaves += [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if leaves else []
    return [out.detach() for out in outputs] + list(gradients)


def assert_close(actual: list[Any], expected: list[Any], **tolerance: float) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def assert_same(actual: list[Any], expected: list[Any]) -> None:
    assert_close(actual, expected, rtol=0, atol=0)


def copied(module: Any) -> Any:
    return copy.deepcopy(module)


def watch_retained(monkeypatch: pytest.MonkeyPatch, kernels: ModuleType) -> list[bool]:
    """Return a list that will tell of each gradient whether it left its tape intact."""
    retained = []
    backward = kernels.backward

    def spy(*given: Any, retain: bool) -> Any:
        retained.append(retain)
        return backward(*given, retain=retain)

    monkeypatch.setattr(kernels, "backward", spy)
    return retained
