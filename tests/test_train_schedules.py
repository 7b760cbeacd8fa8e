"""Schedules: PyTorch's where it has the same, and what they keep in a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import pytest

from rnncore import train

UPDATES = 40


def of_torch(make: object, rate: float = 0.5) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedule = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(UPDATES):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("ours", "theirs"), [
    (train.Constant(0.5), lambda s, o: s.ConstantLR(o, factor=1.0)),
    (train.Step(0.5, every=7, factor=0.3), lambda s, o: s.StepLR(o, 7, 0.3)),
    (train.Exponential(0.5, factor=0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    (train.Cosine(0.5, updates=UPDATES, final=0.1),
     lambda s, o: s.CosineAnnealingLR(o, UPDATES, 0.1)),
    (train.Warmup(10, train.Constant(0.5)), lambda s, o: s.LinearLR(o, 0.1, total_iters=9)),
    (train.OneCycle(0.5, updates=UPDATES), lambda s, o: s.OneCycleLR(o, 0.5, UPDATES + 1)),
])  # fmt: skip
def test_schedules_are_pytorchs(ours: train.Schedule, theirs: object) -> None:
    if isinstance(ours, train.OneCycle):
        ours = train.OneCycle(0.5, updates=UPDATES + 1)  # their last step is one after ours
    assert [ours(update) for update in range(UPDATES)] == pytest.approx(of_torch(theirs), rel=1e-9)


def test_a_plateau_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.25, patience=1, threshold=0.0, min_lr=0.01
    )
    ours = train.Plateau(0.5, divisor=4.0, patience=1, lowest=0.01)
    for loss in (3.0, 2.0, 2.0, 2.1, 1.9, 2.0, 1.9, 1.8, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0):
        ours.observe(loss)
        theirs.step(loss)
        assert ours(0) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours(0) == 0.01


def test_a_plateau_takes_nan_for_no_better() -> None:
    rate = train.Plateau(1.0, divisor=2.0)
    rate.observe(math.nan)
    assert (rate(0), rate.best) == (0.5, math.inf)


def test_a_step_may_hold_its_rate_longer_at_first() -> None:
    rate = train.Step(1.0, every=2, factor=0.5, first=5)
    assert [rate(u) for u in range(10)] == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_a_warmup_meets_what_follows_without_a_jump() -> None:
    rate = train.Warmup(5, train.Cosine(1.0, updates=10))
    rates = [rate(u) for u in range(16)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[15] == 0
    assert train.Warmup(0, train.Constant(2.0))(0) == 2.0
    composed = train.WarmupCosine(peak=1.0, updates=15, warmup=5)
    assert [composed(u) for u in range(16)] == rates


def test_a_warmup_hands_validations_on() -> None:
    rate = train.Warmup(2, train.Plateau(1.0, divisor=2.0))
    for loss in (1.0, 1.0):
        rate.observe(loss)
    assert (rate(1), rate(2)) == (0.5, 0.5)
    again = train.Warmup(2, train.Plateau(1.0, divisor=2.0))
    again.load_state_dict(json.loads(json.dumps(rate.state_dict())))
    assert again == rate


@pytest.mark.parametrize("schedule", [
    train.Constant(1.0), train.Step(1.0, 3), train.Exponential(1.0, 0.9), train.Cosine(1.0, 9),
    train.Warmup(3, train.Plateau(1.0)), train.WarmupCosine(1.0, 9, 2), train.OneCycle(1.0, 9),
    train.Plateau(3.0, best=2.0, waited=1),
])  # fmt: skip
def test_schedules_are_plain_data(schedule: train.Schedule) -> None:
    assert copy.deepcopy(schedule) == pickle.loads(pickle.dumps(schedule)) == schedule
    json.dumps(dataclasses.asdict(schedule))
    schedule.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    with pytest.raises(ValueError, match="state: expected"):
        schedule.load_state_dict({"unknown": 1})


@pytest.mark.parametrize(("numbers", "name"), [
    ((-1.0, 9), "peak"), ((1.0, -9), "updates"), ((1.0, 9, -2), "warmup"),
    ((1.0, 9, 2, -0.1), "final"),
])  # fmt: skip
def test_a_warmup_with_a_cosine_refuses_senseless_numbers_by_their_own_names(
    numbers: tuple, name: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected at least"):
        train.WarmupCosine(*numbers)


@pytest.mark.parametrize("make", [
    lambda: train.Constant(-1.0), lambda: train.Step(1.0, every=0), lambda: train.Cosine(1.0, 0),
    lambda: train.Plateau(1.0, divisor=1.0), lambda: train.OneCycle(1.0, 10, rising=1.0),
    lambda: train.OneCycle(1.0, 3, rising=0.3), lambda: train.Exponential(1.0, -0.1),
    lambda: train.Warmup(-1, train.Constant(1.0)), lambda: train.Constant(math.nan),
])  # fmt: skip
def test_schedules_refuse_senseless_numbers(make: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()
