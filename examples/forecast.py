"""Several steps ahead: what follows a window of a series, all at once, beside the seasonal naive.

A GRU reads a window and forecasts every step of the horizon. Beside it stand persistence (the last
value goes on), the seasonal naive (the last season goes on), the season's mean, and least squares
on the same window. Four series come with rnncore: the Nile, sunspots, El Nino, and carbon dioxide
at Mauna Loa, whose gaps are filled with the last value seen and not scored. The folder of --data
adds sunspots by month, the daily temperature of Melbourne and the oil temperature of a transformer,
ETTh1. Validation has chosen how each is forecast; for sunspots by month it does so in every run.
--validate and --quick show the validation part, and leave the test part alone.
"""

import time
from pathlib import Path

import jobs
import numpy as np
import time_series as ts
from several_steps import ELSEWHERE, SHIPPED, VIEWS, Task, choose, values_of

from rnncore import pictures
from rnncore.train import Progress

NETWORK = "network"
ALL = SHIPPED | ELSEWHERE
DRAWN_AT_MOST = 168  # the longest horizon in the picture


def load(arguments):
    """Return the chosen series with their values."""
    names = arguments.only or (["sunspots"] if arguments.quick else ALL)
    elsewhere = [ALL[name].file for name in names if name in ELSEWHERE]
    theirs = jobs.find_data(arguments, "series", elsewhere) if elsewhere else None
    found = {}
    for name in names:
        series = ALL[name]
        folder = theirs if name in ELSEWHERE else Path(__file__).parent / "data"
        series = series._replace(settings=ts.changed(series.settings, arguments))
        found[name] = series, values_of(folder, name, series)
    return found


def score(task, forecasts):
    """Return a model's errors: squared in standard deviations, and their root in the unit."""
    errors = [task.errors(forecast) for forecast in forecasts]
    squares = [float(np.nanmean(np.square(each))) for each in errors]
    return {
        "mse": float(np.mean(squares)),
        "spread": float(np.std(squares)),
        "mae": float(np.mean([np.nanmean(np.abs(each)) for each in errors])),
        "rmse in the unit": float(np.mean([ts.rmse(each) for each in errors]) * task.deviation),
    }


def run(task, seeds):
    """Return the forecasts by model, one for each seed, and their errors."""
    forecasts = {name: [forecast] for name, forecast in task.baselines().items()}
    forecasts[NETWORK] = []
    label = f"{task.horizon} ahead"
    with Progress(len(seeds), 0, label, unit="trainings") as progress:
        for seed in seeds:
            forecasts[NETWORK].append(task.network(seed))
            progress.advance()
    return forecasts, {name: score(task, rows) for name, rows in forecasts.items()}


def show(name, series, task, table, part):
    """Print the errors on one horizon, and on which part they are."""
    unit = f" {series.unit}" if series.unit else ""
    title = f"{name}, {task.horizon} ahead ({task.view}), {part}"
    print(f"\n{title}\n{'':31} MSE   spread      MAE     RMSE{unit}")
    for model, row in table.items():
        print(
            f"  {model:22} {row['mse']:9.4f} {row['spread']:8.4f} {row['mae']:8.4f} "
            f"{row['rmse in the unit']:8.4f}",
            flush=True,
        )


def draw(path, drawn):
    """Draw the last forecasts of each series, one after another."""
    figure = pictures.new_figure(11, 2.4 * len(drawn))
    if path is None or figure is None:
        return
    for place, (name, (series, task, forecasts)) in enumerate(drawn.items()):
        axes = figure.add_subplot(len(drawn), 1, place + 1)
        count = min(3, (len(forecasts[NETWORK][0]) - 1) // task.horizon + 1)
        length = task.horizon * count
        end = len(task.truth)
        axes.plot(
            np.arange(end - 2 * length, end),
            task.truth[end - 2 * length :] * task.deviation + task.mean,
            "k-",
            linewidth=1,
            label="what came",
        )
        for model, colour in (("seasonal naive", "C1"), (NETWORK, "C0")):
            every = np.mean(forecasts[model], axis=0) * task.deviation + task.mean
            for back in range(count):
                start = end - (back + 1) * task.horizon
                label = model if back == 0 else None
                row = every[len(every) - 1 - back * task.horizon]
                axes.plot(np.arange(start, start + task.horizon), row, colour, label=label)
        axes.set_title(f"{name}: {task.horizon} steps ahead", loc="left")
        axes.set_ylabel(series.unit)
    figure.axes[0].legend(ncols=3)
    jobs.save_picture(figure, path, dpi=90)


def main() -> None:
    parser = jobs.parser(__doc__, "series")
    ts.add_arguments(parser, ALL)
    parser.add_argument("--horizons", nargs="+", type=int, help="instead of each series' own")
    parser.add_argument("--view", choices=VIEWS, help="instead of each series' own")
    arguments, started = parser.parse_args(), time.perf_counter()
    seeds = range(arguments.seed, arguments.seed + (1 if arguments.quick else arguments.seeds))
    validate, figures, drawn = arguments.validate or arguments.quick, {}, {}
    for name, (series, values) in load(arguments).items():
        figures[name] = {}
        for horizon in arguments.horizons or series.horizons:
            view, chosen, tried = arguments.view or series.horizons[horizon], series, {}
            if view is None:
                view, chosen, tried = choose(series, values, horizon, arguments.seed)
            task = Task(chosen, values, horizon, view, validate)
            forecasts, table = run(task, seeds)
            part = "validation" if validate else "test"
            show(name, series, task, table, part)
            settings = task.settings._asdict()
            how = {"part": part, "view": view, "settings": settings, "validation": tried}
            figures[name][f"{horizon} ahead"] = how | table
            if horizon <= DRAWN_AT_MOST:
                drawn[name] = chosen, task, forecasts
    if arguments.quick or not arguments.validate:
        draw(jobs.picture_path("forecast", arguments), drawn)
        jobs.write_results("forecast", arguments, figures, started)


if __name__ == "__main__":
    main()
