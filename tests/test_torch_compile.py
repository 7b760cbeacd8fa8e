"""rnncore.torch under torch.compile: one graph, the same results, shapes that change."""

from __future__ import annotations

import pytest
from torch_modules import LAYERS, assert_close, parts, torch

import rnncore.torch as rt

OPTIONS = {
    "rnn": {"dropout": 0.3},
    "lstm": {"zoneout": (0.1, 0.2), "recurrent_dropout": 0.3, "layer_norm": True},
    "gru": {"bidirectional": True, "batch_first": True, "recompute": True},
}


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


def model_of(cell: str) -> tuple[torch.nn.Module, ...]:
    layer = getattr(rt, LAYERS[cell])(3, 4, 2, **OPTIONS[cell])
    return torch.nn.Linear(3, 3), layer


@pytest.mark.parametrize("cell", LAYERS)
def test_a_model_is_one_graph_with_the_same_results_and_gradients(cell: str) -> None:
    before, layer = model_of(cell)

    def call(x: torch.Tensor) -> torch.Tensor:
        y, state = layer(before(x).sin())
        return y.square().sum() + sum(part.sum() for part in parts(state))

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for shape in ((5, 2, 3), (7, 3, 3), (4, 5, 3)):
        x = torch.randn(shape, requires_grad=True)
        found = []
        for function in (call, compiled):
            torch.manual_seed(1)
            loss = function(x)
            leaves = [x, *before.parameters(), *layer.parameters()]
            found.append([loss.detach(), *torch.autograd.grad(loss, leaves)])
        assert_close(found[1], found[0], rtol=1e-6, atol=1e-7)


def test_lengths_resets_and_cells_are_traced_too() -> None:
    gru, cell = rt.GRU(3, 4), rt.LSTMCell(4, 5)

    def call(x, lengths, resets):
        y, h = gru(x, lengths=lengths, resets=resets)
        return cell(y[-1], cell(h[0]))[0]

    given = (torch.randn(5, 2, 3), torch.tensor([5, 2]), torch.rand(5, 2) < 0.3)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given), call(*given), rtol=0, atol=0)


def test_packed_sequences_run_with_breaks_in_the_graph() -> None:
    lstm = rt.LSTM(3, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.randn(5, 2, 3), [2, 5], enforce_sorted=False
    )
    compiled = torch.compile(lambda given: lstm(given)[0].data, backend="aot_eager")
    torch.testing.assert_close(compiled(packed), lstm(packed)[0].data, rtol=0, atol=0)


def test_an_accelerated_model_compiles_where_torchs_own_does_not() -> None:
    lstm = torch.nn.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    expected = lstm(x)[0]
    compiled = torch.compile(lambda x: lstm(x)[0], fullgraph=True, backend="aot_eager")
    with rt.accelerate(lstm):
        torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
def test_inductor_runs_a_training_step_of_it() -> None:
    before, layer = model_of("lstm")
    layer.eval()
    compiled = torch.compile(lambda x: layer(before(x))[0].square().sum(), fullgraph=True)
    x = torch.randn(5, 2, 3, requires_grad=True)
    (found,) = torch.autograd.grad(compiled(x), x)
    (expected,) = torch.autograd.grad(layer(before(x))[0].square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_export_keeps_the_operator() -> None:
    module = rt.GRU(3, 4).eval()
    x = torch.randn(5, 2, 3)
    program = torch.export.export(module, (x,))
    assert "rnncore.forward" in str(program.graph)
    torch.testing.assert_close(program.module()(x)[0], module(x)[0], rtol=0, atol=0)
