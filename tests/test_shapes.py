"""Sizes: none, one, around every vector and tile edge, very long, very wide; and wrong ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import (
    CELLS,
    Case,
    assert_array_same_bits,
    assert_results_close,
    assert_same_bits,
    draw,
    input_masks,
    run_reference,
)
from engine import build, infer, train
from hypothesis import given
from hypothesis import strategies as st

import rnncore as rc
from rnncore import _rnncore

KINDS = [*CELLS, ("lstm", "projected")]
INPUTS = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33)


WIDE = [
    {"D": 4096, "H": 1},
    {"D": 1, "H": 1024},
    {"D": 1500, "H": 33},
    {"D": 530, "H": 40, "T": 20, "N": 29, "ragged": True},  # gradients in several blocks each way
]


def case_of(cell: str, kind: str, **options: object) -> Case:
    if kind == "projected":
        return Case(cell=cell, proj_size=options.get("H", 7) // 2, **options)
    return Case(cell=cell, nonlinearity=kind, **options)


@pytest.mark.parametrize(("T", "N"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_no_steps_or_no_rows_give_empty_outputs_and_the_states_back(cell, kind, T, N, isa) -> None:
    case = case_of(cell, kind, T=T, N=N, layers=2, bidirectional=True)
    problem = draw(case)
    for threads in (1, 3):
        with rc.threads(threads):
            results = train(case, problem)
            assert_results_close(results, run_reference(case, problem), "float32")
            assert_array_same_bits(results["hn"], problem.h0)
            assert_array_same_bits(results["dh0"], problem.dhn)
            for name in problem.params:
                assert (results[f"d {name}"] == 0).all()
            ragged = problem.but(lengths=np.zeros(N, int))
            assert_same_bits(train(case, ragged), results)


@pytest.mark.parametrize("changes", [{"input_size": 0}, {"hidden_size": 0}, {"num_layers": 0},
                                     {"input_size": -3}, {"hidden_size": -1}])  # fmt: skip
def test_a_layer_of_no_size_is_a_value_error_that_names_it(changes: dict[str, int]) -> None:
    for kind in (rc.RNN, rc.LSTM, rc.GRU):
        with pytest.raises(ValueError, match=next(iter(changes))):
            kind(**({"input_size": 2, "hidden_size": 3, "num_layers": 1} | changes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), CELLS)
def test_one_of_everything_equals_the_reference(cell: str, kind: str, dtype: str, isa: str) -> None:
    for seed in range(10):
        case = case_of(cell, kind, T=1, N=1, D=1, H=1, seed=seed, dtype=dtype)
        problem = draw(case)
        assert_results_close(train(case, problem), run_reference(case, problem), dtype)


def sweep(cell: str, kind: str, widths: range, combinations: list[tuple[int, int]]) -> int:
    runs = 0
    for H, (at, (D, N)) in itertools.product(widths, enumerate(combinations)):
        case = case_of(cell, kind, T=3, N=N, D=D, H=H, ragged=at % 3 == 2, seed=H)
        problem = draw(case)
        assert_results_close(train(case, problem), run_reference(case, problem), "float32")
        runs += 1
    return runs


@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_every_width_up_to_seventy_equals_the_reference(cell: str, kind: str, isa: str) -> None:
    """Each H meets nine pairs of D and N; nightly meets all ninety."""
    runs = 0
    for H in range(1, 71):
        pairs = [(INPUTS[(H + N) % len(INPUTS)], N) for N in range(1, 10)]
        runs += sweep(cell, kind, range(H, H + 1), pairs)
    assert runs == 630


@pytest.mark.nightly
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_every_width_input_and_batch_equals_the_reference(cell: str, kind: str, isa: str) -> None:
    pairs = list(itertools.product(INPUTS, range(1, 10)))
    assert sweep(cell, kind, range(1, 71), pairs) == 6300


@pytest.mark.parametrize("H", [63, 64, 65, 95, 96, 97, 127, 128, 129, 192, 255, 256, 257])
def test_widths_around_panels_and_thresholds_give_one_result(H: int) -> None:
    for cell, kind in (("lstm", "tanh"), ("gru", "tanh")):
        case = case_of(cell, kind, T=3, N=5, D=11, H=H)
        problem = draw(case)
        with rc.threads(1):
            expected = train(case, problem)
        assert_results_close(expected, run_reference(case, problem), "float32")
        for threads in (2, 3, 8):
            with rc.threads(threads):
                assert_same_bits(train(case, problem), expected)


@pytest.mark.parametrize("sizes", WIDE, ids=str)
@pytest.mark.parametrize(("cell", "kind"), [("lstm", "tanh"), ("gru", "tanh"), ("rnn", "tanh")])
def test_narrow_and_wide_together_equal_the_reference(cell, kind, sizes, isa) -> None:
    case = case_of(cell, kind, **({"T": 3, "N": 3} | sizes))
    problem = draw(case)
    assert_results_close(train(case, problem), run_reference(case, problem), "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cell", "kind"), KINDS)
def test_four_layers_both_ways_equal_the_reference_in_every_gradient(cell, kind, dtype) -> None:
    for ragged in (False, True):
        case = case_of(cell, kind, T=5, N=3, D=13, H=6, layers=4, bidirectional=True,
                       ragged=ragged, dtype=dtype)  # fmt: skip
        problem = draw(case)
        assert_results_close(train(case, problem), run_reference(case, problem), dtype)


def test_a_hundred_thousand_steps_end_where_the_reference_ends() -> None:
    case = Case(cell="gru", T=100_000, N=1, D=2, H=4)
    problem = draw(case)
    results = infer(case, problem)
    start = problem.but(x=problem.x[:500], dy=problem.dy[:500])
    end = problem.but(x=problem.x[-500:], dy=problem.dy[-500:])
    first = run_reference(case.but(T=500), start)["y"]
    last = run_reference(case.but(T=500), end)[
        "y"
    ]  # after 300 steps the state's start is forgotten
    assert np.abs(results["y"][:500] - first).max() < 2e-5
    assert np.abs(results["y"][-200:] - last[-200:]).max() < 2e-5
    assert np.abs(results["hn"][0] - last[-1]).max() < 2e-5
    assert np.isfinite(train(case, problem)["d weight_hh_l0"]).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_seventy_thousand_rows_equal_the_reference(threads: int) -> None:
    case = Case(T=2, N=70_000, D=1, H=1)
    problem = draw(case)
    with rc.threads(threads):
        assert_results_close(train(case, problem), run_reference(case, problem), "float32")


@pytest.mark.nightly
def test_more_than_two_to_the_thirty_one_gates_are_indexed_right() -> None:
    case = Case(T=70, N=500_000, D=1, H=16, states=False)  # 4 H N T = 2.24e9
    layer = build(case, draw(case.but(T=1, N=1)))
    last = np.float32([[[0.25]], [[-1.5]]])
    x = np.broadcast_to(np.float32(0.5), (70, 500_000, 1)).copy()
    x[-2:, -1:] = last
    y, (hn, _) = layer(x)
    alone, (hn_alone, _) = layer(x[:, -1:])
    assert_array_same_bits(y[:, -1:], alone)
    assert_array_same_bits(hn[:, -1:], hn_alone)


@given(
    cell_kind=st.sampled_from(KINDS),
    T=st.integers(0, 6),
    N=st.integers(0, 20),
    D=st.integers(1, 40),
    H=st.integers(1, 80),
    layers=st.integers(1, 3),
    flags=st.tuples(*[st.booleans()] * 5),
    threads=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_configuration_equals_the_reference(
    cell_kind, T, N, D, H, layers, flags, threads, seed
) -> None:
    names = ("bidirectional", "bias", "batch_first", "ragged", "states")
    case = case_of(*cell_kind, T=T, N=N, D=D, H=H, layers=layers, seed=seed,
                   **dict(zip(names, flags, strict=True)))  # fmt: skip
    problem = draw(case)
    with rc.threads(threads):
        assert_results_close(train(case, problem), run_reference(case, problem), "float32")


def test_masks_at_the_border_equal_the_reference(isa: str) -> None:
    from engine import train_at_the_border

    rng = np.random.default_rng(4)
    for (cell, kind), ragged in itertools.product(KINDS, (False, True)):
        case = case_of(cell, kind, T=5, N=6, D=9, H=18, layers=3, bidirectional=True, ragged=ragged)
        problem, features = draw(case), case.spec.features
        masks = [
            (2 * rng.integers(0, 2, (5, 6, 9))).astype("f4"),
            None,
            np.broadcast_to(
                (4 * rng.integers(0, 2, (1, 6, features))).astype("f4"), (5, 6, features)
            ),
        ]
        problem.masks = input_masks(case, masks)
        expected = run_reference(case, problem)
        assert_results_close(train_at_the_border(case, problem), expected, "float32")
        for threads in (2, 3):
            assert_same_bits(
                train_at_the_border(case, problem, threads=threads),
                train_at_the_border(case, problem),
            )


WRONG = {
    "two axes of a batch first layer": lambda p: {"x": p.x[0, 0]},
    "four axes": lambda p: {"x": p.x[None]},
    "features": lambda p: {"x": p.x[:, :, 1:]},
    "h0 of another batch": lambda p: {"state": (p.h0[:, 1:], p.c0)},
    "h0 of one row": lambda p: {"state": (p.h0[:, :1], p.c0)},
    "c0 of another size": lambda p: {"state": (p.h0, p.c0[:, :, 1:])},
    "h0 of five axes": lambda p: {"state": (p.h0[None, None], p.c0)},
    "too few layers in h0": lambda p: {"state": (p.h0[:1], p.c0)},
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_shapes_are_value_errors_that_change_nothing(what: str) -> None:
    case = Case(layers=2)
    p = draw(case)
    layer = build(case, p)
    expected = train(case, p, layer)
    before = {name: value.copy() for name, value in layer.grads.items()}
    arguments = {"x": p.x, "state": (p.h0, p.c0)} | WRONG[what](p)
    named = "x" if "x" in WRONG[what](p) else r"state|h0|c0"
    for call in (layer, layer.forward, layer.record, layer.freeze()):
        with pytest.raises(ValueError, match=named) as error:
            call(**arguments)
        assert "expected" in str(error.value)
        assert "got" in str(error.value)
    assert_same_bits(dict(layer.grads), before)
    assert_same_bits(train(case, p, layer), expected)


def test_half_a_state_is_an_error() -> None:
    case = Case()
    p = draw(case)
    layer = build(case, p)
    for state in (p.h0, (p.h0,), (p.h0, None), (p.h0, p.c0, p.c0)):
        with pytest.raises((ValueError, TypeError), match=r"state|h0|c0"):
            layer(p.x, state)


def test_wrong_shapes_of_outer_gradients_are_value_errors() -> None:
    case = Case(layers=2)
    p = draw(case)
    layer = build(case, p)
    layer.zero_grad()
    layer.forward(p.x, (p.h0, p.c0))
    for dy, dstate in [
        (p.dy[1:], None),
        (p.dy[:, :, :-1], None),
        (p.dy[None], None),
        (p.dy, (p.dhn[:, 1:], p.dcn)),
        (p.dy, (p.dhn, p.dcn[:1])),
    ]:
        with pytest.raises(ValueError, match=r"dy|dstate|dh|dc"):
            layer.backward(dy, dstate)
    assert all((value == 0).all() for value in layer.grads.values())
    dx, _ = layer.backward(p.dy, (p.dhn, p.dcn))
    assert_same_bits({"dx": dx}, {"dx": train(case, p)["dx"]})


@pytest.mark.host_only
def test_wrong_types_are_type_errors() -> None:
    case = Case(cell="gru")
    p = draw(case)
    layer = build(case, p)
    for x in (
        p.x.astype("f8"),
        p.x.astype("f2"),
        p.x.astype("i4"),
        p.x > 0,
        p.x.astype("c8"),
        p.x.astype(">f4"),
        p.x.astype(object),
        p.x.tolist(),
        np.ma.masked_array(p.x, p.x > 0),
        None,
        "x",
    ):
        with pytest.raises(TypeError, match="x"):
            layer(x)
    with pytest.raises(TypeError, match=r"state|h0"):
        layer(p.x, p.h0.astype("f8"))
    layer.forward(p.x)
    with pytest.raises(TypeError, match="dy"):
        layer.backward(p.dy.astype("f8"))


def test_a_tape_of_another_layer_is_an_error_and_a_spent_one_too() -> None:
    case = Case()
    p = draw(case)
    layer, other = build(case, p), build(case.but(H=9), draw(case.but(H=9)))
    _, _, tape = layer.record(p.x, (p.h0, p.c0))
    with pytest.raises((RuntimeError, ValueError), match="tape"):
        other.backward(p.dy, tape=tape)
    layer.backward(p.dy, tape=tape)
    with pytest.raises(RuntimeError, match="tape"):
        layer.backward(p.dy, tape=tape)


def test_backward_without_forward_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="forward"):
        build(Case(), draw(Case())).backward(draw(Case()).dy)


def test_instruction_sets_are_listed_lowest_first() -> None:
    order = ["baseline", "avx2", "avx512"]
    supported = _rnncore.supported_isas()
    assert supported == [name for name in order if name in supported]
    assert set(supported) <= set(_rnncore.compiled_isas())
    with pytest.raises(ValueError, match="avx1024"):
        _rnncore.set_isa("avx1024")
