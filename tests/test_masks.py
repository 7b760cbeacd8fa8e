"""The masks of recurrent dropout and zoneout: what they are drawn from, and when they are used."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, normal, snapshot

import rnncore as rc
from rnncore import functional
from rnncore.cells import CellSpec
from rnncore.masks import Masks, Place, draw_bits, draw_keep_mask, draw_masks

T, N, D, H = 6, 3, 4, 5
ALL = {"dropout": 0.4, "recurrent_dropout": 0.3, "variational": True}


def spec_of(**options: object) -> CellSpec:
    plain = {"proj_size": 3, "zoneout": (0.2, 0.6)}
    return CellSpec("lstm", D, H, 2, 2, **{**plain, **options})


def make(cell: str, **options: object) -> object:
    plain = {"num_layers": 2, "recurrent_dropout": 0.3, "zoneout": 0.4, "seed": 11}
    return CLASSES[cell](D, H, **{**plain, **options})


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_million_draws_have_their_rate_within_five_sigma(rate: float) -> None:
    count = 1_000_000
    bound = 5 * np.sqrt(count * rate * (1 - rate))
    for seed, kind in itertools.product(range(2), range(4)):
        place = Place(0, 1, 0, kind)
        bits = draw_bits((count,), rate, seed, place)
        assert bits.dtype == np.bool_
        assert abs(int(bits.sum()) - count * rate) <= bound
        mask = draw_keep_mask((count,), rate, "float64", seed, place)
        assert np.array_equal(mask == 0, bits)
        assert set(np.unique(mask)) <= {0.0, 1 / (1 - rate)}


def test_neighbours_in_time_row_and_unit_are_independent() -> None:
    bits = draw_bits((100, 100, 101), 0.5, 3, Place(0, 0, 0, 2)).astype(np.float64) - 0.5
    for axis in range(3):
        product = np.diff(bits, axis=axis) ** 2  # 1 where neighbours differ
        assert abs(product.mean() - 0.5) < 5 * 0.5 / np.sqrt(product.size)


def test_every_kind_has_its_shapes_and_types() -> None:
    masks = draw_masks(spec_of(dtype="float64"), T, N, **ALL, seed=1)
    assert [mask.shape for mask in masks.inputs] == [(T, N, D), (T, N, 6)]
    assert [mask.shape for mask in masks.recurrent] == [(N, 3)] * 4
    assert [mask.shape for mask in masks.zoneout_h] == [(T, N, 3)] * 4
    assert [mask.shape for mask in masks.zoneout_c] == [(T, N, H)] * 4
    for mask in (*masks.inputs, *masks.recurrent):
        assert mask.dtype == np.float64
    for mask in (*masks.zoneout_h, *masks.zoneout_c):
        assert mask.dtype == np.bool_
        assert mask.flags.c_contiguous


def test_what_has_no_rate_has_no_mask() -> None:
    none = [None] * 4
    assert draw_masks(spec_of(zoneout=(0.0, 0.0)), T, N, seed=1) is None
    masks = draw_masks(spec_of(zoneout=(0.0, 0.5)), T, N, seed=1)
    assert masks[:3] == ([None, None], none, none)
    assert all(mask is not None for mask in masks.zoneout_c)
    masks = draw_masks(spec_of(zoneout=(0.0, 0.0)), T, N, recurrent_dropout=0.5)
    assert (masks.zoneout_h, masks.zoneout_c) == (none, none)
    gru = draw_masks(CellSpec("gru", D, H, zoneout=(0.5, 0.0)), T, N)
    assert gru.zoneout_c == [None]


def test_no_two_places_share_a_stream() -> None:
    drawn = set()
    places = itertools.product(range(2), range(3), range(2), range(4))
    for place in places:
        drawn.add(draw_bits((256,), 0.5, 5, place).tobytes())
    drawn.add(draw_bits((256,), 0.5, 6, (0, 0, 0, 0)).tobytes())
    assert len(drawn) == 2 * 3 * 2 * 4 + 1


def test_the_same_seed_and_call_draw_the_same_masks_and_others_others() -> None:
    def drawn(**place: int) -> list[np.ndarray]:
        return [mask for part in draw_masks(spec_of(), T, N, **ALL, **place) for mask in part]

    assert_same(drawn(seed=1, call=2), drawn(seed=1, call=2))
    for other in ({"seed": 2, "call": 2}, {"seed": 1, "call": 3}):
        pairs = zip(drawn(seed=1, call=2), drawn(**other), strict=True)
        assert all(not np.array_equal(one, two) for one, two in pairs)


def test_the_masks_of_the_inputs_are_those_of_dropout_alone() -> None:
    plain = draw_masks(spec_of(zoneout=(0.0, 0.0)), T, N, dropout=0.4, seed=1)
    assert_same(draw_masks(spec_of(), T, N, dropout=0.4, recurrent_dropout=0.2, seed=1).inputs[1:],
                plain.inputs[1:])  # fmt: skip
    expected = draw_keep_mask((T, N, 3), 0.4, "float32", 1, (0, 1, 0))
    assert_same(plain.inputs[1][:, :, :3], expected)


@pytest.mark.host_only
@pytest.mark.parametrize("cell", CLASSES)
def test_training_equals_the_functional_core_with_the_masks_drawn_by_hand(cell, backend) -> None:
    layer = make(cell, bidirectional=True, dropout=0.2)
    x, dy = normal(T, N, D), normal(T, N, 2 * H, seed=1)
    for call in range(2):
        layer.zero_grad()
        y, end = layer.forward(x, None, [6, 0, 3])
        masks = draw_masks(layer.spec, T, N, dropout=0.2, recurrent_dropout=0.3, seed=11, call=call)
        expected_y, expected_end, tape = functional.forward(
            layer.spec, layer.params, x, None, [6, 0, 3], masks=masks
        )
        assert_same([y, end], [expected_y, expected_end])
        dx, dstart = layer.backward(dy, end)
        expected = functional.backward(layer.spec, layer.params, tape, dy, end)
        assert_same([dx, dstart, snapshot(layer)[len(layer.params) :]],
                    [*expected[:2], list(expected[2].values())])  # fmt: skip


@pytest.mark.host_only
@pytest.mark.parametrize("cell", CLASSES)
def test_inference_takes_the_expectation_and_draws_nothing(cell: str, backend: str) -> None:
    layer, x = make(cell), normal(T, N, D)
    expected = functional.forward(layer.spec, layer.params, x)[:2]
    assert_same(layer(x), expected)
    assert_same(layer.freeze()(x), expected)
    stream = layer.freeze().stream(batch=N)
    steps = np.stack([stream.step(x_t) for x_t in x])
    np.testing.assert_allclose(steps, expected[0], atol=1e-6)
    assert layer.rng_state == {"seed": 11, "calls": 0}
    assert not np.array_equal(layer.forward(x)[0], expected[0])
    assert layer.rng_state == {"seed": 11, "calls": 1}
    plain = make(cell, zoneout=0.0)
    plain.load_state_dict(layer.state_dict())
    assert np.abs(plain(x)[0] - expected[0]).max() > 1e-3


def test_the_expectation_is_the_mean_over_masks_of_one_step(backend: str) -> None:
    layer = rc.LSTM(D, H, zoneout=(0.3, 0.6), dtype="float64", seed=1)
    x, state = (
        normal(1, 4000, D, dtype="float64"),
        (
            np.tile(normal(1, 1, H, dtype="float64"), (1, 4000, 1)),
            np.tile(normal(1, 1, H, seed=1, dtype="float64"), (1, 4000, 1)),
        ),
    )
    x[...] = x[:, :1]
    _, (h, c) = layer(x, state)
    _, (h_drawn, c_drawn) = layer.forward(x, state)
    for drawn, expected, old in ((h_drawn, h, state[0]), (c_drawn, c, state[1])):
        spread = np.abs(drawn - old).max(axis=1)
        off = np.abs(drawn.mean(axis=1) - expected[:, 0])
        assert (off < 5 * 0.5 * spread / np.sqrt(4000)).all()


def test_setting_the_random_state_repeats_a_call_and_a_copy_goes_on(backend: str) -> None:
    layer, x = make("lstm"), normal(T, N, D)
    layer.forward(x)
    state, twin = layer.rng_state, copy.deepcopy(layer)
    second = layer.forward(x)
    assert_same(twin.forward(x), second)
    layer.rng_state = state
    assert_same(layer.forward(x), second)


def test_the_layout_of_the_call_does_not_change_the_masks(backend: str) -> None:
    first, plain = make("gru", batch_first=True), make("gru")
    x = normal(T, N, D)
    y, h = first.forward(np.ascontiguousarray(x.swapaxes(0, 1)))
    assert_same([y.swapaxes(0, 1), h], list(plain.forward(x)))


def test_a_mask_of_zeros_and_one_of_ones_are_dropping_all_and_nothing(backend: str) -> None:
    spec = CellSpec("gru", D, H, dtype="float64", zoneout=(0.5, 0.0))
    params = {
        name: normal(*shape, seed=i, dtype="float64")
        for i, (name, shape) in enumerate(spec.param_shapes().items())
    }
    x, h0 = normal(T, N, D, dtype="float64"), normal(1, N, H, dtype="float64")

    def run(dropped: float, kept: bool) -> np.ndarray:
        mask, keep = np.full((N, H), dropped), np.full((T, N, H), kept)
        masks = Masks([None], [mask], [keep], [None])
        return functional.forward(spec, params, x, h0, masks=masks)[0]

    assert_same(run(1.0, True), np.broadcast_to(h0, (T, N, H)))
    unhidden = {**params, "weight_hh_l0": np.zeros((3 * H, H))}
    no_zoneout = CellSpec("gru", D, H, dtype="float64")
    expected = functional.forward(no_zoneout, unhidden, x, h0)[0]
    np.testing.assert_allclose(run(0.0, False), expected, rtol=1e-13)
