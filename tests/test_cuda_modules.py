"""Modules and losses on a GPU beside the same on the CPU; without a GPU, on a stand-in for CuPy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import on_device
import pytest
from modules import stir
from on_device import down
from stand_in_cupy import no_read_back

import rnncore as rc
from rnncore import devices, nn
from rnncore.layers import GRU, LSTM, Stack

CLOSE = {"float32": {"rtol": 2e-5, "atol": 2e-5}, "float64": {"rtol": 1e-11, "atol": 1e-12}}
T, S, N, F = 5, 7, 3, 4


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("--device") == "cuda":
        yield
    else:
        with on_device.stand_in():
            yield


def lifted(value: Any) -> Any:
    """Copy an array to the GPU, whatever its type."""
    return devices.get("cuda").upload(value) if isinstance(value, np.ndarray) else value


def floats(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(0, 6, shape)


def given(*shapes: tuple[int, ...]) -> Callable[[str], list[np.ndarray]]:
    return lambda dtype: [floats(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)]


def encoder(**options: Any) -> Any:
    return nn.TransformerEncoder(F, 2, 2, dim_feedforward=6, seed=3, **options)


def vectors(options: Any, **more: Any) -> Any:
    return nn.Embedding.from_vectors(floats(6, F), **more, **options)


# What each is made by, what goes in, and what goes in by name.
MODULES: dict[str, tuple[Callable[..., Any], Callable[[str], list], dict[str, Any]]] = {
    "linear": (lambda **o: nn.Linear(F, 3, seed=1, **o), given((T, N, F)), {}),
    "linear of a turned array": (
        lambda **o: nn.Linear(F, 3, bias=False, seed=1, **o),
        lambda dtype: [floats(F, N, T, dtype=dtype).T],
        {},
    ),
    "layer norm": (lambda **o: nn.LayerNorm(F, **o), given((T, N, F)), {}),
    "dropout": (lambda **o: nn.Dropout(0.4, seed=2, **o), given((T, N, F)), {}),
    "variational dropout": (
        lambda **o: nn.Dropout(0.4, variational=True, seed=2, **o), given((T, N, F)), {},
    ),
    "embedding": (lambda **o: nn.Embedding(6, F, seed=1, **o), lambda _: [integers(T, N)], {}),
    "embedding of few": (
        lambda **o: nn.Embedding(40, F, 2, seed=1, **o), lambda _: [integers(30)], {},
    ),
    "embedding of none": (
        lambda **o: nn.Embedding(6, F, seed=1, **o), lambda _: [integers(0, 2)], {},
    ),
    "frozen vectors": (lambda **o: vectors(o), lambda _: [integers(T, N)], {}),
    "trained vectors": (lambda **o: vectors(o, freeze=False), lambda _: [integers(T, N)], {}),
    "one-hot": (lambda **o: nn.Embedding.one_hot(6, 1, **o), lambda _: [integers(T, N)], {}),
    "positions": (
        lambda **o: nn.PositionalEncoding(F, 0.2, seed=1, **o), given((T, N, F)), {},
    ),
    "dot": (
        lambda **o: nn.Attention("dot", scaled=True, **o), given((T, N, F), (S, N, F)),
        {"lengths": [7, 0, 3]},
    ),
    "dot of one step with values": (
        lambda **o: nn.Attention("dot", **o), given((N, F), (S, N, F), (S, N, 2)), {},
    ),
    "general": (
        lambda **o: nn.Attention("general", F, 3, batch_first=True, seed=1, **o),
        given((N, T, F), (N, S, 3)), {"lengths": [7, 2, 3]},
    ),
    "additive": (
        lambda **o: nn.Attention("additive", F, 3, 5, seed=1, **o), given((T, N, F), (S, N, 3)),
        {"lengths": [7, 2, 3]},
    ),
    "heads": (
        lambda **o: nn.MultiHeadAttention(F, 2, 0.3, seed=1, **o), given((T, N, F)),
        {"lengths": [5, 2, 0], "causal": True},
    ),
    "heads over another": (
        lambda **o: nn.MultiHeadAttention(F, 2, kdim=3, vdim=2, seed=1, **o),
        given((T, N, F), (S, N, 3), (S, N, 2)), {"lengths": [7, 2, 3]},
    ),
    "encoder": (encoder, given((T, N, F)), {"lengths": [5, 2, 3]}),
    "gelu encoder": (
        lambda **o: encoder(activation="gelu", norm_first=True, **o), given((T, F)), {"lengths": 4},
    ),
    "decoder": (
        lambda **o: nn.TransformerDecoder(F, 2, 2, dim_feedforward=6, seed=3, **o),
        given((T, N, F), (S, N, F)), {"lengths": [5, 2, 3], "memory_lengths": [7, 1, 4]},
    ),
}  # fmt: skip


def trained(module: Any, inputs: list[Any], named: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return a call's result, forward's, backward's and the gradients."""
    with no_read_back():
        called = module(*inputs, **named)
        y = module.forward(*inputs, **named)
        dy = floats(*y.shape, dtype=y.dtype.name, seed=9)
        dx = module.backward(dy if type(y) is np.ndarray else lifted(dy))
    return called, y, dx, dict(module.grads)


