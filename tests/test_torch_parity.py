"""rnncore.torch beside torch.nn: the same results and the same gradients, whatever is asked."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings
from torch_modules import LAYERS, assert_close, parts, run, torch, twins

import rnncore.torch as rt

# Two float64 implementations that sum in different orders.
DOUBLE = {"rtol": 1e-10, "atol": 1e-11}
SINGLE = {"rtol": 2e-4, "atol": 2e-5}


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    """Return a constructor's arguments, a call's form and what requires gradients."""
    cell = draw(st.sampled_from(["rnn", "lstm", "gru"]))
    hidden = draw(st.sampled_from([1, 2, 5, 15, 16, 17, 33]))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if cell == "rnn":
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if cell == "lstm" and hidden > 1:
        options["proj_size"] = draw(st.integers(0, hidden - 1))
    return {
        "cell": cell,
        "sizes": (draw(st.sampled_from([1, 3, 16, 17])), hidden),
        "options": options,
        "form": draw(st.sampled_from(["batch", "single", "sorted", "unsorted", "strided"])),
        "T": draw(st.integers(1, 7)),
        "N": draw(st.integers(1, 5)),
        "state": draw(st.booleans()),
        "needs": draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
        "frozen": draw(st.sets(st.integers(0, 7))),
        "seed": draw(st.integers(0, 999)),
    }


def draw_inputs(c: dict[str, Any]) -> tuple[Any, Any]:
    """Return input and state of a configuration, in float64."""
    torch.manual_seed(c["seed"])
    options, (inputs, hidden), T, N = c["options"], c["sizes"], c["T"], c["N"]
    rows = options["num_layers"] * (1 + options["bidirectional"])
    outputs = options.get("proj_size") or hidden
    x_needs, *needs = c["needs"]
    single, packed = c["form"] == "single", c["form"] in ("sorted", "unsorted")
    batch = () if single else (N,)
    outer = (T,) if single else (N, T) if options["batch_first"] else (T, N)
    x = torch.randn(*outer, inputs, dtype=torch.float64)
    if c["form"] == "strided":
        x = torch.randn(*outer, 2 * inputs + 1, dtype=torch.float64)[..., 1::2]
    x = x.detach().requires_grad_(x_needs and not packed)
    widths = (outputs, hidden) if c["cell"] == "lstm" else (outputs,)
    state = [
        torch.randn(rows, *batch, width, dtype=torch.float64).requires_grad_(need)
        for width, need in zip(widths, needs, strict=False)
    ]
    if packed:
        lengths = torch.randint(1, T + 1, (N,))
        lengths[N // 2] = T
        if c["form"] == "sorted":
            lengths = lengths.sort(descending=True).values
        x = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths, options["batch_first"], c["form"] == "sorted"
        )
    hx = (tuple(state) if c["cell"] == "lstm" else state[0]) if c["state"] else None
    return x, hx


@settings(max_examples=150)
@given(configurations())
@example(
    {
        "cell": "lstm", "sizes": (3, 17), "form": "unsorted", "T": 6, "N": 5, "state": True,
        "options": {
            "num_layers": 2, "bias": True, "batch_first": True, "bidirectional": True,
            "proj_size": 5,
        },
        "needs": (True, True, True), "frozen": set(), "seed": 1,
    }
)  # fmt: skip
def test_results_and_gradients_equal_torchs(c: dict[str, Any]) -> None:
    theirs, ours = twins(c["cell"], *c["sizes"], **c["options"], dtype=torch.float64)
    for module in (theirs, ours):
        for i, parameter in enumerate(module.parameters()):
            parameter.requires_grad_(i % 8 not in c["frozen"])
    given_x, hx = draw_inputs(c)
    needed = [t for t in (given_x, *parts(hx)) if torch.is_tensor(t) and t.requires_grad]
    if not needed and not any(p.requires_grad for p in ours.parameters()):
        return
    assert_close(run(ours, given_x, hx), run(theirs, given_x, hx), **DOUBLE)


@pytest.mark.parametrize("cell", LAYERS)
def test_a_packed_sequence_stays_packed_the_same_way(cell: str) -> None:
    theirs, ours = twins(cell, 3, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.randn(6, 3, 3), [2, 6, 4], enforce_sorted=False
    )
    expected, actual = theirs(packed)[0], ours(packed)[0]
    for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(actual, field), getattr(expected, field))
    torch.testing.assert_close(actual.data, expected.data, **SINGLE)


@pytest.mark.parametrize("cell", LAYERS)
def test_gradients_reach_what_was_packed(cell: str) -> None:
    theirs, ours = twins(cell, 3, 4, dtype=torch.float64)
    x = torch.randn(6, 3, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for module in (theirs, ours):
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, [2, 6, 4], enforce_sorted=False)
        found.append(torch.autograd.grad(module(packed)[0].data.square().sum(), x)[0])
    torch.testing.assert_close(found[1], found[0], **DOUBLE)


@pytest.mark.parametrize("cell", LAYERS)
def test_float32_results_equal_torchs_to_rounding(cell: str) -> None:
    theirs, ours = twins(cell, 20, 33, 2, bidirectional=True)
    x = torch.randn(9, 4, 20, requires_grad=True)
    assert_close(run(ours, x), run(theirs, x), **SINGLE)


@pytest.mark.parametrize("cell", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (3,)])
@pytest.mark.parametrize("with_state", [True, False])
def test_cells_in_a_loop_equal_torchs(cell, bias, shape, with_state) -> None:
    theirs, ours = twins(cell, 3, 17, bias, dtype=torch.float64)
    xs = torch.randn(4, *shape, dtype=torch.float64, requires_grad=True)
    first = torch.randn(2, *shape[:-1], 17, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (theirs, ours):
        h = (tuple(first) if cell == "LSTMCell" else first[0]) if with_state else None
        for x_t in xs:
            h = module(x_t, h)
        loss = sum((i + 1) * part.sin().sum() for i, part in enumerate(parts(h)))
        leaves = [xs, *([first] if with_state else []), *module.parameters()]
        results.append([*parts(h), *torch.autograd.grad(loss, leaves)])
    assert_close(results[1], results[0], **DOUBLE)


def test_the_relu_cell_equals_torchs() -> None:
    theirs, ours = twins("RNNCell", 3, 5, nonlinearity="relu")
    x = torch.randn(4, 3)
    torch.testing.assert_close(ours(x), theirs(x), **SINGLE)


@pytest.mark.parametrize("cell", LAYERS)
def test_a_loss_on_a_state_alone_gives_torchs_gradients(cell: str) -> None:
    theirs, ours = twins(cell, 3, 5, 2, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    found = []
    for module in (theirs, ours):
        state = parts(module(x)[1])
        found.append(torch.autograd.grad(state[-1].sin().sum(), list(module.parameters())))
    assert_close(list(found[1]), list(found[0]), **DOUBLE)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
def test_empty_sequences_and_batches_give_empty_results_and_zero_gradients(cell, shape) -> None:
    module = getattr(rt, LAYERS[cell])(3, 5, 2)
    x = torch.zeros(shape, requires_grad=True)
    hx = torch.randn(2, shape[1], 5)
    y, state = module(x, (hx, hx) if cell == "lstm" else hx)
    assert y.shape == (*shape[:2], 5)
    if shape[0] == 0:
        assert torch.equal(parts(state)[0], hx)
    y.sum().backward()
    assert x.grad.shape == shape
    assert all(torch.count_nonzero(p.grad) == 0 for p in module.parameters())


@pytest.mark.parametrize("cell", LAYERS)
def test_dropout_drops_between_layers_as_often_as_asked(cell: str) -> None:
    module = getattr(rt, LAYERS[cell])(4, 64, 2, dropout=0.25)
    torch.manual_seed(3)
    masks = module._draw_masks(torch.zeros(200, 8, 4), False)
    between = masks[1]
    assert masks[0].dim() == 1
    assert between.shape == (200, 8, 64)
    values = torch.unique(between)
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.75]))
    assert abs((between == 0).float().mean().item() - 0.25) < 0.005  # 3.7 standard deviations


@pytest.mark.parametrize("cell", LAYERS)
def test_dropout_follows_torchs_seed_and_stops_in_eval(cell: str) -> None:
    theirs, ours = twins(cell, 3, 8, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    torch.manual_seed(1)
    first = ours(x)[0]
    torch.manual_seed(1)
    assert torch.equal(ours(x)[0], first)
    assert not torch.equal(ours(x)[0], first)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0], **SINGLE)


def test_all_is_dropped_between_layers_where_dropout_is_one() -> None:
    theirs, ours = twins("gru", 3, 4, 2, dropout=1.0)
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], **SINGLE)
