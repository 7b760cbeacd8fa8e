"""SoftmaxCrossEntropy: values, gradients and what does not count."""

from __future__ import annotations

import numpy as np
import pytest
from test_nn_modules import differences, drawn
from tolerances import FINITE_DIFFERENCE

from rnncore import nn


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_matches_differences(reduction: str) -> None:
    loss = nn.SoftmaxCrossEntropy(reduction)
    logits, targets = 3 * drawn(4, 2, 5), np.array([[0, 4], [1, -1], [2, 2], [3, 0]])
    value = loss.forward(logits, targets)
    assert value == loss(logits, targets)
    expected = differences(lambda: loss(logits, targets), logits)
    np.testing.assert_allclose(loss.backward(), expected, **FINITE_DIFFERENCE)


def test_value_is_minus_the_log_of_the_targets_share() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    targets = np.array([1, 2])
    expected = -np.log([0.3, 0.8])
    np.testing.assert_allclose(nn.SoftmaxCrossEntropy()(logits, targets), expected.mean())
    np.testing.assert_allclose(nn.SoftmaxCrossEntropy("sum")(logits, targets), expected.sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    logits = 4 * drawn(70, 76, dtype=dtype)
    targets = np.random.default_rng(1).integers(0, 76, 70)
    targets[::9] = -1
    theirs = torch.tensor(logits.astype(np.float64), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.from_numpy(targets), ignore_index=-1)
    expected.backward()
    loss = nn.SoftmaxCrossEntropy()
    bound = {"float32": 1e-6, "float64": 1e-13}[dtype]  # a few u, relative to entries of 1
    assert loss.forward(logits, targets) == pytest.approx(expected.item(), rel=bound)
    np.testing.assert_allclose(loss.backward(), theirs.grad.numpy(), rtol=0, atol=bound)


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0, -1e4]], np.float32)
    loss = nn.SoftmaxCrossEntropy()
    assert loss.forward(logits, [0]) == 0.0
    np.testing.assert_array_equal(loss.backward(), [[0, 0, 0]])
    assert loss(logits, [2]) == 2e4


def test_without_a_target_that_counts_the_value_is_zero() -> None:
    loss = nn.SoftmaxCrossEntropy()
    assert loss.forward(np.ones((2, 3), np.float32), [-1, -7]) == 0.0
    np.testing.assert_array_equal(loss.backward(), np.zeros((2, 3)))
    assert loss(np.ones((0, 3), np.float32), np.zeros(0, np.int64)) == 0.0


def test_nan_goes_through() -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 0] = np.nan
    assert np.isnan(nn.SoftmaxCrossEntropy()(logits, [0, 1]))


def test_what_it_refuses_is_named() -> None:
    loss = nn.SoftmaxCrossEntropy()
    logits = np.zeros((2, 3), np.float32)
    with pytest.raises(RuntimeError, match="forward"):
        loss.backward()
    with pytest.raises(ValueError, match=r"target: expected \(2,\), got \(3,\)"):
        loss(logits, [0, 1, 2])
    with pytest.raises(ValueError, match=r"target: expected .* 2, got 3"):
        loss(logits, [0, 3])
    with pytest.raises(TypeError, match="target: expected integers"):
        loss(logits, [0.0, 1.0])
    with pytest.raises(TypeError, match="prediction: expected float32 or float64"):
        loss(np.zeros((2, 3), np.int64), [0, 1])
    with pytest.raises(ValueError, match="reduction"):
        nn.SoftmaxCrossEntropy("max")
