"""Vanishing and exploding gradients: products of weights, clipping, gates, and a long recall.

1. The experiment of Deep Learning from Scratch 2, chapter 6: one gradient goes back through T 20
   steps of H 3 units, N 2 rows, whose recurrent weights are drawn as randn and as 0.5 randn. Its
   norm at each step, the weights' singular values, the weights' gradient clipped; LSTM and GRU.
2. The same at T 100 in trained sizes, and a training that explodes unless it is clipped.
3. Recall: the first of T symbols is asked for after T - 1 others. 12.5 % is chance. Data are made
   as they are needed: --epochs is the number of batches.

python examples/gradients.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jobs
import numpy as np

import rnncore as rc
from rnncore import diagnose, models, nn, train
from rnncore.pictures import new_figure

STEPS, HIDDEN, ROWS = 20, 3, 2
MAX_NORM = 5.0  # the book's
SYMBOLS, UNITS, BATCH = 8, 32, 32
LENGTHS = (10, 30, 100)
RATE, UPDATES = 0.003, 2000


def toy_layers(draw: np.random.Generator) -> dict[str, Any]:
    """Return the recurrences, all of the same drawn weights: an RNN without tanh is their power."""
    given: dict[str, Any] = {"dtype": "float64", "seed": 0}
    linear = {"activations": [("Affine", 1.0, 0.0)]}
    weights = draw.standard_normal((4, HIDDEN, HIDDEN))
    made = {
        "randn": (rc.RNN(HIDDEN, HIDDEN, **linear, **given), weights[0]),
        "0.5 randn": (rc.RNN(HIDDEN, HIDDEN, **linear, **given), weights[0] / 2),
        "randn, tanh": (rc.RNN(HIDDEN, HIDDEN, **given), weights[0]),
        "LSTM, randn": (rc.LSTM(HIDDEN, HIDDEN, forget_bias=1.0, **given), weights),
        "GRU, randn": (rc.GRU(HIDDEN, HIDDEN, **given), weights[:3]),
    }
    for layer, weight in made.values():
        layer.params["weight_hh_l0"][...] = weight.reshape(-1, HIDDEN)
    return {name: layer for name, (layer, _) in made.items()}


def toy_norms(layer: Any, draw: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Return the norm by time of a gradient of ones, and the weights' gradient's, then clipped."""
    x = draw.standard_normal((STEPS, ROWS, HIDDEN))
    dy = np.zeros((STEPS, ROWS, HIDDEN))
    dy[-1] = 1.0
    flow = diagnose.gradient_flow(layer, x, dy)
    layer.zero_grad()
    layer.forward(x)
    layer.backward(dy)
    before = train.clip_grad_norm(layer, MAX_NORM)
    after = train.clip_grad_norm(layer, np.inf)
    return np.sqrt(sum(part[:, 0] ** 2 for part in flow.values())), before, after


def toy(seed: int) -> dict[str, Any]:
    print(f"one gradient of ones through {STEPS} steps of {HIDDEN} units, {ROWS} rows")
    print(f"  {'':12} {'20 steps':>10} {'a step':>7} {'of the weights':>15} {'clipped':>8}")
    found = {}
    for name, layer in toy_layers(np.random.default_rng(seed)).items():
        norms, before, after = toy_norms(layer, np.random.default_rng(seed + 1))
        spectra = diagnose.recurrent_spectra(layer)["weight_hh_l0"]
        per_step = diagnose.step_ratio(norms).per_step
        print(f"  {name:12} {norms[0]:10.3g} {per_step:7.3f} {before:15.3g} {after:8.3g}")
        found[name] = {
            "norms": norms,
            "per_step": per_step,
            "singular_values": {gate: one.singular_values for gate, one in spectra.items()},
            "spectral_radius": {gate: one.spectral_radius for gate, one in spectra.items()},
            "unclipped": before,
            "clipped": after,
        }
    values = found["randn"]["singular_values"]["h"]
    print(f"  singular values of randn: {', '.join(f'{value:.3f}' for value in values)}")
    return found


