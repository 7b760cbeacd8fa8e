"""accelerate and restore: what changes in a model, and what does not."""

from __future__ import annotations

import pickle

import pytest
from torch_modules import assert_same, copied, torch

import rnncore.torch as rt

prune = pytest.importorskip("torch.nn.utils.prune")


class Tagger(torch.nn.Module):
    """A model with recurrent modules in many places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 6)
        self.layers = torch.nn.ModuleList([torch.nn.LSTM(6, 6), torch.nn.GRU(6, 6)])
        self.again = self.layers[1]
        self.plain = torch.nn.Sequential(torch.nn.RNN(6, 6, nonlinearity="relu"))
        self.step = torch.nn.GRUCell(6, 6)
        self.head = torch.nn.Linear(6, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in (*self.layers, self.again):
            x = layer(x)[0]
        x = self.plain(x)[0]
        return self.head(self.step(x[-1]))


@pytest.fixture
def model() -> Tagger:
    torch.manual_seed(4)
    return Tagger().double()


TOKENS = torch.arange(15).reshape(5, 3) % 11


def gradients(model: torch.nn.Module) -> list[torch.Tensor]:
    loss = model(TOKENS).sin().sum()
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def test_modules_become_ours_and_torchs_again_and_keep_their_results(model) -> None:
    before = gradients(model)
    names = list(model.state_dict())
    accelerated = rt.accelerate(model)
    assert accelerated.swapped == ("layers.0", "layers.1", "plain.0")
    assert dict(accelerated.left) == {"step": "a cell, and cells=False"}
    assert [type(m) for m in model.layers] == [rt.LSTM, rt.GRU]
    assert type(model.plain[0]) is rt.RNN
    for actual, expected in zip(gradients(model), before, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    assert list(model.state_dict()) == names
    accelerated.restore()
    accelerated.restore()
    assert [type(m) for m in model.layers] == [torch.nn.LSTM, torch.nn.GRU]
    assert_same(gradients(model), before)


def test_a_with_block_restores_after_an_error_too(model) -> None:
    def fail() -> None:
        with rt.accelerate(model, cells=True) as accelerated:
            assert "step" in accelerated.swapped
            assert type(model.step) is rt.GRUCell
            raise KeyError("within")

    with pytest.raises(KeyError):
        fail()
    assert type(model.step) is torch.nn.GRUCell
    assert type(model.layers[0]) is torch.nn.LSTM


def test_objects_parameters_flags_and_hooks_stay(model) -> None:
    lstm = model.layers[0].eval()
    tied = model.layers[1]
    tied.weight_hh_l0 = tied.weight_ih_l0
    parameters = list(model.named_parameters())
    calls = []
    lstm.register_forward_hook(lambda *_: calls.append("forward"))
    lstm.register_forward_pre_hook(lambda *_: calls.append("before"))
    lstm.register_full_backward_hook(lambda *_: calls.append("backward"))
    before = gradients(model)
    calls.clear()
    with rt.accelerate(model):
        assert model.layers[0] is lstm
        assert model.again is model.layers[1]
        assert not lstm.training
        assert model.training
        for (name, ours), (expected, theirs) in zip(
            model.named_parameters(), parameters, strict=True
        ):
            assert name == expected
            assert ours is theirs
        after = gradients(model)
    assert calls == ["before", "forward", "backward"]
    for actual, expected in zip(after, before, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_a_model_may_be_the_module_itself() -> None:
    module = torch.nn.LSTM(3, 4)
    with rt.accelerate(module) as accelerated:
        assert accelerated.swapped == ("",)
        assert type(module) is rt.LSTM
    assert type(module) is torch.nn.LSTM


class Own(torch.nn.LSTM):
    """A subclass, which may do anything."""


def with_own_forward() -> torch.nn.Module:
    module = torch.nn.LSTM(3, 4)
    module.forward = lambda x: x
    return module


def normed() -> torch.nn.Module:
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0")


def pruned() -> torch.nn.Module:
    module = torch.nn.GRU(3, 4)
    prune.random_unstructured(module, "weight_ih_l0", 0.5)
    return module


ALONE = {
    "subclass": (lambda: Own(3, 4), "a class of its own, test_torch_swap.Own"),
    "parametrized": (
        lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0"),
        "parametrized: weight_hh_l0",
    ),
    "weight norm": (normed, "weight_hh_l0 is no parameter of its own"),
    "pruned": (pruned, "weight_ih_l0 is no parameter of its own"),
    "forward": (with_own_forward, "a forward of its own"),
    "bfloat16": (lambda: torch.nn.GRU(3, 4).bfloat16(), r"weight_ih_l0 is torch.bfloat16"),
    "meta": (lambda: torch.nn.RNN(3, 4, device="meta"), "weight_ih_l0 is on meta"),
    "base": (lambda: torch.nn.RNNBase("GRU", 3, 4), "a class of its own, torch.nn"),
}


@pytest.mark.parametrize("what", ALONE)
def test_what_cannot_be_exchanged_is_left_alone_and_named(what: str) -> None:
    make, why = ALONE[what]
    module = make()
    kind = type(module)
    accelerated = rt.accelerate(torch.nn.ModuleDict({"inner": module}))
    assert accelerated.swapped == ()
    assert list(accelerated.left) == ["inner"]
    assert accelerated.left["inner"].startswith(why)
    assert why.split(":")[0] in repr(accelerated)
    assert type(module) is kind


def test_a_second_accelerate_changes_nothing_and_restores_nothing(model) -> None:
    first = rt.accelerate(model)
    second = rt.accelerate(model)
    assert second.swapped == ()
    second.restore()
    assert type(model.layers[0]) is rt.LSTM
    first.restore()
    assert type(model.layers[0]) is torch.nn.LSTM


def test_restore_serves_copies_and_leaves_options_that_torch_lacks(model) -> None:
    rt.accelerate(model)
    copy = pickle.loads(pickle.dumps(copied(model)))
    copy.own = rt.LSTM(3, 4, peephole=True)
    restored = rt.restore(copy)
    assert restored.swapped == ("layers.0", "layers.1", "plain.0")
    assert dict(restored.left) == {"own": "torch.nn has no peephole=True"}
    assert type(copy.layers[0]) is torch.nn.LSTM
    assert type(model.layers[0]) is rt.LSTM


def test_modules_made_with_our_classes_become_torchs() -> None:
    module = rt.RNN(3, 4, nonlinearity="relu")
    x = torch.randn(5, 2, 3)
    expected, _ = module(x)
    rt.restore(module)
    assert type(module) is torch.nn.RNN
    torch.testing.assert_close(module(x)[0], expected)


def test_weights_replaced_by_load_state_dict_or_to_are_seen(model) -> None:
    lstm = model.layers[0]
    x = torch.randn(5, 2, 6, dtype=torch.float64)
    with rt.accelerate(model):
        lstm(x)
        new = {name: torch.full_like(p, 0.1) for name, p in lstm.state_dict().items()}
        lstm.load_state_dict(new, assign=True)
        ours = lstm(x)[0]
        model.float()
        assert lstm(x.float())[0].dtype == torch.float32
        model.double()
    torch.testing.assert_close(lstm(x)[0], ours, rtol=1e-6, atol=1e-7)


def test_accelerate_takes_modules_alone() -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got list"):
        rt.accelerate([torch.nn.LSTM(3, 4)])
