"""Optimisers: equal to their twins and PyTorch's, the same bits everywhere, tied weights once."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import UNIT_ROUNDOFF

import rnncore as rc
from rnncore import _rnncore, nn, train
from rnncore.train import naive, updates

DTYPES = ["float32", "float64"]
SGD_RULES = [(0.1, 0.0, False, 0.0), (0.1, 0.0, False, 0.2), (0.1, 0.9, False, 0.2),
             (0.1, 0.9, True, 0.0), (0.1, 0.8, True, 0.3)]  # fmt: skip
# lr, beta1, beta2, eps, step, penalty, decay
ADAM_RULES = [(0.01, 0.9, 0.999, 1e-8, 1, 0.0, 0.0), (0.1, 0.8, 0.95, 1e-3, 7, 0.3, 0.0),
              (0.1, 0.8, 0.95, 1e-3, 7, 0.0, 0.3)]  # fmt: skip


def drawn(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    unit = UNIT_ROUNDOFF[str(got.dtype)]
    np.testing.assert_allclose(got, expected, rtol=32 * unit, atol=32 * unit)


def sgd(module: object, dtype: str, rule: tuple, count: int = 1003) -> list[np.ndarray]:
    param, velocity = drawn(dtype, count), drawn(dtype, count, seed=1)
    module.sgd_step(param, drawn(dtype, count, seed=2), velocity if rule[1] else None, *rule)
    return [param, velocity]


def adam(module: object, dtype: str, rule: tuple, count: int = 1003) -> list[np.ndarray]:
    param, m, v = (drawn(dtype, count, seed=i) for i in range(3))
    v *= v
    module.adam_step(param, drawn(dtype, count, seed=3), m, v, *rule)
    return [param, m, v]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", SGD_RULES)
def test_sgd_step_is_its_twin(dtype: str, rule: tuple, isa: str) -> None:
    for got, expected in zip(sgd(updates, dtype, rule), sgd(naive, dtype, rule), strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", ADAM_RULES)
def test_adam_step_is_its_twin(dtype: str, rule: tuple, isa: str) -> None:
    for got, expected in zip(adam(updates, dtype, rule), adam(naive, dtype, rule), strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 7, 4096, 100_003])
def test_sum_of_squares_is_its_twin(dtype: str, count: int, isa: str) -> None:
    x = drawn(dtype, count)
    assert updates.sum_of_squares(x) == pytest.approx(naive.sum_of_squares(x), rel=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_on_neither_threads_nor_instruction_set(dtype: str) -> None:
    def run() -> list[bytes]:
        arrays = [array for rule in SGD_RULES for array in sgd(updates, dtype, rule, 60_001)]
        arrays += [array for rule in ADAM_RULES for array in adam(updates, dtype, rule, 60_001)]
        arrays.append(np.float64(updates.sum_of_squares(drawn(dtype, 300_001))))
        return [np.asarray(array).tobytes() for array in arrays]

    results, before = [], _rnncore.isa()
    try:
        for isa in _rnncore.supported_isas():
            _rnncore.set_isa(isa)
            for threads in (1, 2, 5):
                with rc.threads(threads):
                    results.append(run())
    finally:
        _rnncore.set_isa(before)
    assert all(result == results[0] for result in results)


def test_steps_refuse_arrays_that_do_not_fit() -> None:
    param = np.zeros(4, np.float32)
    with pytest.raises(ValueError, match=r"grad: expected \(4,\), got \(3,\)"):
        updates.sgd_step(param, np.zeros(3, np.float32), None, 0.1)
    with pytest.raises(TypeError, match="velocity: expected dtype f4"):
        updates.sgd_step(param, param, np.zeros(4), 0.1, 0.9)
    with pytest.raises(ValueError, match="param: expected a C-contiguous"):
        updates.sgd_step(np.zeros(8, np.float32)[::2], param, None, 0.1)
    with pytest.raises(TypeError, match="expected float32 or float64"):
        updates.sum_of_squares(np.zeros(3, np.int64))


CASES = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_fifty_steps_are_pytorchs(name: str, options: dict) -> None:
    torch = pytest.importorskip("torch")
    modules = {"gru": rc.GRU(2, 3, dtype="float64", seed=0),
               "linear": nn.Linear(4, 3, dtype="float64", seed=1)}  # fmt: skip
    pairs = [
        (param, module.grads[key], torch.tensor(param))
        for module in modules.values()
        for key, param in module.params.items()
    ]
    optimizer = getattr(train, name)(modules, lr=0.05, **options)
    twin = getattr(torch.optim, name)([tensor for *_, tensor in pairs], lr=0.05, **options)
    draw = np.random.default_rng(0)
    for _ in range(50):
        for _, grad, tensor in pairs:
            grad[...] = draw.standard_normal(grad.shape)
            tensor.grad = torch.tensor(grad)
        optimizer.step()
        twin.step()
    for param, _, tensor in pairs:
        np.testing.assert_allclose(param, tensor.numpy(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("make", [
    lambda m: train.Adam(m, 0.1, weight_decay=0.1),
    lambda m: train.AdamW(m, 0.1),
    lambda m: train.SGD(m, 0.1, momentum=0.9, nesterov=True),
])  # fmt: skip
def test_an_optimiser_goes_on_from_its_state_to_the_same_bits(make: object) -> None:
    def run(steps: range, module: nn.Module, optimizer: train.Optimizer) -> None:
        for step in steps:
            for name, grad in module.grads.items():
                grad[...] = drawn("float32", *grad.shape, seed=step + len(name))
            optimizer.step()

    whole, first, second = (nn.Linear(5, 4, seed=0) for _ in range(3))
    run(range(9), whole, make(whole))
    before = make(first)
    run(range(4), first, before)
    second.load_state_dict(first.state_dict())
    after = make(second)
    after.load_state_dict(before.state_dict())
    run(range(4, 9), second, after)
    for name, value in whole.params.items():
        assert second.params[name].tobytes() == value.tobytes()


class Tied(nn.Module):
    """Two maps of one weight, and of one gradient unless told otherwise."""

    def __init__(self, share_gradient: bool = True) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 3, seed=0), nn.Linear(3, 3, bias=False, seed=1)
        self.other._own_params["weight"] = self.one.params["weight"]
        if share_gradient:
            self.other._own_grads["weight"] = self.one.grads["weight"]


@pytest.mark.parametrize("make", [
    lambda m: train.SGD(m, 0.5),
    lambda m: train.SGD(m, 0.5, momentum=0.9),
    lambda m: train.Adam(m, 0.5),
])  # fmt: skip
def test_a_tied_parameter_is_changed_once(make: object) -> None:
    tied, alone = Tied(), nn.Linear(3, 3, seed=0)
    for module in (tied.one, alone):
        for name, grad in module.grads.items():
            grad[...] = drawn("float32", *grad.shape, seed=len(name))
    optimizer = make(tied)
    for step in (optimizer, make(alone)):
        step.step()
        step.step()
    np.testing.assert_array_equal(tied.other.params["weight"], alone.params["weight"])
    assert not [name for name in optimizer.state_dict() if "other" in name]


def test_a_module_given_twice_is_changed_once() -> None:
    layer, alone = nn.Linear(3, 2, seed=0), nn.Linear(3, 2, seed=0)
    layer.grads["bias"][...] = alone.grads["bias"][...] = 1
    train.SGD([layer, layer], 0.5).step()
    train.SGD(alone, 0.5).step()
    np.testing.assert_array_equal(layer.params["bias"], alone.params["bias"])


def test_a_tied_gradient_is_clipped_once() -> None:
    tied = Tied()
    tied.one.grads["weight"][...] = 1
    assert train.clip_grad_norm(tied, 1.5) == pytest.approx(3.0)
    np.testing.assert_allclose(tied.one.grads["weight"], 0.5)


def test_one_parameter_with_two_gradients_is_refused() -> None:
    tied = Tied(share_gradient=False)
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight, one parameter, to share"):
        train.SGD([tied.one, tied.other], 0.1)


@pytest.mark.parametrize(("options", "match"), [
    ({"momentum": 1.0}, "momentum"),
    ({"nesterov": True}, "nesterov: expected a momentum"),
    ({"weight_decay": -1}, "weight_decay"),
])  # fmt: skip
def test_sgd_refuses_senseless_numbers(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        train.SGD(nn.Linear(2, 2, seed=0), 0.1, **options)


def test_clip_grad_norm_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    layer = rc.LSTM(5, 40, dtype="float64", seed=0)
    tensors = []
    for i, (name, grad) in enumerate(layer.grads.items()):
        grad[...] = drawn("float64", *grad.shape, seed=i)
        tensors.append(torch.tensor(layer.params[name]))
        tensors[-1].grad = torch.tensor(grad)
    theirs = torch.nn.utils.clip_grad_norm_(tensors, 2.0)
    assert train.clip_grad_norm(layer, 2.0) == pytest.approx(float(theirs), rel=1e-12)
    for grad, tensor in zip(layer.grads.values(), tensors, strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-6)  # they add 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clip_grad_norm_raises_for_what_is_not_finite_when_asked(bad: float) -> None:
    layer = nn.Linear(2, 2, seed=0)
    layer.grads["weight"][...] = 5
    layer.grads["bias"][1] = bad
    with pytest.raises(FloatingPointError, match="expected a finite norm"):
        train.clip_grad_norm(layer, 1.0, error_if_nonfinite=True)
    assert (layer.grads["weight"] == 5).all()


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@pytest.mark.parametrize("value", ["fast", None, np.inf, np.nan, -1.0])
def test_a_rate_that_is_no_finite_number_of_at_least_0_is_refused_by_its_name(
    name: str, value: object
) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected "):
        train.Adam(rc.RNN(2, 3, seed=0), **{name: value})
