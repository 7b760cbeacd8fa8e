"""LayerNorm and variational Dropout."""

from __future__ import annotations

import numpy as np
import pytest
from modules import assert_gradients_match_differences, drawn, stir
from tolerances import LARGEST_ENTRY

from rnncore import nn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_layer_norms_gradients_match_differences(bias: bool, eps: float) -> None:
    norm = nn.LayerNorm(5, eps, bias, dtype="float64")
    stir(norm)
    assert_gradients_match_differences(norm, {"x": drawn(3, 2, 5)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_equals_pytorchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    ours = nn.LayerNorm(70, dtype=dtype)
    stir(ours)
    theirs = torch.nn.LayerNorm(70, dtype=torch.float64)
    state = {k: torch.from_numpy(v.astype(np.float64)) for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    x = (3 + drawn(40, 3, 70)).astype(dtype)
    dy = drawn(40, 3, 70, seed=1).astype(dtype)
    tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
    y = theirs(tensor)
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    results = [("forward", ours.forward(x), y.detach().numpy())]
    results.append(("gradient", ours.backward(dy), tensor.grad.numpy()))
    results += [("gradient", ours.grads[n], p.grad.numpy()) for n, p in theirs.named_parameters()]
    for kind, got, expected in results:
        assert got.dtype == dtype
        bound = LARGEST_ENTRY[dtype, kind] * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


def test_layer_norms_bits_depend_on_neither_layout_nor_batch() -> None:
    norm, x = nn.LayerNorm(33), drawn(6, 4, 33, dtype="float32")
    y = norm(x)
    for n in range(4):
        np.testing.assert_array_equal(norm(x[:, n]), y[:, n])
    np.testing.assert_array_equal(norm(np.asfortranarray(x)), y)
    assert x.flags.writeable
    np.testing.assert_array_equal(norm.forward(x), y)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (3,), (2, 1)])
def test_layer_norm_takes_empty_and_single_rows(shape: tuple[int, ...]) -> None:
    norm = nn.LayerNorm(shape[-1])
    y = norm.forward(np.ones(shape, np.float32))
    assert not y.any()  # a constant row has no deviation
    assert norm.backward(y + 1).shape == shape


def test_layer_norm_names_what_it_refuses() -> None:
    norm = nn.LayerNorm(3)
    with pytest.raises(ValueError, match=r"x: expected \(\.\.\., 3\), got \(2, 4\)"):
        norm(np.ones((2, 4), np.float32))
    with pytest.raises(RuntimeError, match="expected a forward"):
        norm.backward(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="eps: expected at least 0"):
        nn.LayerNorm(3, -1.0)
    with pytest.raises(ValueError, match="features"):
        nn.LayerNorm(0)
    assert repr(norm) == "LayerNorm(3, eps=1e-05, bias=True, dtype='float32')"


@pytest.mark.parametrize("batch_first", [False, True])
def test_variational_dropout_has_one_mask_a_sequence(batch_first: bool) -> None:
    drop = nn.Dropout(0.5, variational=True, batch_first=batch_first, dtype="float64", seed=1)
    x = np.ones((4, 5, 30))
    y = drop.forward(x)
    steps, rows = (y.swapaxes(0, 1), y) if batch_first else (y, y.swapaxes(0, 1))
    assert all((step == steps[0]).all() for step in steps)
    assert any((row != rows[0]).any() for row in rows)
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(drop.backward(3 * x), 3 * y)
    alone = drop.forward(np.ones((6, 30)))
    assert (alone == alone[0]).all()
    np.testing.assert_array_equal(drop(x), x)
    with pytest.raises(ValueError, match="x: expected"):
        drop.forward(np.ones(3))
    assert "variational=True" in repr(drop)
