"""Parameters as dictionaries: taking them out, putting them in, all or nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from both_backends import assert_same, snapshot

import rnncore as rc


def test_a_state_dict_is_a_copy_that_loads_back() -> None:
    layer, other = rc.LSTM(3, 4, 2, seed=1), rc.LSTM(3, 4, 2, seed=2)
    saved = layer.state_dict()
    assert list(saved) == list(layer.params)
    layer.params["weight_ih_l0"][...] = 0
    assert np.abs(saved["weight_ih_l0"]).max() > 0
    other.load_state_dict(saved)
    assert_same(list(other.params.values()), list(saved.values()))
    saved["weight_ih_l0"][...] = 5
    assert other.params["weight_ih_l0"].max() < 1


def test_everything_that_is_wrong_is_named_in_one_error_and_nothing_is_loaded() -> None:
    layer = rc.GRU(3, 4, 2, seed=1)
    before = snapshot(layer)
    given = {name: array + 1 for name, array in layer.state_dict().items()}
    del given["weight_hh_l1"], given["bias_ih_l0"]
    given["weight_ih_l0"] = np.zeros((12, 4), "f4")
    given["bias_hh_l1"] = np.zeros(12, "f8")
    given["colour"] = np.zeros(1, "f4")
    words = (
        "state_dict: missing bias_ih_l0, weight_hh_l1; unexpected colour; "
        "weight_ih_l0: expected (12, 3), got (12, 4); "
        "bias_hh_l1: expected dtype float32, got float64"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        layer.load_state_dict(given)
    assert_same(snapshot(layer), before)


def test_a_narrowing_dtype_alone_is_a_type_error_and_a_widening_one_loads() -> None:
    single, double = rc.GRU(3, 4, seed=1), rc.GRU(3, 4, seed=2, dtype="float64")
    with pytest.raises(TypeError, match="weight_ih_l0: expected dtype float32, got float64"):
        single.load_state_dict(double.state_dict())
    whole = {name: np.ones(array.shape, "i4") for name, array in single.params.items()}
    with pytest.raises(TypeError, match="expected dtype float32, got int32"):
        single.load_state_dict(whole)
    double.load_state_dict(single.state_dict())
    for name, array in double.params.items():
        assert np.array_equal(array, single.params[name])


def test_parameters_can_be_exchanged_within_a_layer() -> None:
    layer = rc.GRU(4, 4, 2, seed=1)
    before = layer.state_dict()
    exchanged = {name: layer.params[name.translate({48: 49, 49: 48})] for name in layer.params}
    layer.load_state_dict(exchanged)
    for name, array in layer.params.items():
        assert np.array_equal(array, before[name.translate({48: 49, 49: 48})])


def test_no_mapping_and_no_arrays_are_type_errors() -> None:
    layer = rc.GRU(3, 4, seed=1)
    with pytest.raises(TypeError, match="state_dict: expected a mapping, got list"):
        layer.load_state_dict([])
    lists = {name: array.tolist() for name, array in layer.params.items()}
    with pytest.raises(TypeError, match=re.escape("state_dict['weight_ih_l0']: expected a NumPy")):
        layer.load_state_dict(lists)


def test_foreign_byte_orders_and_strides_are_values_like_any_other() -> None:
    layer, other = rc.GRU(3, 4, seed=1), rc.GRU(3, 4, seed=2)
    given = {name: array.astype(">f4") for name, array in layer.params.items()}
    given["weight_hh_l0"] = np.asfortranarray(layer.params["weight_hh_l0"])
    other.load_state_dict(given)
    assert_same(list(other.params.values()), list(layer.params.values()))


def test_torchs_own_state_dict_loads() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    ours = rc.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.params) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert np.array_equal(ours.params[name], value.numpy())


def test_names_and_number_of_parameters_are_torchs() -> None:
    layer = rc.LSTM(3, 4, proj_size=2)
    assert {name: array.shape for name, array in layer.params.items()} == {
        "weight_ih_l0": (16, 3),
        "weight_hh_l0": (16, 2),
        "bias_ih_l0": (16,),
        "bias_hh_l0": (16,),
        "weight_hr_l0": (2, 4),
    }
    assert layer.num_parameters == 48 + 32 + 16 + 16 + 8
    assert list(rc.GRU(3, 4, bias=False, bidirectional=True).params) == [
        "weight_ih_l0",
        "weight_hh_l0",
        "weight_ih_l0_reverse",
        "weight_hh_l0_reverse",
    ]
