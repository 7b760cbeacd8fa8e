"""The functional core: explicit specification, weights, masks and tape."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from both_backends import CLASSES, assert_same, both_backends, normal

from rnncore import functional
from rnncore.cells import CellSpec
from rnncore.masks import Masks

pytestmark = pytest.mark.usefixtures(both_backends.__name__)

T, N, D, H = 5, 3, 4, 6
SPEC = CellSpec("gru", D, H, 2)


def params(spec: CellSpec = SPEC) -> dict[str, np.ndarray]:
    shapes = spec.param_shapes().items()
    return {name: 0.3 * normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes)}


@pytest.mark.parametrize("cell", CLASSES)
def test_it_is_what_layers_are_thin_over(cell: str) -> None:
    layer = CLASSES[cell](D, H, 2, bidirectional=True, seed=1)
    x, dy, lengths = normal(T, N, D), normal(T, N, 2 * H, seed=1), [5, 0, 2]
    y, end, tape = functional.forward(layer.spec, layer.params, x, None, lengths)
    assert_same([y, end], layer.forward(x, None, lengths))
    dx, dstart, grads = functional.backward(layer.spec, layer.params, tape, dy, end)
    assert_same([dx, dstart], layer.backward(dy, end))
    assert list(grads) == list(layer.params)
    assert_same(list(grads.values()), list(layer.grads.values()))


def test_without_keep_there_is_no_tape_and_the_same_result() -> None:
    x, weights = normal(T, N, D), params()
    y, end, tape = functional.forward(SPEC, weights, x, keep=False)
    assert tape is None
    assert_same([y, end], functional.forward(SPEC, weights, x)[:2])


def test_masks_multiply_the_inputs_of_layers() -> None:
    x, weights = normal(T, N, D), params()
    inner = np.abs(normal(T, N, H, seed=5))
    y, _, _ = functional.forward(SPEC, weights, x, masks=[None, inner])
    first = CellSpec("gru", D, H)
    second = CellSpec("gru", H, H)
    below, _, _ = functional.forward(first, {k: weights[k] for k in first.param_shapes()}, x)
    upper = {name: weights[name.replace("l0", "l1")] for name in second.param_shapes()}
    above, _, _ = functional.forward(second, upper, below * inner)
    assert np.allclose(y, above, atol=1e-6)


def test_equal_weights_in_other_arrays_may_be_given_back() -> None:
    x, dy, weights = normal(T, N, D), normal(T, N, H, seed=1), params()
    *_, tape = functional.forward(SPEC, weights, x)
    expected = functional.backward(SPEC, weights, tape, dy, retain=True)
    copies = {name: array.copy() for name, array in weights.items()}
    dx, dh, grads = functional.backward(SPEC, copies, tape, dy, need_dx=True)
    assert_same([dx, dh], expected[:2])
    assert_same(list(grads.values()), list(expected[2].values()))


def test_wrong_weights_masks_and_tapes_are_named() -> None:
    x, weights = normal(T, N, D), params()
    short = dict(weights)
    del short["bias_hh_l1"]
    with pytest.raises(ValueError, match=re.escape("params: missing ['bias_hh_l1']")):
        functional.forward(SPEC, short, x)
    wrong = {**weights, "bias_hh_l1": np.zeros(3, "f4")}
    with pytest.raises(ValueError, match=re.escape("params['bias_hh_l1']: expected (18,)")):
        functional.forward(SPEC, wrong, x)
    with pytest.raises(ValueError, match="masks: expected 2 entries, got 1"):
        functional.forward(SPEC, weights, x, masks=[None])
    with pytest.raises(ValueError, match=re.escape("masks[1]: expected (5, 3, 6), got (5, 3, 4)")):
        functional.forward(SPEC, weights, x, masks=[None, normal(T, N, D)])
    check_wrong_masks(x, weights)
    *_, tape = functional.forward(SPEC, weights, x)
    with pytest.raises(RuntimeError, match="another layer or specification"):
        functional.backward(CellSpec("gru", D, H, 2, bias=False), weights, tape)
    with pytest.raises(TypeError, match="tape: expected a tape"):
        functional.backward(SPEC, weights, None)
    functional.backward(SPEC, weights, tape)
    with pytest.raises(RuntimeError, match="already spent"):
        functional.backward(SPEC, weights, tape)


def check_wrong_masks(x: np.ndarray, weights: dict[str, np.ndarray]) -> None:
    none, kept, dropped = [None, None], np.zeros((T, N, H), bool), normal(N, H)
    zoned = replace(SPEC, zoneout=(0.1, 0.0))
    wrong = [
        (SPEC, Masks([None], none, none, none), "masks.inputs: expected 2 entries, got 1"),
        (SPEC, Masks(none, [None], none, none), "masks.recurrent: expected 2 entries, got 1"),
        (SPEC, Masks(none, [None, dropped[1:]], none, none),
         "masks.recurrent[1]: expected (3, 6), got (2, 6)"),
        (zoned, Masks(none, none, [kept, kept[1:]], none),
         "masks.zoneout_h[1]: expected (5, 3, 6), got (4, 3, 6)"),
        (SPEC, Masks(none, none, [kept, None], none), "masks.zoneout_h: expected None alone"),
        (zoned, Masks(none, none, none, [kept, None]), "masks.zoneout_c: expected None alone"),
    ]  # fmt: skip
    for spec, masks, words in wrong:
        with pytest.raises(ValueError, match=re.escape(words)):
            functional.forward(spec, weights, x, masks=masks)
    floats = Masks(none, none, [kept.astype("f4"), None], none)
    with pytest.raises(TypeError, match=re.escape("masks.zoneout_h[0]: expected dtype bool")):
        functional.forward(zoned, weights, x, masks=floats)
