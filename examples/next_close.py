"""Many to one: tomorrow's close from the last five days, walking forward through a price's history.

The last fifth is the test part, forecast in blocks. Before each block everything is fitted anew on
what lies before it, scaling included. A small LSTM reads either the closes or their changes; beside
it stand persistence (tomorrow is as today), an autoregression over five days and ARIMA, which needs
statsmodels, as the tests of its residuals do. `--quick` runs on a made-up series alone, whose
changes have a memory, so that there is something to learn.
"""

import itertools
import time

import jobs
import numpy as np
import prices as data
import statistical_models as classical
import time_series as ts
from prices import PRICES, View

from rnncore import pictures
from rnncore.train import Progress

MADE_UP = "made up"
DAYS, BLOCKS, LEARNT = 5, 5, 0.85  # the last 15 % of each past decide when training ends
SETTINGS = {
    "levels": ts.Settings(DAYS, batch=128, hidden=16, rate=1e-2, patience=8),
    "levels less today's": ts.Settings(
        DAYS, batch=128, hidden=8, rate=3e-3, patience=8, relative=True
    ),
    "changes": ts.Settings(DAYS, batch=128, hidden=8, rate=3e-3, patience=8, weight_decay=0.1),
}


def network(view, settings, start, end, seed, progress):
    """Fit before day ``start``, forecast from there to ``end``; the fit beside it."""
    past = view.series[: start - 1]
    mean, deviation = past.mean(), past.std()
    scaled = ((view.series[: end - 1] - mean) / deviation)[:, None]
    fitted = ts.fit(scaled[: start - 1], int(LEARNT * len(past)), settings, seed)
    progress.advance()
    forecast = ts.forecasts(fitted.model, scaled, start - 1, settings)[:, 0]
    return view.to_price(forecast * deviation + mean, start), fitted


def validated(values, logs, seeds, progress):
    """Return each model's error before the test part, where training ended, over persistence's."""
    start, shares = int(0.8 * len(values)), {}
    for name, settings in SETTINGS.items():
        view = View(values, name == "changes", logs)
        past = view.series[: start - 1]
        held = past[int(LEARNT * len(past)) :]
        same = held if view.changes else np.diff(held)
        fits = [network(view, settings, start, start + 1, seed, progress)[1] for seed in seeds]
        losses = [fitted.validation for fitted in fits]
        shares[name] = float(np.sqrt(np.mean(losses)) * past.std() / ts.rmse(same))
    return shares


def walk(values, logs, seeds, progress):
    """Return forecasts of the last fifth by model, one row a seed, and what ARIMA was fitted."""
    first, found = int(0.8 * len(values)), {}
    blocks = np.linspace(first, len(values), BLOCKS + 1).astype(int)
    arima = classical.Arima(np.log(values) if logs else values, first)
    for start, end in itertools.pairwise(blocks):
        made = {"persistence": values[start - 1 : end - 1]}
        for name in ("levels", "changes"):
            view = View(values, name == "changes", logs)
            forecast = classical.autoregression(view.series[: end - 1], start - 1, DAYS)
            made[f"AR(5), {name}"] = view.to_price(forecast, start)
        if arima.order is not None:
            forecast = arima.forecast(start, end)
            made["ARIMA"] = np.exp(forecast) if logs else forecast
        for name, settings in SETTINGS.items():
            view = View(values, name == "changes", logs)
            rows = [network(view, settings, start, end, seed, progress)[0] for seed in seeds]
            made[f"LSTM, {name}"] = np.array(rows)
        for name, forecast in made.items():
            found.setdefault(name, []).append(np.atleast_2d(forecast))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}, arima


def score(values, forecasts):
    """Return by model: RMSE, its spread, its share of persistence's, days with the right sign."""
    first = int(0.8 * len(values))
    truth, today = values[first:], values[first - 1 : -1]
    base = ts.rmse(truth - today)
    table = {}
    for name, rows in forecasts.items():
        each = [ts.rmse(truth - row) for row in rows]
        mean = rows.mean(axis=0)  # of the seeds' forecasts
        moved = (truth != today) & (mean != today)
        right = np.sign(truth - today)[moved] == np.sign(mean - today)[moved]
        table[name] = {
            "rmse": float(np.mean(each)),
            "spread": float(np.std(each)),
            "of persistence": float(np.mean(each)) / base,
            "right direction": float(right.mean()) if moved.any() else None,
            "Diebold-Mariano p": ts.diebold_mariano(truth - mean, truth - today),
        }
    return table


def show(table, arima):
    """Print a price's table."""
    print(f"{'':26} {'RMSE':>9} {'spread':>8} {'of pers.':>9} {'direction':>9} {'p':>6}")
    for model, row in table.items():
        right = row["right direction"]
        direction = "" if right is None else f"{right:.1%}"
        print(
            f"{model:26} {row['rmse']:9.4f} {row['spread']:8.4f} {row['of persistence']:9.4f} "
            f"{direction:>9} {row['Diebold-Mariano p']:6.3f}"
        )
    if arima.order is not None:
        print(f"ARIMA{arima.order}, p of its residuals: ", end="")
        print(", ".join(f"{test} {p:.2g}" for test, p in arima.residual_tests().items()))


def draw(path, prices, every):
    """Draw the last 60 days of each price with the forecasts."""
    figure = pictures.new_figure(11, 2.6 * len(prices))
    if path is None or figure is None:
        return
    for place, (name, values) in enumerate(prices.items()):
        axes = figure.add_subplot(len(prices), 1, place + 1)
        axes.plot(values[-60:], "k.-", label="close")
        for model in ("persistence", "LSTM, levels", "LSTM, changes"):
            axes.plot(every[name][model].mean(axis=0)[-60:], label=model, linewidth=1)
        axes.set_title(f"{name}: the last 60 days", loc="left")
    figure.axes[0].legend(ncols=4)
    jobs.save_picture(figure, path, dpi=90)


def main() -> None:
    parser = jobs.parser(__doc__, "prices")
    ts.add_arguments(parser, [*PRICES, MADE_UP])
    arguments, started = parser.parse_args(), time.perf_counter()
    SETTINGS.update({kind: ts.changed(each, arguments) for kind, each in SETTINGS.items()})
    seeds = range(arguments.seed, arguments.seed + (1 if arguments.quick else arguments.seeds))
    prices = {MADE_UP: data.made_up(800 if arguments.quick else 3000, arguments.seed)}
    if not arguments.quick:
        folder = jobs.find_data(arguments, "prices", data.FILES)
        prices = {name: data.closes(folder, name) for name in PRICES} | prices
    prices = {name: prices[name] for name in arguments.only or prices}
    every, figures = {}, {}
    for name, values in prices.items():
        logs = PRICES[name][3] if name in PRICES else True
        rounds = 1 if arguments.validate else 1 + BLOCKS
        with Progress(rounds * len(SETTINGS) * len(seeds), 0, name, unit="trainings") as progress:
            shares = validated(values, logs, seeds, progress)
            if not arguments.validate:
                every[name], arima = walk(values, logs, seeds, progress)
        rounded = {kind: round(share, 4) for kind, share in shares.items()}
        print(f"\n{name}: validation RMSE over persistence's: {rounded}", flush=True)
        if not arguments.validate:
            figures[name] = {"validation": shares, "test": score(values, every[name])}
            figures[name] |= arima.facts()
            show(figures[name]["test"], arima)
    if not arguments.validate:
        draw(jobs.picture_path("next_close", arguments), prices, every)
        jobs.write_results("next_close", arguments, figures, started)


if __name__ == "__main__":
    main()
