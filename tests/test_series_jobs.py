"""What the jobs on series stand on: no look ahead, ways back, baselines, tests of forecasts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


@pytest.fixture
def ts(module) -> ModuleType:
    return module("time_series")


def walk(count: int, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).standard_normal(count))


class Echo:
    """A model that forecasts what it saw at a step of its window, once for each step ahead."""

    def __init__(self, step: int, horizon: int) -> None:
        self.step, self.horizon = step, horizon

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.repeat(x[self.step][None, :, :1], self.horizon, axis=0)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("step", [-1, -4, 0])
def test_a_forecast_has_seen_the_window_before_its_first_target_and_is_in_the_series_unit(
    ts: ModuleType, relative: bool, step: int
) -> None:
    series = walk(1300).astype(np.float32)
    settings = ts.Settings(7, 3, relative=relative)
    made = ts.forecasts(Echo(step, 3), series[:, None], 500, settings)
    assert made.shape == ts.targets(series, 500, 3).shape == (798, 3)
    first = 500 + step if step < 0 else 500 - 7 + step
    np.testing.assert_allclose(made[:, 2], series[first : first + 798], rtol=1e-5, atol=1e-5)


def test_what_validates_is_not_learnt_from(ts: ModuleType) -> None:
    series = walk(120)[:, None]
    other = series.copy()
    other[90:] += 3.0
    settings = ts.Settings(5, hidden=4, epochs=1, relative=True)
    plain, changed = (ts.fit(each, 90, settings, seed=0) for each in (series, other))
    assert plain.validation != changed.validation
    for name, array in plain.model.params.items():
        assert np.array_equal(array, changed.model.params[name]), name


def test_windows_are_relative_to_the_last_value_seen_and_other_columns_stay(
    ts: ModuleType,
) -> None:
    series = np.stack([walk(30), np.arange(30.0)], axis=1)
    windows = ts.Windows(series, ts.Settings(4, 2, batch=3, relative=True), shuffle=False)
    inputs, targets = next(windows)
    last = series[3:6, 0]
    for n in range(3):
        np.testing.assert_allclose(inputs[:, n, 0], series[n : n + 4, 0] - last[n])
        np.testing.assert_array_equal(inputs[:, n, 1], series[n : n + 4, 1])
        np.testing.assert_allclose(targets[:, n, 0], series[n + 4 : n + 6, 0] - last[n])


def test_diebold_marianos_test_finds_a_better_forecast_and_no_difference_where_there_is_none(
    ts: ModuleType,
) -> None:
    draw = np.random.default_rng(3)
    alike = [
        ts.diebold_mariano(draw.standard_normal(400), draw.standard_normal(400)) for _ in range(200)
    ]
    assert 0.02 < np.mean(np.array(alike) < 0.05) < 0.11
    assert ts.diebold_mariano(draw.standard_normal(400), 2 * draw.standard_normal(400)) < 1e-6
    errors = draw.standard_normal(50)
    assert ts.diebold_mariano(errors, errors) == 1.0


def test_a_setting_can_be_tried_and_a_wrong_one_is_named(ts: ModuleType) -> None:
    plain = SimpleNamespace(quick=False, epochs=None, set=["hidden=9", "rate=0.5", "cell=GRU"])
    assert ts.changed(ts.Settings(5), plain) == ts.Settings(5, hidden=9, rate=0.5, cell="GRU")
    with pytest.raises(SystemExit, match="got depth=3"):
        ts.changed(ts.Settings(5), SimpleNamespace(quick=False, epochs=None, set=["depth=3"]))


# --- several steps --------------------------------------------------------------------------------


def test_the_choice_of_how_a_series_is_forecast_sees_no_test_part(module) -> None:
    steps = module("several_steps")
    values = np.sin(np.arange(300) / 2) + 0.1 * walk(300)
    spoilt = np.where(np.arange(300) < 240, values, 1e3)
    settings = steps.SMALL._replace(hidden=4, epochs=1)
    series = steps.Series("", "", 12, {6: None}, settings, windows=(6, 10))
    (view, chosen, reached), other = (steps.choose(series, v, 6, 0) for v in (values, spoilt))
    assert other == (view, chosen, reached)
    assert len(reached) == 2 * len(steps.VIEWS)
    assert min(reached, key=reached.get) == f"{view}, window {chosen.settings.steps}"


@pytest.mark.parametrize(("words", "alike"), [(["--quick"], True), (["--only", "sunspots"], False)])
def test_a_quick_forecast_prints_nothing_of_the_test_part(
    module, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path, words: list, alike: bool
) -> None:
    forecast = module("forecast")
    true, said = forecast.values_of, []
    options = ["--epochs", "1", "--seeds", "1", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["forecast.py", *words, *options])
    for change in (0.0, 50.0):

        def spoilt(*arguments, change=change):
            values = true(*arguments)
            return values + change * (np.arange(len(values)) >= int(0.8 * len(values)))

        monkeypatch.setattr(forecast, "values_of", spoilt)
        forecast.main()
        said.append(capsys.readouterr().out)
    assert "network" in said[0]
    assert (said[0] == said[1]) == alike


# --- prices ---------------------------------------------------------------------------------------


def test_prices_are_read_by_column_and_in_order_of_time(module, tmp_path: Path) -> None:
    prices = module("prices")
    newest_first = "# from there\n# Open,High,Low,Volume,Close\n1,2,3,4,30\n1,2,3,4,20\n1,2,3,4,10"
    (tmp_path / "goog_daily_732.csv").write_text(newest_first)
    (tmp_path / "wti_daily_usd.csv").write_text("Date,Price\n2020-04-17,18.31\n2020-04-20,-36.98\n")
    assert prices.closes(tmp_path, "GOOG").tolist() == [10, 20, 30]
    assert prices.closes(tmp_path, "WTI").tolist() == [18.31, -36.98]


@pytest.mark.parametrize(("changes", "logs"), [(False, False), (True, True), (True, False)])
def test_the_true_series_leads_back_to_the_true_prices(module, changes: bool, logs: bool) -> None:
    values = np.exp(0.1 * walk(50)) if logs else walk(50)
    view = module("prices").View(values, changes, logs)
    np.testing.assert_allclose(view.to_price(view.series[19:], 20), values[20:])
    rows = view.to_price(np.stack([view.series[19:30], 0 * view.series[19:30]]), 20)
    np.testing.assert_allclose(rows[0], values[20:31])
    if changes:
        np.testing.assert_allclose(rows[1], values[19:30])


def test_least_squares_finds_the_autoregression_that_made_a_series(module) -> None:
    classical = module("statistical_models")
    series = np.array([1.0, -2.0, *np.zeros(200)])
    for t in range(2, len(series)):
        series[t] = 0.3 + 1.2 * series[t - 1] - 0.9 * series[t - 2]
    np.testing.assert_allclose(classical.autoregression(series, 120, 2), series[120:])
    spoilt = series.copy()
    spoilt[150:] = 7.0  # after 120 nothing is learnt, but what is known is used
    made = classical.autoregression(spoilt, 120, 2)
    np.testing.assert_allclose(made[:31], classical.autoregression(series, 120, 2)[:31])
    assert made[-1] == pytest.approx(0.3 + 7.0 * (1.2 - 0.9))


def test_arima_finds_a_memory_and_its_tests_find_what_is_wrong(module) -> None:
    pytest.importorskip("statsmodels")
    classical, draw = module("statistical_models"), np.random.default_rng(5)
    noise = draw.standard_normal(900)
    noise[450:] *= 6 * np.abs(np.sin(np.arange(450) / 20))  # a variance that comes and goes
    changes = np.zeros(900)
    for t in range(1, 900):
        changes[t] = 0.6 * changes[t - 1] + noise[t]
    series = np.cumsum(changes)
    arima = classical.Arima(series, 800)
    made = arima.forecast(800, 900)
    expected = series[799:899] + 0.6 * changes[799:899]
    assert np.abs(made - expected).mean() < 0.25 * np.abs(made - series[799:899]).mean()
    tests = arima.residual_tests()
    assert tests["equal variance, ARCH"] < 1e-6
    assert tests["normality, Jarque-Bera"] < 1e-6
    facts = arima.facts()
    assert facts["unit root, p"]["levels"] > 0.05 > facts["unit root, p"]["changes"]


def test_the_score_of_persistence_is_one_and_the_truth_has_no_error(module) -> None:
    job, values = module("next_close"), 50 + walk(200)
    table = job.score(values, {"persistence": values[159:-1][None], "truth": values[160:][None]})
    assert table["persistence"]["of persistence"] == 1.0
    assert table["persistence"]["right direction"] is None
    assert table["persistence"]["rmse"] == pytest.approx(np.std(np.diff(values)[159:]), rel=0.2)
    assert table["truth"]["rmse"] == 0.0
    assert table["truth"]["right direction"] == 1.0
    assert table["truth"]["Diebold-Mariano p"] < 0.01


# --- several steps --------------------------------------------------------------------------------


def made_series(steps, season: int = 6):
    return steps.Series("", "", season, {}, steps.SMALL._replace(steps=8, epochs=2, hidden=4))


def seasonal(count: int) -> np.ndarray:
    return 5 + np.tile([0.0, 1.0, 4.0, 2.0, -1.0, -3.0], count // 6 + 1)[:count]


@pytest.mark.parametrize("horizon", [4, 6, 15])
@pytest.mark.parametrize("validate", [False, True])
def test_what_repeats_is_forecast_without_error_by_season_and_mean(
    module, horizon: int, validate: bool
) -> None:
    steps = module("several_steps")
    task = steps.Task(made_series(steps), seasonal(200), horizon, "levels", validate)
    forecasts = task.baselines()
    for name in ("seasonal naive", "season's mean"):
        np.testing.assert_allclose(task.errors(forecasts[name]), 0, atol=1e-12)
    assert len(forecasts["persistence"]) == 40 - horizon + 1
    assert np.abs(task.errors(forecasts["persistence"])).max() > 1


@pytest.mark.parametrize("view", ["levels", "relative", "seasonal"])
@pytest.mark.parametrize("horizon", [4, 9])
def test_least_squares_follows_a_line_in_every_view(module, view: str, horizon: int) -> None:
    steps = module("several_steps")
    noise = 1e-3 * np.random.default_rng(0).standard_normal(300)
    task = steps.Task(made_series(steps), seasonal(300) + noise, horizon, view, False)
    forecast = task.baselines()["least squares"]
    assert task.errors(forecast).shape == (60 - horizon + 1, horizon)
    assert np.abs(task.errors(forecast)).max() < 0.05


@pytest.mark.parametrize("view", ["levels", "relative", "seasonal"])
def test_no_forecast_knows_what_comes_after_its_first_target(module, view: str) -> None:
    steps = module("several_steps")
    values = seasonal(200) + np.random.default_rng(1).standard_normal(200)
    spoilt = values.copy()
    spoilt[170:] += 40
    kept = 200 - 160 - 5 + 1  # of windows; those up to the one with first target 170 see the same
    for name in ("persistence", "seasonal naive", "season's mean", "least squares", "network"):
        rows = []
        for each in (values, spoilt):
            task = steps.Task(made_series(steps), each, 5, view, False)
            made = task.network(0) if name == "network" else task.baselines()[name]
            assert len(made) == kept
            rows.append(made[:11])
        np.testing.assert_array_equal(*rows, err_msg=name)


def test_gaps_hold_the_value_before_and_are_not_scored(module) -> None:
    steps = module("several_steps")
    values = np.array([1.0, 2.0, np.nan, np.nan, 5.0])
    assert steps.filled(values).tolist() == [1, 2, 2, 2, 5]
    long = seasonal(200)
    long[[30, 180, 181]] = np.nan
    task = steps.Task(made_series(steps), long, 4, "levels", False)
    errors = task.errors(task.baselines()["persistence"])
    assert np.isnan(errors).sum() == 8
    assert np.isfinite(module("forecast").score(task, [errors])["mse"])


def test_the_shipped_series_are_those_that_they_say(module) -> None:
    steps = module("several_steps")
    values = {
        name: steps.values_of(EXAMPLES / "data", name, series)
        for name, series in steps.SHIPPED.items()
    }
    assert {name: len(each) for name, each in values.items()} == {
        "Nile": 100,
        "sunspots": 309,
        "El Nino": 732,
        "CO2": 2284,
    }
    assert np.isnan(values["CO2"]).sum() == 59
    assert values["El Nino"][[0, 1, 12]].tolist() == [23.11, 24.2, 24.19]
    assert values["Nile"][[0, -1]].tolist() == [1120, 740]