def assert_alike(got: Any, expected: Any, dtype: str) -> None:
    """Compare what came from a GPU with what came from the CPU, however both nest."""
    if expected is None:
        assert got is None
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        assert_alike(tuple(got.values()), tuple(expected.values()), dtype)
    elif isinstance(expected, tuple | list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other, dtype)
    else:
        assert not isinstance(got, np.ndarray)
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        np.testing.assert_allclose(down(got), expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", MODULES)
def test_a_module_does_on_a_gpu_what_it_does_on_the_cpu(name: str, dtype: str) -> None:
    make, draw, named = MODULES[name]
    host = make(dtype=dtype)
    stir(host)
    other = make(dtype=dtype, device="cuda")
    other.load_state_dict(host.state_dict())
    assert (host.device, other.device) == ("cpu", "cuda:0")
    inputs = draw(dtype)
    expected = trained(host, inputs, named)
    assert_alike(trained(other, list(map(lifted, inputs)), named), expected, dtype)
    if hasattr(host, "weights"):
        assert_alike(other.weights, host.weights, dtype)


@pytest.mark.parametrize("name", ["dot", "heads", "encoder", "decoder"])
def test_lengths_may_lie_on_the_gpu(name: str) -> None:
    make, draw, named = MODULES[name]
    module, inputs = make(dtype="float64", device="cuda"), list(map(lifted, draw("float64")))
    known = {key: value for key, value in named.items() if "lengths" in key}
    there = {key: lifted(np.array(value)) for key, value in known.items()}
    first = module(*inputs, **named)
    with no_read_back():
        second = module(*inputs, **{**named, **there})
    np.testing.assert_array_equal(down(first), down(second))
    without = module(*inputs, **{key: value for key, value in named.items() if key not in known})
    assert not np.array_equal(down(first), down(without))


@pytest.mark.parametrize("name", ["embedding", "embedding of few"])
def test_indices_come_from_either_memory_and_those_of_the_gpu_are_kept_in_range(name: str) -> None:
    make, draw, _ = MODULES[name]
    table, x = make(device="cuda"), draw("float32")[0]
    np.testing.assert_array_equal(down(table(x)), down(table(lifted(x))))
    ends = table(lifted(np.array([-3, 99])))
    np.testing.assert_array_equal(down(ends), down(table(np.array([0, table.num_embeddings - 1]))))
    with pytest.raises(ValueError, match=r"x: expected 0 \.\. \d+, got 99"):
        table(np.array([99]))
    with pytest.raises(TypeError, match="x: expected integers, got float32"):
        table(lifted(np.ones(2, np.float32)))


def test_gradients_of_an_embedding_add_up_for_an_index_that_comes_often() -> None:
    table = nn.Embedding(5, 2, dtype="float64", device="cuda", seed=0)
    x = np.array([3] * 1000 + [0] + [4] * 17)
    dy = floats(len(x), 2)
    table.forward(lifted(x))
    table.backward(lifted(dy))
    expected = np.zeros((5, 2))
    np.add.at(expected, x, dy)
    np.testing.assert_allclose(down(table.grads["weight"]), expected, rtol=1e-11)


# --- losses ---------------------------------------------------------------------------------------

TAGS = np.array([[0, 3, -1], [2, 2, 1]])
WEIGHTS = [0.5, 2.0, 1.0, 0.25]
HALF = np.array([[True, False, True], [False, False, True]])
LOSSES: dict[str, tuple[Any, list[np.ndarray]]] = {
    "softmax": (nn.SoftmaxCrossEntropy(), [TAGS]),
    "softmax sum": (nn.SoftmaxCrossEntropy("sum"), [TAGS]),
    "softmax weighted": (nn.SoftmaxCrossEntropy(ignore_index=2, weight=WEIGHTS), [TAGS]),
    "softmax of nothing": (nn.SoftmaxCrossEntropy(), [np.full((2, 3), -1)]),
    "sigmoid": (
        nn.SigmoidCrossEntropy(weight=WEIGHTS, positive_weight=WEIGHTS), [floats(2, 3, 4) > 0],
    ),
    "sigmoid masked": (nn.SigmoidCrossEntropy(), [floats(2, 3, 4) > 0, HALF]),
    "squares": (nn.MeanSquaredError(), [floats(2, 3, 4, dtype="float32", seed=1)]),
    "squares masked": (
        nn.MeanSquaredError(), [floats(2, 3, 4, dtype="float32", seed=1), HALF],
    ),
    "squares summed": (
        nn.MeanSquaredError("sum"), [floats(2, 3, 4, dtype="float32", seed=1), HALF],
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("there", [False, True], ids=["host targets", "targets there"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_does_on_a_gpu_what_it_does_on_the_cpu(name: str, there: bool, dtype: str) -> None:
    loss, targets = LOSSES[name]
    prediction = floats(2, 3, 4, dtype=dtype)
    expected, called = loss.forward(prediction, *targets), loss(prediction, *targets)
    assert isinstance(expected, float)
    gradient = loss.backward()
    lent = list(map(lifted, targets)) if there else targets
    with no_read_back():
        value = loss.forward(lifted(prediction), *lent)
        made = loss.backward()
        inferred = loss(lifted(prediction), *lent)
    assert value.shape == ()
    assert value.dtype == np.float64
    np.testing.assert_allclose([float(value), float(inferred)], [expected, called], **CLOSE[dtype])
    assert_alike(made, gradient, dtype)


def test_targets_of_the_host_are_checked_and_those_of_the_gpu_kept_in_range() -> None:
    loss, logits = nn.SoftmaxCrossEntropy(), lifted(floats(2, 4))
    with pytest.raises(ValueError, match=r"target: expected .* \.\. 3, got 4"):
        loss(logits, [1, 4])
    assert float(loss(logits, lifted(np.array([1, 9])))) == float(loss(logits, [1, 3]))
    with pytest.raises(TypeError, match="target: expected integers, got float64"):
        loss(logits, lifted(floats(2)))
    with pytest.raises(TypeError, match="target: expected a NumPy array"):
        loss(floats(2, 4), lifted(np.array([1, 2])))


# --- moving, copying, refusing --------------------------------------------------------------------


class Tied(nn.Module):
    """Read and predict with one table, over a stack that ends in a module."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__("float64", device)
        options: Any = {"dtype": "float64", "device": device}
        self.embedding = nn.Embedding(6, F, seed=1, **options)
        self.network = Stack([
            nn.Dropout(0.3, seed=4, **options), GRU(F, 5, seed=2, **options),
            nn.LayerNorm(5, **options), nn.Linear(5, F, seed=3, **options),
        ])  # fmt: skip
        self.output = nn.Linear(F, 6, weight=self.embedding, seed=4, **options)

    def forward(self, x: Any, lengths: Any) -> Any:
        y = self.network.forward(self.embedding.forward(x), None, lengths)[0]
        return self.output.forward(y)

    def __call__(self, x: Any, lengths: Any) -> Any:
        return self.output(self.network(self.embedding(x), None, lengths)[0])

    def backward(self, dy: Any) -> None:
        self.embedding.backward(self.network.backward(self.output.backward(dy))[0])


TIED = [integers(T, N)], {"lengths": [5, 2, 4]}


@pytest.mark.parametrize("there", [False, True], ids=["host lengths", "lengths there"])
def test_a_model_of_a_stack_and_a_tied_weight_trains_alike_on_a_gpu(there: bool) -> None:
    inputs, named = TIED
    expected = trained(Tied(), inputs, named)
    lengths = lifted(np.array(named["lengths"])) if there else named["lengths"]
    got = trained(Tied("cuda"), list(map(lifted, inputs)), {"lengths": lengths})
    assert_alike(got, expected, "float64")


def moved_and_back(model: Any) -> Any:
    return model.to("cuda").to("cpu")


@pytest.mark.parametrize("name", [*MODULES, "tied"])
def test_a_module_moves_to_a_gpu_and_back_with_all_it_holds(name: str) -> None:
    make, draw, named = MODULES.get(name, (lambda dtype: Tied(), lambda _: TIED[0], TIED[1]))
    module, inputs = make(dtype="float64"), draw("float64")
    twin = copy.deepcopy(module)
    trained(module, inputs, named)
    trained(twin, inputs, named)
    before = {key: value.copy() for key, value in module.grads.items()}
    assert module.to("cuda") is module
    assert module.device == "cuda:0"
    everything = [*module.params.values(), *module.state_dict().values()]
    assert not any(isinstance(value, np.ndarray) for value in everything)
    assert_alike(dict(module.grads), before, "float64")
    expected = trained(twin, inputs, named)
    assert_alike(trained(module, list(map(lifted, inputs)), named), expected, "float64")
    module.to("cpu")
    assert module.device == "cpu"
    assert all(type(value) is np.ndarray for value in module.state_dict().values())
    again = trained(module, inputs, named)
    twice = trained(twin, inputs, named)
    np.testing.assert_allclose(again[1], twice[1], rtol=1e-11)


def test_a_tied_weight_stays_tied_wherever_the_model_goes() -> None:
    for model in (
        Tied("cuda"), Tied().to("cuda"), moved_and_back(Tied()), copy.deepcopy(Tied("cuda")),
        pickle.loads(pickle.dumps(Tied("cuda"))),
    ):  # fmt: skip
        assert model.output.weight is model.embedding.params["weight"]
        assert list(model.tied) == ["output.weight"]
        assert model.network.params["3.weight"] is model.network.layers[3].params["weight"]


def test_a_module_in_two_places_moves_once() -> None:
    shared = nn.Linear(3, 3, seed=0)
    model = nn.Module()
    model.first, model.stack, model.other = shared, Stack([shared]), Stack([shared])
    model.to("cuda")
    held = shared.params["weight"]
    assert model.stack.params["0.weight"] is held
    assert model.other.params["0.weight"] is held


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)
@pytest.mark.parametrize("name", MODULES)
def test_a_copy_is_on_the_gpu_too(name: str, copied: Callable[[Any], Any]) -> None:
    make, draw, named = MODULES[name]
    module, inputs = make(device="cuda", dtype="float64"), list(map(lifted, draw("float64")))
    other = copied(module)
    assert other.device == "cuda:0"
    first, second = trained(module, inputs, named), trained(other, inputs, named)
    np.testing.assert_array_equal(down(first[1]), down(second[1]))
    for key, grad in first[3].items():
        np.testing.assert_array_equal(down(grad), down(second[3][key]))


def test_a_forward_before_a_move_has_no_backward_after_it() -> None:
    layer = nn.Linear(F, 3, seed=0)
    layer.forward(floats(2, F, dtype="float32"))
    layer.to("cuda")
    with pytest.raises(RuntimeError, match="expected a forward"):
        layer.backward(lifted(floats(2, 3, dtype="float32")))


def test_nothing_moves_unasked() -> None:
    layer = nn.Linear(F, 3, seed=0, device="cuda")
    x = floats(2, F, dtype="float32")
    with pytest.raises(TypeError, match="x: expected a CuPy array of float32 on cuda:0, got a Num"):
        layer(x)
    layer.forward(lifted(x))
    with pytest.raises(TypeError, match="dy: expected a CuPy array of float32 on cuda:0"):
        layer.backward(floats(2, 3, dtype="float32"))
    for name in ("layer norm", "dropout", "positions", "dot", "heads", "encoder", "decoder"):
        make, draw, named = MODULES[name]
        with pytest.raises(TypeError, match=r"(x|query): expected a CuPy array"):
            make(device="cuda")(*draw("float32"), **named)
    with pytest.raises(TypeError, match="x: expected a NumPy array"):
        nn.Linear(F, 3, seed=0)(lifted(x))


def test_what_a_module_cannot_be_is_refused() -> None:
    table = nn.Embedding(6, F, seed=0)
    with pytest.raises(ValueError, match="weight: expected device cuda:0, got cpu"):
        nn.Linear(F, 6, weight=table, device="cuda")
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        nn.Linear(F, 6, device="gpu")
    with pytest.raises(NotImplementedError, match="dtype: float16 is for recurrent layers"):
        nn.Linear(F, 6, dtype="float16", device="cuda")
    output = nn.Linear(F, 6, weight=table, seed=1).to("cuda")
    with pytest.raises(RuntimeError, match="weight: expected its owner on cuda:0"):
        output(lifted(floats(2, F, dtype="float32")))
    stack = Stack([LSTM(F, 3, seed=0), nn.Linear(3, 2, seed=1)])
    with pytest.raises(ValueError, match=r"layers\[1\]: expected device cuda:0, got cpu"):
        Stack([LSTM(F, 3, device="cuda"), nn.Linear(3, 2)])
    stack.layers[1].to("cuda")
    with pytest.raises(RuntimeError, match="move the whole"):
        stack(floats(T, N, F, dtype="float32"))


def test_a_stack_with_modules_is_saved_loaded_and_frozen_on_a_gpu(tmp_path: Any) -> None:
    stack = Tied("cuda").network
    path = tmp_path / "stack.safetensors"
    rc.save(path, stack)
    loaded = rc.io.load(path, device="cuda")
    assert [layer.device for layer in loaded.layers] == ["cuda:0"] * 4
    assert {layer.device for layer in rc.io.load(path).layers} == {"cpu"}
    x = lifted(floats(T, N, F))
    expected = down(stack(x)[0])
    for other in (loaded, stack.freeze(), copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        np.testing.assert_array_equal(down(other(x)[0]), expected)
    with pytest.raises(NotImplementedError, match="stream"):
        stack.freeze().stream()
