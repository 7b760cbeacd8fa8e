"""rnncore.torch's modules: constructors, options, copies, files, errors, autocast."""

from __future__ import annotations

import inspect
import io
import pickle

import numpy as np
import pytest
from processes import output_of
from torch_modules import LAYERS, assert_same, copied, parts, run, torch

import rnncore as rc
import rnncore.torch as rt
from rnncore import functional
from rnncore.masks import Masks
from rnncore.torch import specification

CELLS = ["RNNCell", "LSTMCell", "GRUCell"]
CONSTRUCTIONS = {
    "RNN": [(3, 4), (3, 4, 2, "relu", False, True, 0.5, True), (3, 4, 1, "tanh", True)],
    "LSTM": [(3, 4), (3, 4, 2, False, True, 0.5, True, 2)],
    "GRU": [(3, 4), (3, 4, 2, False, True, 0.5, True)],
    "RNNCell": [(3, 4), (3, 4, False, "relu")],
    "LSTMCell": [(3, 4), (3, 4, False)],
    "GRUCell": [(3, 4), (3, 4, False)],
}
OPTIONS = {
    "rnn": {"layer_norm": True, "zoneout": 0.2, "clip": 2.0, "activations": ["Softsign"]},
    "lstm": {
        "peephole": True, "coupled": True, "layer_norm": True, "zoneout": (0.2, 0.1),
        "recurrent_dropout": 0.3, "variational": True, "dropout": 0.25, "clip": 2.0,
        "activations": ["Sigmoid", ("LeakyRelu", 0.1), "Tanh"], "recompute": True,
    },
    "gru": {"reset_after": False, "recurrent_dropout": 0.3, "zoneout": 0.2, "dropout": 0.3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "args"), [(n, a) for n, every in CONSTRUCTIONS.items() for a in every]
)
def test_constructor_initial_values_and_state_dict_are_torchs(name: str, args: tuple) -> None:
    torch.manual_seed(2)
    theirs = getattr(torch.nn, name)(*args, dtype=torch.float64)
    torch.manual_seed(2)
    ours = getattr(rt, name)(*args, dtype=torch.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_same(list(ours.state_dict().values()), list(theirs.state_dict().values()))
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict(ours.state_dict(), strict=True)


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_keywords_come_in_torchs_order(name: str) -> None:
    keywords = {
        "RNN": "num_layers nonlinearity bias batch_first dropout bidirectional device dtype",
        "LSTM": "num_layers bias batch_first dropout bidirectional proj_size device dtype",
        "GRU": "num_layers bias batch_first dropout bidirectional device dtype",
        "RNNCell": "bias nonlinearity device dtype",
    }.get(name, "bias device dtype")
    parameters = inspect.signature(getattr(rt, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["input_size", "hidden_size", *keywords.split()]


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("layers", [1, 2])
def test_options_compute_what_the_engines_layers_compute(cell: str, layers: int) -> None:
    options = {k: v for k, v in OPTIONS[cell].items() if k != "recompute"}
    if layers == 1 and not options.get("variational"):
        options.pop("dropout", None)
    ours = getattr(rt, LAYERS[cell])(3, 17, layers, bidirectional=True, **options)
    layer = getattr(rc, LAYERS[cell])(3, 17, layers, bidirectional=True, **options)
    assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in layer.state_dict().items()
    }
    layer.load_state_dict({k: v.numpy() for k, v in ours.state_dict().items()})
    x, resets = torch.randn(6, 3, 3), torch.rand(6, 3) < 0.2
    ours.eval()
    y, state = ours(x, lengths=[4, 0, 6], resets=resets)
    expected, final = layer(x.numpy(), lengths=[4, 0, 6], resets=resets.numpy())
    assert np.array_equal(y.detach().numpy(), expected)
    for ours_part, part in zip(parts(state), parts(final), strict=True):
        assert np.array_equal(ours_part.detach().numpy(), part)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("recompute", [False, True])
def test_training_drops_and_keeps_what_its_masks_say(cell: str, recompute: bool) -> None:
    options = OPTIONS[cell] | {"recompute": recompute}
    module = getattr(rt, LAYERS[cell])(3, 5, 2, batch_first=True, dtype=torch.float64, **options)
    drawn = []
    draw = module._draw_masks
    module._draw_masks = lambda *given: drawn.append(draw(*given)) or drawn[-1]
    x = torch.randn(3, 6, 3, dtype=torch.float64, requires_grad=True)
    y, _ = module(x)
    y.sin().sum().backward()
    entries = [None if mask.dim() == 1 else mask.numpy() for mask in drawn[0]]
    masks = Masks(*(entries[2 * i : 2 * i + 2] for i in range(4)))
    assert sum(entry is not None for entry in entries) >= 2
    spec = specification.read(module._spec(), torch.float64)
    params = {name: p.detach().numpy() for name, p in module.named_parameters()}
    time_major = np.ascontiguousarray(x.detach().numpy().swapaxes(0, 1))
    expected, _, tape = functional.forward(spec, params, time_major, masks=masks)
    assert np.array_equal(y.detach().numpy().swapaxes(0, 1), expected)
    dx, _, grads = functional.backward(spec, params, tape, np.cos(expected))
    np.testing.assert_allclose(x.grad.numpy().swapaxes(0, 1), dx, rtol=1e-12)
    for name, p in module.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), grads[name], rtol=1e-12, atol=1e-14)


