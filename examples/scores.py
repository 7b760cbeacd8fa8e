"""What some jobs share: a training, folds, predictions, macro-F1, a picture of the confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jobs
import numpy as np

from rnncore import train
from rnncore.pictures import new_figure


def fit(
    model: Any,
    loss: Any,
    batches: Any,
    per_epoch: int,
    epochs: int,
    peak: float,
    validate: Callable[[Any], float] | None,
    label: str,
) -> train.Trainer:
    """Train by AdamW under a cosine; the epoch of the lowest validation is the one kept.

    Without `validate` it is the last one.
    """
    updates = epochs * per_epoch
    trainer = train.Trainer(
        model,
        loss,
        train.AdamW(model),
        batches,
        schedule=train.WarmupCosine(peak, updates, warmup=max(1, per_epoch // 2)),
        max_norm=1.0,
        validate=validate,
        validate_every=per_epoch,
        patience=None if validate is None else epochs,
    )
    trainer.run(updates, label)
    return trainer


def stratified_folds(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return which fold ``(N,)`` each example is in: every fold has its share of every class."""
    draw, found = np.random.default_rng(seed), np.empty(len(classes), dtype=np.int64)
    dealt = 0
    for label in np.unique(classes):
        members = draw.permutation(np.flatnonzero(classes == label))
        found[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return found


def predictions(model: Any, sequences: Sequence[np.ndarray], batch: int = 64) -> np.ndarray:
    """Return the class ``(N,)`` that a classifier gives each sequence, like lengths together."""
    found = np.empty(len(sequences), dtype=np.int64)
    order = np.argsort([len(one) for one in sequences], kind="stable")
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        rows = [sequences[i] for i in chosen]
        x, _, lengths = train.PaddedBatches(rows, chosen.tolist(), len(rows), shuffle=False)[0]
        found[chosen] = model(x, lengths).argmax(axis=1)
    return found


def confusions(right: np.ndarray, given: np.ndarray, classes: int) -> np.ndarray:
    """Return how often a class (row) was given another (column), ``(classes, classes)``."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (right, given), 1)
    return counts


def accuracy(counts: np.ndarray) -> float:
    return float(np.trace(counts) / counts.sum())


def class_f1(counts: np.ndarray) -> np.ndarray:
    """Return each class's F1, the harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN).

    0 for a class that is neither there nor given.
    """
    return 2 * np.diag(counts) / np.maximum(1, counts.sum(axis=0) + counts.sum(axis=1))


def macro_f1(counts: np.ndarray) -> float:
    """Return the mean of the classes' F1, each class weighing the same."""
    return float(class_f1(counts).mean())


def figures_of(name: str, folds: Sequence[np.ndarray], labels: Sequence[str]) -> dict[str, Any]:
    """Return, and print a line of, the figures of all folds' confusions together."""
    whole = np.sum(folds, axis=0)
    found = {"accuracy": accuracy(whole), "macro_f1": macro_f1(whole)}
    print(f"{name}: {found['accuracy']:.1%}, macro-F1 {found['macro_f1']:.3f}")
    return {
        **found,
        "accuracy_of_folds": [accuracy(fold) for fold in folds],
        "macro_f1_of_folds": [macro_f1(fold) for fold in folds],
        "f1": dict(zip(labels, class_f1(whole).tolist(), strict=True)),
    }


def root_weights(classes: np.ndarray, count: int) -> np.ndarray:
    """Return weights ``(count,)`` by which a class of a quarter as many examples counts twice."""
    found: np.ndarray = np.bincount(classes, minlength=count).clip(1) ** -0.5
    return found


def draw_confusions(
    path: Path | None, tables: dict[str, np.ndarray], labels: Sequence[str], note: str = ""
) -> None:
    """Draw tables of confusions side by side into a PNG file, each row as shares of its class."""
    width = 2.2 + 0.36 * len(labels)
    figure = None if path is None else new_figure(width * len(tables), width + 0.6)
    if figure is None or path is None:
        return
    for axes, (name, counts) in zip(
        figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True
    ):
        shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                colour = "white" if share > 0.5 else "black"
                axes.text(
                    column,
                    row,
                    f"{100 * share:.0f}",
                    ha="center",
                    va="center",
                    color=colour,
                    size=7,
                )
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
        axes.set(xlabel="given", ylabel="right", title=f"{name}: % of each row {note}".strip())
    jobs.save_picture(figure, path)


def naive_bayes(
    known: Sequence[Sequence[Any]],
    labels: np.ndarray,
    asked: Sequence[Sequence[Any]],
    classes: int,
    longest: int = 3,
) -> np.ndarray:
    """Return the class ``(N,)`` that counts of runs of 1 to `longest` symbols make likeliest.

    Multinomial, with 0.1 added to every count, and the classes' shares as prior.
    """
    places: dict[Any, int] = {}
    for row in known:
        for run in _runs(row, longest):
            places.setdefault(run, len(places))
    counts = np.full((classes, len(places)), 0.1)
    for row, label in zip(known, labels, strict=True):
        np.add.at(counts[label], [places[run] for run in _runs(row, longest)], 1)
    likely = np.log(counts / counts.sum(axis=1, keepdims=True))
    prior = np.log((np.bincount(labels, minlength=classes) + 0.1) / len(labels))
    met = [[places[run] for run in _runs(row, longest) if run in places] for row in asked]
    return np.array([(prior + likely[:, runs].sum(axis=1)).argmax() for runs in met])


def _runs(row: Sequence[Any], longest: int) -> list[tuple[Any, ...]]:
    return [tuple(row[i : i + n]) for n in range(1, longest + 1) for i in range(len(row) - n + 1)]