def sequences(steps: int, batch: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield symbols ``(T, N)`` and the first of each row; those after it say nothing about it."""
    draw = np.random.default_rng(seed)
    while True:
        x = draw.integers(SYMBOLS, 2 * SYMBOLS, size=(steps, batch))
        x[0] = draw.integers(SYMBOLS, size=batch)
        yield x, x[0].copy()


def recall_layers(steps: int, seed: int) -> dict[str, Any]:
    """Return what is compared; a bias of log T lets a gate keep for about T steps.

    Tallec and Ollivier, Can recurrent neural networks warp time?, 2018.
    """
    keep = float(np.log(steps))
    gru = rc.GRU(UNITS, UNITS, seed=seed)
    gru.params["bias_ih_l0"][UNITS : 2 * UNITS] += keep
    return {
        "RNN": rc.RNN(UNITS, UNITS, seed=seed),
        "LSTM, forget bias 1": rc.LSTM(UNITS, UNITS, forget_bias=1.0, seed=seed),
        "GRU, update bias log T": gru,
        "LSTM, forget bias log T": rc.LSTM(UNITS, UNITS, forget_bias=keep, seed=seed),
    }


def recall(layer: Any, steps: int, updates: int, seed: int) -> float:
    """Train on fresh sequences; return the share right of 1000 others."""
    model = models.Classifier(layer, SYMBOLS, vocabulary=2 * SYMBOLS, seed=seed)
    trainer = train.Trainer(
        model,
        nn.SoftmaxCrossEntropy(),
        train.Adam(model),
        sequences(steps, BATCH, seed),
        schedule=train.WarmupCosine(RATE, updates, warmup=updates // 20),
        max_norm=1.0,
        progress=False,
    )
    trainer.run(updates)
    x, first = next(sequences(steps, 1000, 10_000 + seed))
    return float((model(x).argmax(axis=1) == first).mean())


def all_recalls(lengths: tuple[int, ...], updates: int, seeds: range) -> dict[str, Any]:
    """Return, by layer and length, the share right of each seed."""
    found: dict[str, Any] = {}
    total = len(recall_layers(2, 0)) * len(lengths) * len(seeds)
    with train.progress.Progress(total, label="recall", unit="fits") as bar:
        for steps in lengths:
            for name in recall_layers(steps, 0):
                shares = []
                for seed in seeds:
                    shares.append(recall(recall_layers(steps, seed)[name], steps, updates, seed))
                    bar.advance()
                found.setdefault(name, {})[steps] = shares
                mean, spread = np.mean(shares), np.ptp(shares)
                print(f"  recall after {steps:3} steps: {name:24} {mean:6.1%}, spread {spread:.1%}")
    return found


def draw_all(path: Path, toys: dict[str, Any], recalls: dict[str, Any]) -> bool:
    figure = new_figure(15, 4.5)
    if figure is None:
        return False
    left, middle, right = figure.subplots(1, 3)
    for name, one in toys.items():
        left.semilogy(np.arange(STEPS, 0, -1), one["norms"], "o-", markersize=3, label=name)
    left.invert_xaxis()
    left.set(xlabel="time steps before the loss", ylabel="norm", title="One gradient, H 3")
    places = np.arange(len(toys))
    for shift, key in ((-0.2, "unclipped"), (0.2, "clipped")):
        middle.bar(places + shift, [one[key] for one in toys.values()], 0.4, label=key)
    middle.set_xticks(places, list(toys), rotation=15)
    middle.set(yscale="log", title=f"Gradient of all weights, clipped to {MAX_NORM:g}")
    for name, shares in recalls.items():
        right.plot(list(shares), [np.mean(some) for some in shares.values()], "o-", label=name)
    right.axhline(1 / SYMBOLS, color="gray", linestyle=":", label="chance")
    right.set(xlabel="T", ylabel="share right", ylim=(0, 1.05), title="Recall of the first of T")
    for axes in (left, middle, right):
        axes.legend(fontsize="small")
    jobs.save_picture(figure, path)
    return True


def main() -> None:
    arguments, started = jobs.parser(__doc__).parse_args(), time.perf_counter()
    toys = toy(arguments.seed)
    flows, runs = diagnose.cell_flows(), diagnose.clipping_runs()
    for name, norms in flows.items():
        ratio = diagnose.step_ratio(norms)
        print(f"  {name:20} {ratio.kind:9} {ratio.per_step:.3f} a step")
    for name, history in runs.items():
        print(f"  {name:20} {len(history.losses):3} updates, last loss {history.losses[-1]:.2g}")
    seeds = range(arguments.seed, arguments.seed + 3)
    if arguments.quick:
        recalls = all_recalls(LENGTHS[:1], 60, seeds[:1])
    else:
        recalls = all_recalls(LENGTHS, arguments.epochs or UPDATES, seeds)
    figures = {"toy": toys, "cells_T_100": flows, "recall": recalls}
    jobs.write_results("gradients", arguments, figures, started)
    path = jobs.picture_path("gradients", arguments)
    if path is not None and draw_all(path, toys, recalls):
        diagnose.draw_remedies(path.with_stem(f"{path.stem}-remedies"), flows, runs)


if __name__ == "__main__":
    main()