def test_one_mask_a_sequence_is_the_same_at_every_step() -> None:
    module = rt.LSTM(4, 6, 2, dropout=0.5, variational=True, recurrent_dropout=0.5)
    inputs = module._draw_masks(torch.zeros(9, 3, 4), False)[:2]
    for mask, width in zip(inputs, (4, 6), strict=True):
        assert mask.shape == (9, 3, width)
        assert torch.equal(mask, mask[:1].expand(9, -1, -1))


def test_recompute_gives_the_same_bits_from_a_smaller_tape() -> None:
    tapes = []
    results = []
    for recompute in (False, True):
        torch.manual_seed(3)
        module = rt.LSTM(3, 20, 2, recompute=recompute)
        x = torch.randn(5, 2, 3, requires_grad=True)
        results.append(run(module, x))
        saved = module(x)[0].grad_fn.saved_tensors[0]
        tapes.append(saved.numel())
    assert_same(results[1], results[0])
    assert tapes[1] < tapes[0] / 2


def every_module() -> list[torch.nn.Module]:
    plain = [getattr(rt, name)(3, 4) for name in CONSTRUCTIONS]
    return plain + [getattr(rt, LAYERS[cell])(3, 4, 2, **OPTIONS[cell]) for cell in LAYERS]


def through_pickle(module: torch.nn.Module) -> torch.nn.Module:
    return pickle.loads(pickle.dumps(module))


