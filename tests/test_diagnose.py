"""Diagnostics: gradients by time, norms, spectra, and the experiments that show them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore import diagnose, nn


@pytest.mark.parametrize("make", [rc.RNN, rc.GRU, rc.LSTM])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradient_flow_is_the_derivative_by_the_state(make: type, batch_first: bool) -> None:
    layer = make(3, 4, 2, batch_first=batch_first, dtype="float64", seed=0)
    draw = np.random.default_rng(0)
    x, dy = draw.standard_normal((6, 1, 3)), np.zeros((6, 1, 4))
    dy[-1] = draw.standard_normal((1, 4))
    given = (x.swapaxes(0, 1), dy.swapaxes(0, 1)) if batch_first else (x, dy)
    before = {name: value.copy() for name, value in layer.grads.items()}
    flow = diagnose.gradient_flow(layer, *given)
    for name, value in layer.grads.items():
        np.testing.assert_array_equal(value, before[name])

    plain = make(3, 4, 2, dtype="float64", seed=0)
    state = None
    for t in range(1, 6):
        _, state = plain(x[t - 1 : t], state)
        plain.forward(x[t:], state)
        _, dstate = plain.backward(dy[t:])
        for name, part in zip("hc", dstate if make is rc.LSTM else (dstate,), strict=False):
            expected = np.sqrt((part[:, 0] ** 2).sum(axis=1))
            np.testing.assert_allclose(flow[name][t], expected, rtol=1e-12)
    assert flow["h"].shape == (6, 2)


def test_gradient_flow_leaves_a_stateful_layer_with_dropout_as_it_was() -> None:
    layer = rc.LSTM(3, 4, 2, dropout=0.5, stateful=True, seed=0)
    x = np.ones((5, 2, 3), np.float32)
    layer.forward(x)
    state, rng = layer.state, layer.rng_state
    diagnose.gradient_flow(layer, x, np.ones((5, 2, 4), np.float32))
    assert layer.rng_state == rng
    for ours, before in zip(layer.state, state, strict=True):
        np.testing.assert_array_equal(ours, before)


@pytest.mark.parametrize("make", [rc.GRU, rc.LSTM])
def test_gradient_flow_of_two_directions_is_the_derivative_by_the_state(make: type) -> None:
    layer = make(3, 4, 2, bidirectional=True, dtype="float64", seed=0)
    draw = np.random.default_rng(0)
    x, dy = draw.standard_normal((2, 5, 1, 8))
    x = np.ascontiguousarray(x[:, :, :3])
    flow = diagnose.gradient_flow(layer, x, dy)["h"]
    assert flow.shape == (5, 4)
    layer.forward(x)
    _, dstate = layer.backward(dy)
    dh = dstate[0] if make is rc.LSTM else dstate
    sizes = np.sqrt((dh[:, 0] ** 2).sum(axis=1))
    # A forward direction starts at step 0, a reverse one at the last.
    np.testing.assert_allclose([flow[0, 0], flow[-1, 1], flow[0, 2], flow[-1, 3]], sizes)


def test_gradient_flow_of_a_stack_is_that_of_its_layers_run_apart() -> None:
    first, second = rc.LSTM(3, 4, dtype="float64", seed=0), rc.GRU(4, 5, dtype="float64", seed=1)
    draw = np.random.default_rng(0)
    x, dy = draw.standard_normal((6, 2, 3)), draw.standard_normal((6, 2, 5))
    flow = diagnose.gradient_flow(rc.Stack([first, second]), x, dy)
    y, _ = first.forward(x)
    second.forward(y)
    between, _ = second.backward(dy)
    upper = diagnose.gradient_flow(second, y, dy)
    lower = diagnose.gradient_flow(first, x, between)
    np.testing.assert_allclose(flow["h"][:, 0], lower["h"][:, 0])
    np.testing.assert_allclose(flow["h"][:, 1], upper["h"][:, 0])
    np.testing.assert_allclose(flow["c"][:, 0], lower["c"][:, 0])
    assert np.isnan(flow["c"][:, 1]).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradient_flow_of_rows_with_lengths_is_the_mean_of_rows_alone(bidirectional: bool) -> None:
    layer = rc.GRU(2, 3, bidirectional=bidirectional, dtype="float64", seed=0)
    draw, lengths = np.random.default_rng(0), [5, 2, 0]
    x, dy = draw.standard_normal((5, 3, 2)), draw.standard_normal((5, 3, layer.output_size))
    flow = diagnose.gradient_flow(layer, x, dy, lengths=lengths)["h"]
    alone = [
        diagnose.gradient_flow(layer, x[:n, i : i + 1], dy[:n, i : i + 1])["h"]
        for i, n in enumerate(lengths)
    ]
    np.testing.assert_allclose(flow[:2], (alone[0][:2] + alone[1]) / 2)
    np.testing.assert_allclose(flow[2:], alone[0][2:])
    shorter = diagnose.gradient_flow(layer, x, dy, lengths=[2, 2, 0])["h"]
    assert np.isnan(shorter[2:]).all()


def test_gradient_flow_starts_where_it_is_told() -> None:
    layer = rc.LSTM(2, 3, 2, dtype="float64", seed=0)
    draw = np.random.default_rng(0)
    x, dy = draw.standard_normal((4, 1, 2)), draw.standard_normal((4, 1, 3))
    state = tuple(draw.standard_normal((2, 1, 3)) for _ in range(2))
    layer.forward(x, state)
    _, (dh, dc) = layer.backward(dy)
    flow = diagnose.gradient_flow(layer, x, dy, state)
    np.testing.assert_allclose(flow["h"][0], np.linalg.norm(dh[:, 0], axis=1))
    np.testing.assert_allclose(flow["c"][0], np.linalg.norm(dc[:, 0], axis=1))


def test_gradient_flow_refuses_what_it_cannot_take_apart() -> None:
    x, dy = np.ones((2, 1, 3), np.float32), np.ones((2, 1, 8), np.float32)
    with pytest.raises(TypeError, match=r"expected an RNN, LSTM or GRU.*got Bidirectional"):
        diagnose.gradient_flow(rc.Bidirectional(rc.GRU(3, 4, seed=0)), x, dy)
    with pytest.raises(ValueError, match=r"dy: expected \(T, N, 4\)"):
        diagnose.gradient_flow(rc.GRU(3, 4, seed=0), x, dy)
    with pytest.raises(ValueError, match="state: expected 1 entries, got 2"):
        diagnose.gradient_flow(rc.GRU(3, 4, seed=0), x, dy[:, :, :4], [None, None])


def test_parameter_norms_are_numpys() -> None:
    layer = rc.GRU(5, 70, seed=0)
    for name, grad in layer.grads.items():
        grad[...] = 2 * layer.params[name]
    for name, norms in diagnose.parameter_norms(layer).items():
        expected = np.linalg.norm(layer.params[name].astype(np.float64))
        assert norms.value == pytest.approx(expected, rel=1e-12)
        assert norms.gradient == pytest.approx(2 * expected, rel=1e-12)
        assert norms.ratio == pytest.approx(2.0)


def test_recurrent_spectra_take_each_gate_by_itself() -> None:
    layer = rc.LSTM(3, 4, 2, bidirectional=True, dtype="float64", seed=0)
    spectra = diagnose.recurrent_spectra(layer)
    assert list(spectra) == [f"weight_hh_l{n}{d}" for n in (0, 1) for d in ("", "_reverse")]
    gate = layer.params["weight_hh_l1_reverse"][4:8]
    spectrum = spectra["weight_hh_l1_reverse"]["f"]
    np.testing.assert_allclose(
        spectrum.singular_values**2, np.sort(np.linalg.eigvalsh(gate @ gate.T))[::-1], atol=1e-12
    )
    assert spectrum.spectral_radius == pytest.approx(np.abs(np.linalg.eigvals(gate)).max())
    power = np.linalg.norm(np.linalg.matrix_power(gate, 400), 2) ** (1 / 400)
    assert spectrum.spectral_radius == pytest.approx(power, rel=0.02)


def test_recurrent_spectra_of_a_projection_map_units_to_units() -> None:
    layer = rc.LSTM(3, 6, proj_size=2, dtype="float64", seed=0)
    stack = rc.Stack([layer, rc.RNN(2, 3, dtype="float64", seed=1)])
    spectra = diagnose.recurrent_spectra(stack)
    assert list(spectra) == ["0.weight_hh_l0", "1.weight_hh_l0"]
    matrix = layer.params["weight_hh_l0"][12:18] @ layer.params["weight_hr_l0"]
    expected = np.abs(np.linalg.eigvals(matrix)).max()
    assert spectra["0.weight_hh_l0"]["g"].spectral_radius == pytest.approx(expected)


def test_step_ratio_tells_vanishing_from_exploding() -> None:
    assert diagnose.step_ratio(0.9 ** np.arange(50)[::-1]).kind == "vanishing"
    assert diagnose.step_ratio(1.1 ** np.arange(50)[::-1]).kind == "exploding"
    steady = diagnose.step_ratio(np.ones(5))
    assert (steady.kind, steady.per_step, steady.half_life) == ("steady", 1.0, np.inf)
    assert diagnose.step_ratio([np.nan, 0.0, 1.0, 4.0]).per_step == pytest.approx(0.25)
    with pytest.raises(ValueError, match="expected two that are finite"):
        diagnose.step_ratio([0.0, 1.0])
    with pytest.raises(ValueError, match=r"norms: expected \(T,\)"):
        diagnose.step_ratio(np.ones((3, 2)))


def test_a_plain_rnns_gradient_vanishes_below_radius_one_and_open_gates_keep_it() -> None:
    flows = diagnose.cell_flows()
    ratio = {name: diagnose.step_ratio(norms) for name, norms in flows.items()}
    assert ratio["RNN, radius 0.8"].per_step < 0.8
    assert ratio["RNN, radius 2"].kind == "exploding"
    assert ratio["GRU"].kind == ratio["LSTM"].kind == "vanishing"
    assert 0.9 < ratio["GRU, update bias 4"].per_step < 1.05
    assert 0.9 < ratio["LSTM, forget bias 4"].per_step < 1.05


def test_clipping_keeps_an_exploding_rnn_learning() -> None:
    runs = diagnose.clipping_runs()
    assert max(runs["unclipped"].losses) > 1e10
    assert len(runs["unclipped"].losses) < 300
    assert runs["clipped"].losses[-1] < 0.01 < runs["clipped"].losses[0]


def test_pictures_are_drawn_into_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    flow, picture = tmp_path / "flow.png", tmp_path / "remedies.png"
    norms = 0.5 ** np.arange(8.0)[::-1]
    assert diagnose.draw_gradient_flow(flow, {"two layers": np.stack([norms, 2 * norms], axis=1)})
    runs = diagnose.clipping_runs(updates=5)
    assert diagnose.draw_remedies(picture, {"RNN": norms}, runs)
    for path in (flow, picture):
        assert path.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.png"
    diagnose.draw_remedies(again, {"RNN": norms}, runs)
    assert again.read_bytes() == picture.read_bytes()


def test_without_matplotlib_no_picture_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not diagnose.draw_gradient_flow(tmp_path / "flow.png", {"RNN": np.ones(3)})
    assert not diagnose.draw_remedies(tmp_path / "flow.png", {"RNN": np.ones(3)}, {})
    assert not list(tmp_path.iterdir())


def test_a_parameter_of_two_names_is_measured_once() -> None:
    one = nn.Linear(2, 3, seed=0)
    assert list(diagnose.parameter_norms([one, one])) == ["0.weight", "0.bias"]
