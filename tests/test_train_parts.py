"""Optimisers, clipping, schedules, batches and gradient flow."""

from __future__ import annotations

import numpy as np
import pytest

import rnncore as rc
from rnncore import nn, train


def filled(seed: int, dtype: str = "float64") -> nn.Linear:
    layer = nn.Linear(4, 3, dtype=dtype, seed=0)
    draw = np.random.default_rng(seed)
    for grad in layer.grads.values():
        grad[...] = draw.standard_normal(grad.shape)
    return layer


@pytest.mark.parametrize("make", [
    lambda m: train.Adam(m, 0.1), lambda m: train.SGD(m, 0.1, momentum=0.9)
])  # fmt: skip
def test_an_optimiser_goes_on_from_its_state(make: object) -> None:
    one = filled(0)
    first = make(one)
    first.step()
    other = filled(0)
    other.load_state_dict(one.state_dict())
    second = make(other)
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert second.steps == 2
    for name, value in one.params.items():
        np.testing.assert_array_equal(other.params[name], value)
    with pytest.raises(ValueError, match="missing"):
        first.load_state_dict({"steps": np.ones(1, np.int64)})


def test_optimisers_take_layers_and_modules_in_any_collection() -> None:
    gru, linear = rc.GRU(2, 3, seed=0), nn.Linear(3, 2, seed=0)
    for modules in ([gru, linear], {"gru": gru, "linear": linear}):
        linear.grads["bias"][...] = 1
        before = linear.params["bias"].copy()
        train.SGD(modules, lr=0.5).step()
        np.testing.assert_array_equal(linear.params["bias"], before - np.float32(0.5))
    assert "m.gru.weight_ih_l0" in train.Adam({"gru": gru}).state_dict()
    with pytest.raises(TypeError, match="expected a module or layer"):
        train.Adam([gru, np.zeros(3)])


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"lr": float("nan")}, {"betas": (0.9, 1.0)}])
def test_optimisers_refuse_senseless_numbers(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        train.Adam(nn.Linear(2, 2, seed=0), **wrong)


def test_clip_grad_norm_scales_all_together() -> None:
    layer = filled(1)
    before = {name: value.copy() for name, value in layer.grads.items()}
    norm = np.sqrt(sum((value**2).sum() for value in before.values()))
    assert train.clip_grad_norm(layer, 2 * norm) == pytest.approx(norm)
    np.testing.assert_array_equal(layer.grads["weight"], before["weight"])
    assert train.clip_grad_norm([layer], norm / 4) == pytest.approx(norm)
    for name, value in layer.grads.items():
        np.testing.assert_allclose(value, before[name] / 4)
    with pytest.raises(ValueError, match="max_norm"):
        train.clip_grad_norm(layer, 0.0)
    for wrong in (None, "1", True, np.ones(2)):
        with pytest.raises(TypeError, match="max_norm: expected a number"):
            train.clip_grad_norm(layer, wrong)
        with pytest.raises(TypeError, match="max_value: expected a number"):
            train.clip_grad_value(layer, wrong)


def test_clip_grad_norm_measures_large_gradients_whole() -> None:
    layer = nn.Linear(200, 300, seed=0)
    for grad in layer.grads.values():
        grad[...] = np.random.default_rng(0).standard_normal(grad.shape)
    expected = np.sqrt(sum((grad.astype(np.float64) ** 2).sum() for grad in layer.grads.values()))
    assert train.clip_grad_norm(layer, np.inf) == pytest.approx(expected, rel=1e-12)


def test_clip_grad_norm_leaves_what_is_not_finite() -> None:
    layer = filled(1)
    layer.grads["bias"][0] = np.inf
    before = layer.grads["weight"].copy()
    assert train.clip_grad_norm(layer, 1.0) == np.inf
    np.testing.assert_array_equal(layer.grads["weight"], before)


def test_clip_grad_value_clamps() -> None:
    layer = filled(1)
    before = layer.grads["weight"].copy()
    train.clip_grad_value(layer, 0.3)
    np.testing.assert_array_equal(layer.grads["weight"], before.clip(-0.3, 0.3))
    assert np.abs(before).max() > 0.3


def test_the_schedule_rises_and_falls() -> None:
    rate = train.WarmupCosine(peak=2.0, updates=100, warmup=4, final=0.5)
    assert [rate(u) for u in range(4)] == [0.5, 1.0, 1.5, 2.0]
    values = [rate(u) for u in range(4, 101)]
    assert values == sorted(values, reverse=True)
    assert rate(52) == pytest.approx(1.25)
    assert rate(100) == rate(1000) == 0.5


def test_text_batches_walk_along_every_track() -> None:
    batches = train.TextBatches(np.arange(1001, dtype=np.uint16), batch=4, steps=7, seed=5)
    for epoch in range(3):
        walk = [next(batches) for _ in range(batches.per_epoch)]
        assert [batch.first for batch in walk] == [True] + [False] * (len(walk) - 1)
        inputs = np.concatenate([batch.inputs for batch in walk])
        targets = np.concatenate([batch.targets for batch in walk])
        assert inputs.shape == (7 * batches.per_epoch, 4)
        np.testing.assert_array_equal(targets, inputs + 1)
        np.testing.assert_array_equal(np.diff(inputs, axis=0), 1)
        assert ((inputs[0] - 250 * np.arange(4)) == inputs[0, 0]).all()
        assert 0 <= inputs[0, 0] < 7
        assert inputs[-1, -1] >= 1000 - 14, epoch


def test_text_batches_start_epochs_at_offsets_of_their_own() -> None:
    batches = train.TextBatches(np.arange(500), batch=2, steps=10, seed=0)
    starts = {int(batches[epoch * batches.per_epoch].inputs[0, 0]) for epoch in range(20)}
    assert len(starts) > 3


def test_text_batches_go_on_from_a_position() -> None:
    one = train.TextBatches(np.arange(500), batch=2, steps=10, seed=3)
    expected = [next(one) for _ in range(60)]
    other = train.TextBatches(np.arange(500), batch=2, steps=10, seed=3)
    other.position = 37
    for batch, wanted in zip(other, expected[37:], strict=False):
        np.testing.assert_array_equal(batch.inputs, wanted.inputs)
        assert batch.first == wanted.first


def test_text_batches_of_the_shortest_text() -> None:
    batches = train.TextBatches(np.arange(7), batch=2, steps=3)
    for _ in range(3):
        batch = next(batches)
        np.testing.assert_array_equal(batch.inputs, [[0, 3], [1, 4], [2, 5]])
    with pytest.raises(ValueError, match=r"indices: expected at least 7 .* got 6"):
        train.TextBatches(np.arange(6), batch=2, steps=3)
    with pytest.raises(TypeError, match="indices: expected integers"):
        train.TextBatches(np.zeros(30), batch=2, steps=3)