def through_a_file(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_a_state_dict(module: torch.nn.Module) -> torch.nn.Module:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = copied(module)
    fresh.reset_parameters()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


@pytest.mark.parametrize(
    "through",
    [copied, through_pickle, through_a_file, through_a_state_dict],
    ids=lambda f: f.__name__,
)
def test_copies_give_the_same_bits_and_parameters_of_their_own(through) -> None:
    for module in every_module():
        module.eval()
        copy = through(module)
        assert type(copy) is type(module)
        assert repr(copy) == repr(module)
        cell = isinstance(module, torch.nn.RNNCellBase)
        x = torch.randn(2, 3) if cell else torch.randn(5, 2, 3)
        original, other = module(x), copy(x)
        first = [original[0] if isinstance(original, tuple) else original]
        assert_same([other[0] if isinstance(other, tuple) else other], first)
        assert {p.data_ptr() for p in copy.parameters()}.isdisjoint(
            p.data_ptr() for p in module.parameters()
        )


def test_repr_names_the_options_that_torch_lacks() -> None:
    module = rt.LSTM(3, 4, 2, peephole=True, zoneout=(0.1, 0.0), recompute=True)
    assert repr(module) == (
        "LSTM(3, 4, num_layers=2, peephole=True, zoneout=(0.1, 0.0), recompute=True)"
    )


def test_fresh_gains_are_one_and_shifts_zero_after_a_reset_too() -> None:
    module = rt.LSTM(3, 4, layer_norm=True)
    for _ in range(2):
        assert torch.equal(module.norm_ih_l0, torch.ones(16))
        assert torch.equal(module.norm_c_bias_l0, torch.zeros(4))
        with torch.no_grad():
            module.norm_ih_l0.add_(1.0)
        module.reset_parameters()


def test_a_module_may_change_its_dtype() -> None:
    module = rt.GRU(3, 4, layer_norm=True).double()
    assert module(torch.randn(5, 2, 3, dtype=torch.float64))[0].dtype == torch.float64


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_under_autocast_all_is_computed_in_float32(narrow: torch.dtype) -> None:
    module, x = rt.LSTM(3, 4), torch.randn(5, 2, 3)
    x = x.to(narrow).requires_grad_()
    hx = (torch.randn(1, 2, 4).to(narrow), torch.randn(1, 2, 4))
    with torch.autocast("cpu", dtype=narrow):
        y, (h, c) = module(x, hx)
    expected, _ = module(x.float(), tuple(part.float() for part in hx))
    assert y.dtype == h.dtype == c.dtype == torch.float32
    assert_same([y], [expected])
    y.sum().backward()
    assert x.grad.dtype == narrow
    with pytest.raises(TypeError, match=r"input: expected torch\.float32 .*, got torch\."):
        module(x)


X = torch.zeros(5, 2, 3)
WRONG = {
    "features": (lambda m: m(torch.zeros(5, 2, 4)), ValueError, r"input: expected \(T, N, 3\)"),
    "axes": (lambda m: m(torch.zeros(5, 2, 1, 3)), ValueError, "input: expected"),
    "no tensor": (lambda m: m(X.numpy()), TypeError, "input: expected a tensor, got ndarray"),
    "dtype": (lambda m: m(X.double()), TypeError, r"input: .*got torch\.float64"),
    "integers": (lambda m: m(X.long()), TypeError, r"input: .*got torch\.int64"),
    "state": (lambda m: m(X, torch.zeros(1, 3, 4)), ValueError, r"hx: expected \(1, 2, 4\)"),
    "state's dtype": (lambda m: m(X, torch.zeros(1, 2, 4).double()), TypeError, "hx: expected"),
    "long": (lambda m: m(X, lengths=[5, 6]), ValueError, "lengths: expected 0 to 5"),
    "negative": (lambda m: m(X, lengths=[5, -1]), ValueError, "lengths: expected 0 to 5"),
    "count": (lambda m: m(X, lengths=[5]), ValueError, r"lengths: expected \(2,\), got \(1,\)"),
    "fractions": (lambda m: m(X, lengths=[5.0, 2.0]), TypeError, "lengths: expected integers"),
    "resets": (
        lambda m: m(X, resets=torch.zeros(5, 2)),
        TypeError,
        r"resets: expected torch\.bool",
    ),
    "resets' shape": (
        lambda m: m(X, resets=torch.zeros(2, 5, dtype=torch.bool)),
        ValueError,
        r"resets: expected \(5, 2\), got \(2, 5\)",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_are_named(what: str) -> None:
    call, error, text = WRONG[what]
    with pytest.raises(error, match=text):
        call(rt.GRU(3, 4))


def test_a_state_that_is_no_pair_is_named() -> None:
    for module, x in ((rt.LSTM(3, 4), X), (rt.LSTMCell(3, 4), X[0])):
        with pytest.raises(ValueError, match=r"hx: expected a pair"):
            module(x, torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"hx\[1\]: expected \(1, 2, 4\), got \(1, 2, 3\)"):
        rt.LSTM(3, 4)(X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 3)))


def test_lengths_beside_a_packed_sequence_are_an_error() -> None:
    packed = torch.nn.utils.rnn.pack_padded_sequence(X, [5, 2])
    with pytest.raises(ValueError, match="lengths: expected None"):
        rt.GRU(3, 4)(packed, lengths=[5, 2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_that_are_not_computed_in_are_named(dtype: torch.dtype) -> None:
    with pytest.raises(NotImplementedError, match=f"input: .*got {dtype}"):
        rt.LSTM(3, 4, dtype=dtype)(X.to(dtype))


def test_shapes_alone_go_through_on_the_meta_device() -> None:
    module = rt.LSTM(3, 4, device="meta")
    y, (h, _) = module(X.to("meta"))
    assert (y.shape, h.shape, y.device.type) == ((5, 2, 4), (1, 2, 4), "meta")


def test_another_device_is_named(monkeypatch) -> None:
    class Elsewhere(torch.Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("xpu", 0)

    with pytest.raises(NotImplementedError, match=r"input: .*got one on xpu:0"):
        rt.LSTM(3, 4)(X.as_subclass(Elsewhere))


def test_rnncore_itself_does_not_import_torch() -> None:
    code = "import sys, rnncore, rnncore.train; print('torch' in sys.modules)"
    assert output_of(code) == "False"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: rt.LSTM(3, 4, zoneout=1.5), ValueError, "zoneout"),
        (lambda: rt.GRU(3, 4, zoneout=(0.1, 0.2)), ValueError, "zoneout: expected one"),
        (lambda: rt.LSTM(3, 4, clip=-1.0), ValueError, "clip"),
        (lambda: rt.LSTM(3, 4, recompute=2), TypeError, "recompute"),
        (lambda: rt.RNN(3, 4, nonlinearity="sine"), ValueError, "nonlinearity: expected"),
        (lambda: rt.RNNCell(3, 4, nonlinearity="sine"), ValueError, "nonlinearity: expected"),
        (
            lambda: rt.RNN(3, 4, nonlinearity="relu", activations=["Tanh"]),
            ValueError,
            "activations",
        ),
        (lambda: rt.GRU(3, 4, peephole=True), TypeError, "peephole"),
        (lambda: rt.LSTM(3, 4, variational=True, dropout=1.5), ValueError, "dropout"),
        (lambda: rt.LSTM(3, 4, dropout=1.5), ValueError, "dropout"),
    ],
)
def test_options_without_meaning_are_refused_at_construction(make, error, text) -> None:
    with pytest.raises(error, match=text):
        make()


def test_holding_what_is_no_module_is_an_error_that_says_so() -> None:
    with (
        pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got NoneType"),
        rt.hold(None),
    ):
        pass
