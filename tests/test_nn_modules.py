"""Embedding, Linear and Dropout: values, gradients and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from modules import Reader, assert_own_gradients_match_differences, differences, drawn
from tolerances import FINITE_DIFFERENCE, LARGEST_ENTRY

import rnncore as rc
from rnncore import nn, train


@pytest.mark.parametrize("bias", [True, False])
def test_linear_gradients_match_differences(bias: bool) -> None:
    layer = nn.Linear(5, 3, bias, dtype="float64", seed=1)
    x, dy = drawn(4, 2, 5), drawn(4, 2, 3, seed=1)
    layer.forward(x)
    dx = layer.backward(dy)

    def value() -> float:
        return float((layer(x) * dy).sum())

    np.testing.assert_allclose(dx, differences(value, x), **FINITE_DIFFERENCE)
    assert set(layer.params) == ({"weight", "bias"} if bias else {"weight"})
    for name, param in layer.params.items():
        np.testing.assert_allclose(
            layer.grads[name], differences(value, param), **FINITE_DIFFERENCE
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 1, 1), (7, 17, 33), (66, 130, 76)])
def test_linear_equals_the_product(dtype: str, rows: int, inputs: int, outputs: int) -> None:
    layer = nn.Linear(inputs, outputs, dtype=dtype, seed=2)
    x, dy = drawn(rows, inputs, dtype=dtype), drawn(rows, outputs, dtype=dtype, seed=1)
    y = layer.forward(x)
    dx = layer.backward(dy)
    wide = {name: value.astype(np.float64) for name, value in layer.params.items()}
    x, dy = x.astype(np.float64), dy.astype(np.float64)
    for kind, got, expected in [
        ("forward", y, x @ wide["weight"].T + wide["bias"]),
        ("gradient", dx, dy @ wide["weight"]),
        ("gradient", layer.grads["weight"], dy.T @ x),
        ("gradient", layer.grads["bias"], dy.sum(axis=0)),
    ]:
        assert got.dtype == dtype
        bound = LARGEST_ENTRY[dtype, kind] * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


def test_linear_adds_into_grads_and_can_leave_dx_out() -> None:
    layer = nn.Linear(3, 2, dtype="float64", seed=0)
    x, dy = drawn(4, 3), drawn(4, 2, seed=1)
    layer.forward(x)
    layer.backward(dy)
    once = {name: value.copy() for name, value in layer.grads.items()}
    layer.forward(x)
    assert layer.backward(dy, need_dx=False) is None
    for name, value in layer.grads.items():
        np.testing.assert_allclose(value, 2 * once[name], rtol=1e-14)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,)])
def test_linear_takes_empty_and_single_rows(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(3, 2, seed=0)
    y = layer.forward(np.ones(shape, np.float32))
    assert y.shape == (*shape[:-1], 2)
    assert layer.backward(y).shape == shape


def test_linear_takes_strided_and_read_only_input() -> None:
    layer = nn.Linear(4, 3, dtype="float64", seed=0)
    x, dy = drawn(5, 8)[:, ::2], drawn(3, 5, seed=1).T
    x.setflags(write=False)
    y = layer.forward(x)
    np.testing.assert_array_equal(y, layer(x.copy()))
    dx = layer.backward(dy)
    layer.forward(x.copy())
    np.testing.assert_array_equal(dx, layer.backward(np.ascontiguousarray(dy)))


def test_linear_names_what_it_refuses() -> None:
    layer = nn.Linear(4, 3, seed=0)
    with pytest.raises(ValueError, match=r"x: expected \(\.\.\., 4\), got \(2, 5\)"):
        layer.forward(np.ones((2, 5), np.float32))
    with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
        layer(np.ones((2, 4)))
    with pytest.raises(RuntimeError, match=r"Linear\.backward: expected a forward"):
        layer.backward(np.ones((2, 3), np.float32))
    layer.forward(np.ones((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"dy: expected \(2, 3\), got \(2, 4\)"):
        layer.backward(np.ones((2, 4), np.float32))
    assert not any(value.any() for value in layer.grads.values())
    assert layer.backward(np.ones((2, 3), np.float32)) is not None  # the forward is still usable
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="in_features"):
            nn.Linear(wrong, 3)
    with pytest.raises(TypeError, match="out_features"):
        nn.Linear(3, 2.5)
    with pytest.raises(ValueError, match="dtype"):
        nn.Linear(3, 2, dtype="int8")


def test_embedding_looks_up_and_adds_rows_of_equal_indices() -> None:
    table = nn.Embedding(6, 3, dtype="float64", seed=0)
    x, dy = np.array([[1, 5, 1], [1, 0, 5]], np.uint8), drawn(2, 3, 3)
    y = table.forward(x)
    np.testing.assert_array_equal(y, table.params["weight"][x])
    np.testing.assert_array_equal(table(x), y)
    assert table.backward(dy) is None
    expected = np.zeros((6, 3))
    expected[0] = dy[1, 1]
    expected[1] = dy[0, 0] + dy[0, 2] + dy[1, 0]
    expected[5] = dy[0, 1] + dy[1, 2]
    np.testing.assert_allclose(table.grads["weight"], expected, rtol=1e-14)


def test_embedding_takes_one_index_and_none() -> None:
    table = nn.Embedding(6, 3, seed=0)
    assert table(np.int64(4)).shape == (3,)
    assert table.forward(np.zeros((0, 2), np.int64)).shape == (0, 2, 3)
    table.backward(np.zeros((0, 2, 3), np.float32))
    assert not table.grads["weight"].any()


def test_embedding_names_what_it_refuses() -> None:
    table = nn.Embedding(6, 3, seed=0)
    with pytest.raises(ValueError, match=r"x: expected 0 \.\. 5, got 6"):
        table(np.array([0, 6]))
    with pytest.raises(ValueError, match="got -1"):
        table.forward(np.array([0, -1]))
    with pytest.raises(TypeError, match="x: expected integers, got float64"):
        table(np.array([0.0]))


def test_dropout_keeps_the_mean_and_repeats_from_its_state() -> None:
    drop = nn.Dropout(0.25, dtype="float64", seed=3)
    x = np.ones((200, 500))
    before = drop.rng_state
    y = drop.forward(x)
    dx = drop.backward(np.full_like(x, 3.0))
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs((y == 0).mean() - 0.25) < 0.01
    np.testing.assert_array_equal(dx, 3 * y)
    assert (drop.forward(x) != y).any()
    drop.rng_state = before
    np.testing.assert_array_equal(drop.forward(x), y)
    assert drop(x) is x


def test_dropout_of_zero_changes_nothing() -> None:
    drop = nn.Dropout(0.0, dtype="float64", seed=3)
    x = drawn(3, 4)
    np.testing.assert_array_equal(drop.forward(x), x)
    np.testing.assert_array_equal(drop.backward(x), x)
    with pytest.raises(ValueError, match="p: expected"):
        nn.Dropout(1.0)


class Tagger(Reader):
    """A module of parts: embedding, recurrent layer, linear."""

    def __init__(self) -> None:
        super().__init__("float64")
        self.embedding = nn.Embedding(7, 4, dtype="float64", seed=0)
        self.gru = rc.GRU(4, 5, dtype="float64", seed=1)
        self.output = nn.Linear(5, 3, dtype="float64", seed=2)


def test_a_module_of_parts_has_their_parameters_and_gradients() -> None:
    tagger = Tagger()
    assert set(tagger.params) == {
        "embedding.weight", "gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0",
        "gru.bias_hh_l0", "output.weight", "output.bias",
    }  # fmt: skip
    x, dy = np.array([[0, 3], [6, 3], [1, 1]]), drawn(3, 2, 3)
    assert_own_gradients_match_differences(tagger, x, dy)
    assert tagger.num_parameters == sum(value.size for value in tagger.params.values())
    tagger.zero_grad()
    assert not any(value.any() for value in tagger.grads.values())


def test_state_dicts_go_from_module_to_module() -> None:
    one, other = Tagger(), Tagger()
    for value in one.params.values():
        value += 1
    other.load_state_dict(one.state_dict())
    for name, value in one.params.items():
        np.testing.assert_array_equal(other.params[name], value)
        assert other.params[name] is not value


def test_a_wrong_state_dict_is_one_error_that_names_all_and_changes_nothing() -> None:
    layer = nn.Linear(3, 2, seed=0)
    before = layer.state_dict()
    wrong = {"weight": np.zeros((3, 3), np.float32), "gain": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=r"bias.*gain.*weight"):
        layer.load_state_dict(wrong)
    for name, value in layer.params.items():
        np.testing.assert_array_equal(value, before[name])


def test_params_are_read_only_mappings_of_writable_arrays() -> None:
    layer = nn.Linear(3, 2, seed=0)
    with pytest.raises(TypeError):
        layer.params["weight"] = np.zeros((2, 3))
    layer.params["weight"][...] = 0
    layer.params["bias"][...] = 5
    np.testing.assert_array_equal(layer(np.ones((1, 3), np.float32)), [[5, 5]])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_forget_the_forward(copied: Callable) -> None:
    layer = nn.Linear(3, 2, seed=0)
    x = np.ones((1, 3), np.float32)
    layer.forward(x)
    other = copied(layer)
    with pytest.raises(RuntimeError):
        other.backward(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(other(x), layer(x))
    other.params["weight"][...] = 0
    assert layer.params["weight"].all()


def test_reprs_tell_what_they_are() -> None:
    assert repr(nn.Linear(3, 2)) == "Linear(3, 2, bias=True, dtype='float32')"
    assert repr(nn.Embedding(3, 2)) == "Embedding(3, 2, dtype='float32')"
    assert repr(nn.Dropout(0.5)) == "Dropout(0.5, dtype='float32')"
    lines = repr(Tagger()).splitlines()
    assert lines[0] == "Tagger("
    assert lines[1] == "  embedding: Embedding(7, 4, dtype='float64')"


def test_seeds_repeat_and_scales_are_pytorchs() -> None:
    one, other = nn.Linear(100, 50, seed=7), nn.Linear(100, 50, seed=7)
    np.testing.assert_array_equal(one.params["weight"], other.params["weight"])
    assert 0.099 < np.abs(one.params["weight"]).max() <= 0.1
    assert abs(nn.Embedding(100, 50, seed=7).params["weight"].std() - 1) < 0.05


def test_modules_in_lists_are_parts() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(2, 2, seed=0), rc.GRU(2, 2, seed=1)]
            self.notes = ["not a module", 3]

    deep = Deep()
    assert set(deep.params) == {
        "layers.0.weight", "layers.0.bias", "layers.1.weight_ih_l0", "layers.1.weight_hh_l0",
        "layers.1.bias_ih_l0", "layers.1.bias_hh_l0",
    }  # fmt: skip
    assert deep.grads["layers.0.weight"] is deep.layers[0].grads["weight"]
    assert "  layers.1: GRU(" in repr(deep)


def test_loading_is_seen_by_a_layer_that_is_held() -> None:
    tagger, other = Tagger(), Tagger()
    for value in other.params.values():
        value += 1
    x = np.array([[0, 3]])
    with tagger.gru.hold():
        tagger.forward(x)
        tagger.load_state_dict(other.state_dict())
        np.testing.assert_array_equal(tagger.forward(x), other.forward(x))


def test_checkpoints_restore_transformers_and_their_masks(tmp_path) -> None:
    def make() -> nn.TransformerEncoder:
        return nn.TransformerEncoder(4, 2, 2, dim_feedforward=8, dropout=0.5)

    one, other, x = make(), make(), drawn(3, 2, 4, dtype="float32")
    one.forward(x)
    train.save_checkpoint(tmp_path / "model", one)
    train.load_checkpoint(tmp_path / "model", other)
    np.testing.assert_array_equal(other.forward(x), one.forward(x))
