"""Weights that two modules share: once in params, both gradients in one, kept by every copy."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from modules import Reader, assert_close, assert_own_gradients_match_differences, drawn

import rnncore as rc
from rnncore import nn, train

WORDS, WIDTH = 7, 4


class Language(Reader):
    """Predict the next word with the table that read the last one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__("float64")
        self.embedding = nn.Embedding(WORDS, WIDTH, dtype="float64", seed=seed)
        self.gru = rc.GRU(WIDTH, WIDTH, dtype="float64", seed=seed + 1)
        self.output = nn.Linear(WIDTH, WORDS, weight=self.embedding, dtype="float64", seed=2)


X = np.array([[0, 3], [6, 3], [1, 1]])


def assert_tied(model: Language) -> None:
    assert model.output.weight is model.embedding.params["weight"]
    assert "output.weight" not in model.params
    assert dict(model.tied) == {"output.weight": "embedding.weight"}
    model.embedding.params["weight"][0, 0] += 1
    assert model.output.weight[0, 0] == model.embedding.weight[0, 0]


def test_a_tied_weight_is_one_parameter_with_both_gradients() -> None:
    model, dy = Language(), drawn(3, 2, WORDS)
    assert "embedding.weight" in model.params
    assert_own_gradients_match_differences(model, X, dy)
    assert model.num_parameters == sum(value.size for value in model.params.values())
    assert_tied(model)


def test_a_tied_model_equals_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    ours, dy = Language(), drawn(3, 2, WORDS)
    embedding = torch.nn.Embedding(WORDS, WIDTH, dtype=torch.float64)
    output = torch.nn.Linear(WIDTH, WORDS, dtype=torch.float64)
    output.weight = embedding.weight
    theirs = torch.nn.ModuleDict({"embedding": embedding, "output": output})
    ours.load_state_dict(
        {**ours.state_dict(), **{k: v.numpy() for k, v in theirs.state_dict().items()}}
    )
    plain = nn.Linear(WIDTH, WORDS, weight=ours.embedding, dtype="float64")
    plain.params["bias"][...] = ours.output.params["bias"]
    y = output(torch.tanh(embedding(torch.from_numpy(X))))
    y.backward(torch.from_numpy(dy))
    hidden = np.tanh(ours.embedding.forward(X))
    assert_close(plain.forward(hidden), y)
    ours.embedding.backward(plain.backward(dy) * (1 - hidden**2))
    assert_close(ours.embedding.grads["weight"], embedding.weight.grad)


@pytest.mark.parametrize("grouped", [lambda m: m, lambda m: [m.embedding, m.gru, m.output]])
def test_an_optimiser_steps_a_tied_weight_once(grouped) -> None:
    model = Language()
    before = model.embedding.weight.copy()
    model.embedding.grads["weight"][...] = 1
    train.SGD(grouped(model), lr=0.5).step()
    assert_close(model.embedding.weight, before - 0.5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_keep_the_tie(copied) -> None:
    model = Language()
    other = copied(model)
    np.testing.assert_array_equal(other.forward(X), model.forward(X))
    other.backward(np.ones((3, 2, WORDS)))
    assert other.embedding.grads["weight"].any()
    assert_tied(other)
    assert other.embedding.weight is not model.embedding.weight
    assert not model.embedding.grads["weight"].any()


def test_state_dicts_hold_a_tied_weight_once_and_take_it_under_both_names() -> None:
    one, other = Language(), Language(seed=9)
    state = one.state_dict()
    assert set(state) == set(one.params)
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.forward(X), one.forward(X))
    assert_tied(other)
    both = {**state, "output.weight": state["embedding.weight"]}
    other.load_state_dict(both)
    np.testing.assert_array_equal(other.embedding.weight, state["embedding.weight"])
    second = {k: v for k, v in both.items() if k != "embedding.weight"}
    other.embedding.params["weight"][...] = 0
    other.load_state_dict(second)
    np.testing.assert_array_equal(other.embedding.weight, state["embedding.weight"])
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"output\.weight is tied to embedding\.weight"):
        other.load_state_dict({**both, "output.weight": both["embedding.weight"] + 1})
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_checkpoints_keep_the_tie(tmp_path: Path) -> None:
    one, other = Language(), Language(seed=9)
    train.save_checkpoint(tmp_path / "model", one)
    train.load_checkpoint(tmp_path / "model", other)
    np.testing.assert_array_equal(other.forward(X), one.forward(X))
    assert_tied(other)


class Stacked(nn.Module):
    """A tied layer as a member of a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH, seed=0)
        tied = nn.Linear(WIDTH, WORDS, weight=self.embedding, seed=1)
        self.network = rc.Stack([rc.GRU(WIDTH, WIDTH, seed=2), tied])


def test_a_member_of_a_stack_may_be_tied() -> None:
    model = Stacked()
    assert set(model.network.params) == {*(f"0.{n}" for n in rc.GRU(1, 1).params), "1.bias"}
    x = model.embedding(X)
    expected, _ = model.network(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.network(x)[0], expected)
        other.embedding.params["weight"][...] = 0
        bias = other.network.params["1.bias"]
        np.testing.assert_array_equal(other.network(x)[0], np.broadcast_to(bias, (3, 2, WORDS)))
    frozen = model.network.freeze()
    np.testing.assert_array_equal(frozen(x)[0], expected)
    model.embedding.params["weight"][...] = 0
    np.testing.assert_array_equal(frozen(x)[0], expected)
    with pytest.raises(ValueError, match="weight: expected this layer's own"):
        rc.save("unused", model.network)


def test_two_linear_layers_may_share_and_chains_lead_to_the_owner() -> None:
    first = nn.Linear(3, 3, seed=0)
    second = nn.Linear(3, 3, bias=False, weight=first)
    third = nn.Linear(3, 3, weight=second)
    assert third.weight is first.weight
    assert dict(second.params) == {}
    assert set(third.params) == {"bias"}
    x = np.ones((2, 3), np.float32)
    third.forward(x)
    third.backward(np.ones((2, 3), np.float32))
    assert first.grads["weight"].all()
    assert "weight=Linear" in repr(third)


def test_one_module_under_two_names_is_one_set_of_parameters() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2, seed=0)
            self.again = self.first

    model = Twice()
    assert set(model.params) == set(model.grads) == {"first.weight", "first.bias"}
    assert dict(model.tied) == {"again.weight": "first.weight", "again.bias": "first.bias"}


def test_ties_that_do_not_fit_are_refused() -> None:
    table = nn.Embedding(WORDS, WIDTH, seed=0)
    with pytest.raises(ValueError, match=r"weight: expected \(4, 7\), got \(7, 4\)"):
        nn.Linear(WORDS, WIDTH, weight=table)
    with pytest.raises(TypeError, match="weight: expected dtype float64, got float32"):
        nn.Linear(WIDTH, WORDS, weight=table, dtype="float64")
    with pytest.raises(TypeError, match="weight: expected a module"):
        nn.Linear(WIDTH, WORDS, weight=table.params["weight"])
    for fixed in (nn.Embedding.one_hot(4), nn.Embedding.from_vectors(np.ones((4, 4)))):
        with pytest.raises(ValueError, match="weight: expected a module with a trained weight"):
            nn.Linear(4, 4, weight=fixed, dtype=fixed.dtype)
