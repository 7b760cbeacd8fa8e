"""Losses: values, gradients, PyTorch's numbers, and what does not count."""

from __future__ import annotations

import numpy as np
import pytest
from modules import assert_close, differences, drawn
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


# --- ignored targets and weights of classes -------------------------------------------------------


def class_weight(classes: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0.2, 2, classes)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("ignore_index", [None, 0, -7])
def test_options_equal_pytorchs(reduction: str, weighted: bool, ignore_index: int | None) -> None:
    torch = pytest.importorskip("torch")
    logits, targets = 4 * drawn(50, 9), np.random.default_rng(1).integers(0, 9, 50)
    if ignore_index is not None:
        targets[::7] = ignore_index
    weight = class_weight(9) if weighted else None
    tensor = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        tensor,
        torch.from_numpy(targets),
        None if weight is None else torch.from_numpy(weight),
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
    )
    expected.backward()
    loss = nn.SoftmaxCrossEntropy(reduction, ignore_index=ignore_index, weight=weight)
    assert loss.forward(logits, targets) == pytest.approx(expected.item(), rel=1e-13)
    assert loss(logits, targets) == loss.forward(logits, targets)
    assert_close(loss.backward(), tensor.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weighted_gradients_match_differences(reduction: str) -> None:
    loss = nn.SoftmaxCrossEntropy(reduction, ignore_index=3, weight=class_weight(5))
    logits, targets = 3 * drawn(4, 2, 5), np.array([[0, 4], [1, -1], [2, 2], [3, 0]])
    loss.forward(logits, targets)
    expected = differences(lambda: loss(logits, targets), logits)
    got = loss.backward()
    np.testing.assert_allclose(got, expected, **FINITE_DIFFERENCE)
    assert not got[1, 1].any()
    assert not got[3, 0].any()


def test_an_ignored_index_may_lie_outside_the_classes() -> None:
    loss = nn.SoftmaxCrossEntropy(ignore_index=255)
    logits = np.zeros((2, 4), np.float32)
    assert loss(logits, np.array([255, 1], np.uint8)) == pytest.approx(np.log(4))
    with pytest.raises(ValueError, match=r"target: expected .* 3, got 254"):
        loss(logits, np.array([254, 1], np.uint8))


def test_targets_of_weight_zero_alone_have_a_value_of_zero() -> None:
    loss = nn.SoftmaxCrossEntropy(weight=[0, 1])
    assert loss.forward(np.ones((2, 2)), [0, 0]) == 0.0
    assert not loss.backward().any()


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weight: expected finite numbers of at least 0"):
        nn.SoftmaxCrossEntropy(weight=[1, -1])
    with pytest.raises(ValueError, match=r"weight: expected \(classes,\), got \(1, 2\)"):
        nn.SoftmaxCrossEntropy(weight=[[1, 1]])
    with pytest.raises(ValueError, match=r"weight: expected \(3,\), got \(2,\)"):
        nn.SoftmaxCrossEntropy(weight=[1, 1])(np.ones((2, 3)), [0, 0])
    with pytest.raises(TypeError, match="ignore_index: expected an integer"):
        nn.SoftmaxCrossEntropy(ignore_index=0.5)


# --- entry by entry -------------------------------------------------------------------------------


def elementwise(kind: str, reduction: str = "mean"):
    if kind == "weighted":
        return nn.SigmoidCrossEntropy(
            reduction, weight=class_weight(3), positive_weight=1 + class_weight(3)
        )
    return {"sigmoid": nn.SigmoidCrossEntropy, "squared": nn.MeanSquaredError}[kind](reduction)


def answers() -> tuple[np.ndarray, np.ndarray]:
    return 3 * drawn(4, 2, 3), np.random.default_rng(2).uniform(0, 1, (4, 2, 3)).round(1)


@pytest.mark.parametrize("kind", ["sigmoid", "weighted", "squared"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("axes", [0, 2, 3])
def test_elementwise_gradients_match_differences(kind: str, reduction: str, axes: int) -> None:
    loss, (prediction, target) = elementwise(kind, reduction), answers()
    mask = np.random.default_rng(0).random(prediction.shape[:axes]) < 0.6 if axes else None
    value = loss.forward(prediction, target, mask)
    assert value == loss(prediction, target, mask)
    expected = differences(lambda: loss(prediction, target, mask), prediction)
    got = loss.backward()
    np.testing.assert_allclose(got, expected, **FINITE_DIFFERENCE)
    if mask is not None:
        assert not got[~mask].any()
        assert got[mask].any()


@pytest.mark.parametrize("kind", ["sigmoid", "weighted", "squared"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_elementwise_losses_equal_pytorchs(kind: str, reduction: str) -> None:
    torch = pytest.importorskip("torch")
    loss, (prediction, target) = elementwise(kind, reduction), answers()
    tensor, wanted = torch.tensor(prediction, requires_grad=True), torch.from_numpy(target)
    if kind == "squared":
        expected = torch.nn.functional.mse_loss(tensor, wanted, reduction=reduction)
    else:
        given = [loss.weight, loss.positive_weight]
        weight, positive = (None if v is None else torch.from_numpy(v) for v in given)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            tensor, wanted, weight, reduction=reduction, pos_weight=positive
        )
    expected.backward()
    assert loss.forward(prediction, target) == pytest.approx(expected.item(), rel=1e-13)
    assert_close(loss.backward(), tensor.grad)


def test_a_masked_mean_is_that_of_what_is_left() -> None:
    loss = nn.MeanSquaredError()
    prediction, target = np.array([[1.0, 3.0], [np.nan, 5.0]]), np.zeros((2, 2))
    assert loss(prediction, target, np.array([[True, True], [False, False]])) == 5.0
    assert loss.forward(prediction, target, np.array([True, False])) == 5.0
    np.testing.assert_array_equal(loss.backward(), [[1, 3], [0, 0]])
    assert loss(prediction, target, np.array([False, False])) == 0.0
    assert loss(np.ones((0, 2)), np.ones((0, 2))) == 0.0


def test_huge_logits_have_finite_losses() -> None:
    loss = nn.SigmoidCrossEntropy("sum")
    logits = np.array([1e4, -1e4, 1e4, -1e4], np.float32)
    assert loss.forward(logits, np.array([1, 0, 0, 1], np.float32)) == 2e4
    np.testing.assert_array_equal(loss.backward(), [0, 0, 1, -1])


def test_elementwise_losses_name_what_they_refuse() -> None:
    loss, (prediction, target) = nn.SigmoidCrossEntropy(), answers()
    with pytest.raises(RuntimeError, match=r"SigmoidCrossEntropy\.backward: expected a forward"):
        loss.backward()
    with pytest.raises(ValueError, match="target: expected"):
        loss(prediction, target[:3])
    with pytest.raises(TypeError, match="target: expected dtype float32, got float64"):
        loss(prediction.astype(np.float32), target)
    with pytest.raises(TypeError, match="mask: expected dtype bool"):
        loss(prediction, target, np.ones(prediction.shape))
    with pytest.raises(ValueError, match="mask: expected"):
        loss(prediction, target, np.ones(4, bool))
    with pytest.raises(ValueError, match="weight: expected"):
        nn.SigmoidCrossEntropy(weight=[1, 1])(prediction, target)
    assert repr(nn.MeanSquaredError("sum")) == "MeanSquaredError(reduction='sum')"
