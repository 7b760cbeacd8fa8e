"""Dropout masks: what they are drawn from, where they act, and what they leave alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, both_backends, normal, snapshot

import rnncore as rc
from rnncore import functional
from rnncore.cells import CellSpec
from rnncore.masks import draw_keep_mask

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 6, 3, 4, 5


def make(cell: str = "gru", **options: object) -> object:
    plain = {"num_layers": 3, "dropout": 0.5, "seed": 11}
    return CLASSES[cell](D, H, **{**plain, **options})


def masks_of(layer: object, call: int, variational: bool = False) -> functional.Masks:
    options = {"dropout": 0.5, "variational": variational, "seed": 11, "call": call}
    return functional.draw_masks(layer.spec, T, N, **options)


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("cell", CLASSES)
def test_training_equals_the_functional_core_with_the_masks_drawn_by_hand(
    cell: str, variational: bool
) -> None:
    layer = make(cell, variational=variational, bidirectional=True)
    x, dy = normal(T, N, D), normal(T, N, 2 * H, seed=1)
    for call in range(2):
        layer.zero_grad()
        y, end = layer.forward(x, None, [6, 0, 3])
        masks = masks_of(layer, call, variational)
        expected_y, expected_end, tape = functional.forward(
            layer.spec, layer.params, x, None, [6, 0, 3], masks=masks
        )
        assert_same([y, end], [expected_y, expected_end])
        dx, dstart = layer.backward(dy, end)
        expected = functional.backward(layer.spec, layer.params, tape, dy, end)
        assert_same([dx, dstart, snapshot(layer)[len(layer.params) :]],
                    [*expected[:2], list(expected[2].values())])  # fmt: skip


def test_masks_drop_a_share_and_scale_what_is_kept() -> None:
    mask = draw_keep_mask((100, 30, 7), 0.3, "float32", 5, (0, 1, 0))
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((mask == 0).mean() - 0.3) < 0.01
    assert abs(mask.mean() - 1) < 0.015


def test_a_mask_is_the_words_of_philox_under_its_seed_and_place() -> None:
    key = np.random.SeedSequence(5).generate_state(2, np.uint64)
    raw = np.random.Philox(counter=[0, 1, 2, 3], key=key).random_raw(2)
    words = [raw[0] & 0xFFFFFFFF, raw[0] >> 32, raw[1] & 0xFFFFFFFF]
    mask = draw_keep_mask((3,), 0.25, "float64", 5, (3, 2, 1))
    expected = [0.0 if int(word) < 2**30 else 1 / 0.75 for word in words]
    assert mask.tolist() == expected


def test_masks_differ_by_seed_call_layer_and_direction() -> None:
    places = [(5, (0, 1, 0)), (6, (0, 1, 0)), (5, (1, 1, 0)), (5, (0, 2, 0)), (5, (0, 1, 1))]
    drawn = {draw_keep_mask((64,), 0.5, "float32", *place).tobytes() for place in places}
    assert len(drawn) == len(places)


def test_a_variational_mask_is_the_same_at_every_step_and_acts_on_the_input_too() -> None:
    spec = CellSpec("gru", D, H, 2, 2)
    options = {"dropout": 0.5, "seed": 1}
    first, second = functional.draw_masks(spec, T, N, variational=True, **options).inputs
    assert first.shape == (T, N, D)
    assert second.shape == (T, N, 2 * H)
    for mask in (first, second):
        assert (mask == mask[0]).all()
        assert 0 < (mask[0] == 0).mean() < 1
    first, second = functional.draw_masks(spec, T, N, **options).inputs
    assert first is None
    assert not (second == second[0]).all()


def test_inference_and_frozen_engines_drop_nothing_and_count_nothing() -> None:
    layer, plain, x = make(), make(dropout=0.0), normal(T, N, D)
    assert_same(layer(x), plain(x))
    assert_same(layer.freeze()(x), plain(x))
    assert layer.rng_state == {"seed": 11, "calls": 0}
    assert not np.array_equal(layer.forward(x)[0], plain(x)[0])
    assert layer.rng_state == {"seed": 11, "calls": 1}


def test_setting_the_random_state_repeats_a_call() -> None:
    layer, x = make(), normal(T, N, D)
    layer.forward(x)
    state = layer.rng_state
    second = layer.forward(x)
    third = layer.forward(x)
    layer.rng_state = state
    assert_same(layer.forward(x), second)
    assert_same(layer.forward(x), third)
    assert not np.array_equal(second[0], third[0])


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1, 2**70])
def test_a_random_state_of_any_seed_goes_back(seed: int) -> None:
    layer, x = make(seed=seed), normal(T, N, D)
    state = layer.rng_state
    assert state == {"seed": seed, "calls": 0}
    first = layer.forward(x)
    layer.rng_state = state
    assert_same(layer.forward(x), first)
    assert_same(copy.deepcopy(layer).forward(x), layer.forward(x))
    layer.rng_state = {"seed": seed, "calls": 2**64 - 1}
    assert layer.rng_state == {"seed": seed, "calls": 2**64 - 1}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"seed": 1}, ValueError),
        ({"seed": 1, "calls": -1}, ValueError),
        ({"seed": 1, "calls": 2**64}, ValueError),
        ({"seed": 1.0, "calls": 1}, TypeError),
        ([1, 2], TypeError),
    ],
)
def test_a_senseless_random_state_is_refused(value: object, error: type[Exception]) -> None:
    layer = make()
    with pytest.raises(error, match="rng_state"):
        layer.rng_state = value
    assert layer.rng_state == {"seed": 11, "calls": 0}


def test_a_copy_goes_on_with_the_same_masks() -> None:
    layer, x = make(), normal(T, N, D)
    layer.forward(x)
    twin = copy.deepcopy(layer)
    assert_same(twin.forward(x), layer.forward(x))


def test_the_number_of_threads_does_not_change_the_masks() -> None:
    layer, x = make(), normal(T, N, D)
    with rc.threads(1):
        expected = layer.forward(x)
    layer.rng_state = {"seed": 11, "calls": 0}
    with rc.threads(3):
        assert_same(layer.forward(x), expected)
