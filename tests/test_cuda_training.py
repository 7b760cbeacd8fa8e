"""Models, optimisers and the trainer on a GPU beside the same on the CPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import stand_in_cupy
from on_device import down
from stand_in_cupy import no_read_back
from test_cuda_modules import Tied, assert_alike, floats, gpu, integers, lifted, trained

from rnncore import devices, models, nn, train
from rnncore.layers import GRU, LSTM, Bidirectional, Stack

pytestmark = pytest.mark.usefixtures(gpu.__name__)

X, LENGTHS = integers(5, 3), [5, 2, 3]
WINDOWS = floats(6, 3, 2)


def attention(options: Any) -> Any:
    return nn.Attention("general", 5, 5, seed=7, **options)


# What each is made by, what goes in, and its lengths.
MODELS: dict[str, tuple[Callable[..., Any], list[np.ndarray], list[int] | None]] = {
    "classifier": (
        lambda **o: models.Classifier(
            GRU(4, 5, bidirectional=True, seed=1, **o), 3, vocabulary=6, dropout=0.2, seed=2
        ),
        [X], LENGTHS,
    ),
    "classifier by the mean": (
        lambda **o: models.Classifier(GRU(2, 5, seed=1, **o), 3, reduce="mean", seed=2),
        [WINDOWS], [6, 0, 3],
    ),
    "classifier by the largest": (
        lambda **o: models.Classifier(GRU(2, 5, seed=1, **o), 3, reduce="max", seed=2),
        [WINDOWS], [6, 1, 3],
    ),
    "tagger": (
        lambda **o: models.Tagger(
            Bidirectional(LSTM(4, 5, seed=1, **o)), 3, vocabulary=6, dropout=0.2, seed=2
        ),
        [X], LENGTHS,
    ),
    "forecaster": (
        lambda **o: models.Forecaster(
            Stack([LSTM(2, 5, seed=1, **o), nn.Linear(5, 4, seed=1, **o)]), 2, 3, seed=2
        ),
        [WINDOWS], None,
    ),
    "language model": (
        lambda **o: models.LanguageModel(
            6, LSTM(5, 5, stateful=True, seed=1, **o), tied=True, dropout=0.2, seed=2
        ),
        [X], None,
    ),
    "encoder decoder": (
        lambda **o: models.EncoderDecoder(
            6, 7, LSTM(4, 5, seed=1, **o), LSTM(8, 5, seed=2, **o), peeky=True,
            attention=attention(o), dropout=0.2, seed=2,
        ),
        [X, X[:4]], LENGTHS,
    ),
    "two directions into one": (
        lambda **o: models.EncoderDecoder(
            6, 7, GRU(4, 5, bidirectional=True, seed=1, **o), GRU(4, 5, seed=2, **o), seed=2
        ),
        [X, X[:4]], LENGTHS,
    ),
    "one to many": (
        lambda **o: models.OneToMany(4, 7, LSTM(3, 5, num_layers=2, seed=1, **o), seed=2),
        [floats(3, 4), X], None,
    ),
}  # fmt: skip


def made(name: str, device: str) -> Any:
    return MODELS[name][0](dtype="float64", device=device)


def stepped(model: Any, inputs: list[Any], named: dict[str, Any]) -> tuple[Any, ...]:
    """Return what training and inference give, and all gradients."""
    with no_read_back():
        y = model.forward(*inputs, **named)
        dy = floats(*y.shape, seed=9)
        dx = model.backward(dy if type(y) is np.ndarray else lifted(dy))
        called = model(*inputs, **named)
    return y, dx, called, dict(model.grads)


@pytest.mark.parametrize("there", [False, True], ids=["host lengths", "lengths there"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_follows_its_layer_to_a_gpu_and_does_there_what_it_does_on_the_cpu(
    name: str, there: bool
) -> None:
    _, inputs, lengths = MODELS[name]
    model = made(name, "cuda")
    assert {part.device for _, part in train.checkpoint.walk(model)} == {"cuda:0"}
    expected = stepped(made(name, "cpu"), inputs, {"lengths": lengths} if lengths else {})
    known = lifted(np.array(lengths)) if there else lengths
    named = {"lengths": known} if lengths else {}
    assert_alike(stepped(model, list(map(lifted, inputs)), named), expected, "float64")


@pytest.mark.parametrize("name", ["encoder decoder", "one to many", "language model"])
def test_sequences_are_drawn_and_searched_for_on_a_gpu_as_on_the_cpu(name: str) -> None:
    found = []
    for device in ("cpu", "cuda"):
        model, lift = made(name, device), lifted if device == "cuda" else (lambda value: value)
        state = None
        if name != "language model":
            state = model.encode(lift(MODELS[name][1][0]))
        start = [0] * 3
        drawn = models.sample(model.stepper(), start, 6, state=state, seed=1)
        best = models.beam_search(model.stepper(), start, 4, state=state, width=2, end=1)
        found.append((drawn, best))
    np.testing.assert_array_equal(found[0][0].symbols, found[1][0].symbols)
    np.testing.assert_allclose(found[0][0].log_probabilities, found[1][0].log_probabilities)
    symbols = [[[one.symbols for one in row] for row in best] for _, best in found]
    assert symbols[0] == symbols[1]


def test_a_language_model_measures_a_text_on_a_gpu_as_on_the_cpu() -> None:
    text = np.random.default_rng(0).integers(0, 6, 41)
    values = [made("language model", d).mean_loss(text, 2, 7) for d in ("cpu", "cuda")]
    assert isinstance(values[1], float)
    assert values[1] == pytest.approx(values[0], rel=1e-12)


# --- optimisers and clipping ----------------------------------------------------------------------

OPTIMIZERS: dict[str, Callable[[Any], train.Optimizer]] = {
    "sgd": lambda model: train.SGD(model, 0.1, weight_decay=0.1),
    "momentum": lambda model: train.SGD(model, 0.1, 0.9),
    "nesterov": lambda model: train.SGD(model, 0.1, 0.9, nesterov=True),
    "adam": lambda model: train.Adam(model, 0.1, weight_decay=0.1),
    "adamw": lambda model: train.AdamW(model, 0.1),
}
TIED = [integers(5, 3)], {"lengths": [5, 2, 4]}


def updated(model: Any, optimizer: train.Optimizer, steps: int = 3) -> None:
    """Do some updates on the same batch."""
    inputs = TIED[0] if model.device == "cpu" else list(map(lifted, TIED[0]))
    for _ in range(steps):
        optimizer.zero_grad()
        trained(model, inputs, TIED[1])
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_does_on_a_gpu_what_it_does_on_the_cpu(name: str) -> None:
    host, other = Tied(), Tied("cuda")
    on_host, there = OPTIMIZERS[name](host), OPTIMIZERS[name](other)
    updated(host, on_host)
    updated(other, there)
    with no_read_back():
        there.step()
        there.zero_grad()
        state = there.state_dict()
    on_host.step()
    expected = on_host.state_dict()
    assert state.pop("steps") == expected.pop("steps") == 4
    assert_alike(state, expected, "float64")
    assert_alike(dict(other.params), dict(host.params), "float64")


@pytest.mark.host_only
def test_an_optimizer_follows_a_model_that_moves() -> None:
    still, moving = Tied(), Tied()
    first, second = train.Adam(still, 0.1), train.Adam(moving, 0.1)
    for place in ("cuda", "cpu", "cuda:1"):
        updated(still, first, 1)
        moving.to(place)
        with devices.get(place).entered():
            updated(moving, second, 1)
    np.testing.assert_allclose(
        devices.get("cuda:1").download(moving.params["output.bias"]), still.params["output.bias"]
    )
    other = train.Adam(Tied("cuda"), 0.1)
    other.load_state_dict(first.state_dict())
    assert other.steps == 3
    name = "m.embedding.weight"
    np.testing.assert_array_equal(down(other.state_dict()[name]), first.state_dict()[name])


@pytest.mark.host_only
def test_what_is_done_between_calls_needs_no_current_gpu() -> None:
    model = Tied("cuda:1")
    optimizer = train.SGD(model, 0.1, 0.9)
    inputs, named = TIED
    with pytest.raises(RuntimeError, match=r"x: expected cuda:1, where the layer is, to be CuPy's"):
        model.forward(*inputs, **named)
    with devices.get("cuda:1").entered():
        y = model.forward(*inputs, **named)
        model.backward(devices.get("cuda:1").upload(np.ones(y.shape)))
    before = model.state_dict()
    assert train.clip_grad_norm(model, 1e-3) > 1e-3
    train.clip_grad_value(model, 1e-4)
    optimizer.step()
    optimizer.zero_grad()
    model.load_state_dict(before)
    optimizer.load_state_dict(optimizer.state_dict())
    assert train.clip_grad_norm(model, math.inf) == 0


def test_clipping_reads_one_number_back() -> None:
    host, other = Tied(), Tied("cuda")
    trained(host, *TIED)
    trained(other, list(map(lifted, TIED[0])), TIED[1])
    bound = train.clip_grad_norm(host, math.inf) / 3
    for model in (host, other):
        trained(model, TIED[0], TIED[1])
    expected = train.clip_grad_norm(host, bound)
    before = stand_in_cupy.read_backs
    norm = train.clip_grad_norm(other, bound)
    assert stand_in_cupy.read_backs - before <= 1
    assert norm == pytest.approx(expected, rel=1e-12)
    assert norm > bound
    assert_alike(dict(other.grads), dict(host.grads), "float64")
    with no_read_back():
        train.clip_grad_value(other, bound / 9)
    train.clip_grad_value(host, bound / 9)
    assert_alike(dict(other.grads), dict(host.grads), "float64")


# --- the trainer ----------------------------------------------------------------------------------


def trainer(model: Any, path: Any = None, **options: Any) -> train.Trainer:
    rows = [floats(t, 2, seed=t) for t in (3, 5, 2, 6, 4, 3, 5)]
    batches = train.PaddedBatches(rows, [t % 3 for t in range(7)], 2, seed=1)
    return train.Trainer(
        model, nn.SoftmaxCrossEntropy(), train.Adam(model, 0.05), batches, max_norm=1.0,
        progress=False, checkpoint=path,
        validate=lambda m: train.evaluate(m, nn.SoftmaxCrossEntropy(), batches.epoch()),
        validate_every=2, patience=9, **options,
    )  # fmt: skip


def classifier(device: str) -> Any:
    layer = GRU(2, 5, dtype="float64", seed=1, device=device)
    return models.Classifier(layer, 3, dropout=0.2, seed=2)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_feeds_a_model_on_a_gpu_from_batches_of_the_host(accumulate: int) -> None:
    host, other = (trainer(classifier(d), accumulate=accumulate) for d in ("cpu", "cuda"))
    assert host.run(8)
    assert other.run(8)
    for name in ("losses", "norms", "validation"):
        got, expected = getattr(other.history, name), getattr(host.history, name)
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert_alike(dict(other.model.params), dict(host.model.params), "float64")


def test_a_step_of_a_trainer_reads_back_its_loss_and_its_norm_alone() -> None:
    training = trainer(classifier("cuda"))
    before = stand_in_cupy.read_backs
    value = training.step()
    assert isinstance(value, float)
    assert stand_in_cupy.read_backs - before <= 2
    assert training.history.losses == [value]


def test_a_training_goes_on_from_a_checkpoint_on_the_other_device(tmp_path: Any) -> None:
    whole = trainer(classifier("cpu"))
    whole.run(8)
    for first, second in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")):
        path = tmp_path / f"{first} {second}"
        trainer(classifier(first), path).run(4)
        later = trainer(classifier(second), path)
        later.load()
        later.run(8)
        assert later.model.device.startswith(second)
        np.testing.assert_allclose(later.history.losses, whole.history.losses, rtol=1e-9)


def test_a_carried_state_goes_through_a_checkpoint_of_a_gpu(tmp_path: Any) -> None:
    model = made("language model", "cuda")
    model.forward(X)
    train.save_checkpoint(tmp_path / "model", model)
    other = made("language model", "cuda")
    train.load_checkpoint(tmp_path / "model", other)
    np.testing.assert_array_equal(down(other.forward(X)), down(model.forward(X)))
    copied = copy.deepcopy(model)
    np.testing.assert_array_equal(down(copied.layer.state), down(model.layer.state))


def test_layers_of_two_devices_make_no_model() -> None:
    with pytest.raises(ValueError, match="decoder: expected device cuda:0, got cpu"):
        models.EncoderDecoder(6, 7, GRU(4, 5, device="cuda"), GRU(4, 5))
