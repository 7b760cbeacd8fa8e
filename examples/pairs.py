"""Questions and answers letter by letter: what the addition and the date job share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jobs
import numpy as np

from rnncore import models, nn, train

START, END = "\x02", "\x03"


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts, and their characters' indices."""

    texts: list[tuple[str, str]]
    sources: list[np.ndarray]
    targets: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """Three parts of one set of pairs; no pair is in two of them."""

    alphabet: str
    training: Pairs
    validation: Pairs
    test: Pairs
    duplicates: int

    @property
    def start(self) -> int:
        """The symbol in front of an answer."""
        return self.alphabet.index(START)

    @property
    def end(self) -> int:
        """The symbol behind an answer."""
        return self.alphabet.index(END)

    def counts(self) -> dict[str, int]:
        """Return how many pairs there are of each kind."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {name: len(part) for name, part in parts.items()} | {"removed": self.duplicates}

    def describe(self) -> str:
        """Return the counts in a line."""
        return (
            f"{len(self.training):,} pairs train, {len(self.validation):,} validate, "
            f"{len(self.test):,} test; {self.duplicates:,} duplicates removed"
        )

    def batches(self, part: Pairs, batch: int, seed: int = 0, **options: bool) -> train.PairBatches:
        """Return batches of a part; ``reverse`` turns questions around."""
        return train.PairBatches(
            part.sources, part.targets, batch, self.start, self.end, seed, **options
        )


def make_task(pairs: Sequence[tuple[str, str]], seed: int = 1984) -> Task:
    """Remove duplicates, shuffle, and set a tenth aside to validate and a tenth to test."""
    different = list(dict.fromkeys(pairs))
    order = np.random.default_rng(seed).permutation(len(different))
    shuffled = [different[place] for place in order]
    alphabet = START + END + "".join(sorted({c for pair in different for c in "".join(pair)}))
    tenth = len(different) // 10
    cuts = (slice(0, -2 * tenth), slice(-2 * tenth, -tenth), slice(-tenth, None))
    parts = [_encoded(shuffled[cut], alphabet) for cut in cuts]
    return Task(alphabet, *parts, duplicates=len(pairs) - len(different))


def _encoded(texts: list[tuple[str, str]], alphabet: str) -> Pairs:
    places = {character: place for place, character in enumerate(alphabet)}
    sources, targets = (
        [np.array([places[character] for character in pair[side]]) for pair in texts]
        for side in (0, 1)
    )
    return Pairs(texts, sources, targets)


def split_lines(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the question and the answer of each line ``question_answer``."""
    halves = (line.partition("_") for line in lines)
    return [(question.strip(), answer.strip()) for question, _, answer in halves]


def read_pairs(arguments: argparse.Namespace, dataset: str, file: str) -> list[tuple[str, str]]:
    """Return the pairs of a data set's file."""
    return split_lines(jobs.read_lines(jobs.find_data(arguments, dataset, [file]) / file))


def answers(model: Any, task: Task, pairs: Pairs, reverse: bool) -> list[str]:
    """Return what a model writes to each question, taking the most probable letter each time."""
    longest = 1 + max(len(target) for target in pairs.targets)
    written: list[str] = []
    for batch in task.batches(pairs, 500, shuffle=False, reverse=reverse).epoch():
        found = models.sample(
            model.stepper(),
            np.full(len(batch.lengths), task.start),
            longest,
            state=model.encode(batch.inputs[0], batch.lengths),
            temperature=0,
            end=task.end,
        )
        texts = ("".join(task.alphabet[i] for i in row) for row in found.symbols.T)
        written += [text.partition(END)[0] for text in texts]
    return written


def share_right(model: Any, task: Task, pairs: Pairs, reverse: bool) -> float:
    """Return the share of questions that are answered right in every letter."""
    written = answers(model, task, pairs, reverse)
    return float(np.mean([a == b for a, (_, b) in zip(written, pairs.texts, strict=True)]))


def fit(
    model: Any,
    task: Task,
    label: str,
    *,
    epochs: int,
    rate: float,
    seed: int,
    reverse: bool = False,
    batch: int = 128,
) -> dict[str, Any]:
    """Train a model; return what it cost, and ten times how much of the validation part is right.

    Adam; the learning rate rises for a twentieth of the updates and falls along a cosine to 0.
    """
    batches = task.batches(task.training, batch, seed, reverse=reverse)
    updates = epochs * batches.per_epoch
    trainer = train.Trainer(
        model,
        nn.SoftmaxCrossEntropy(),
        train.Adam(model),
        batches,
        schedule=train.WarmupCosine(rate, updates, warmup=updates // 20),
        max_norm=5.0,
        validate=lambda model: 1 - share_right(model, task, task.validation, reverse),
        validate_every=-(-updates // 10),
    )
    started = time.process_time()
    trainer.run(updates, label)
    return {
        "parameters": model.num_parameters,
        "epochs": epochs,
        "rate": rate,
        "cpu_seconds": time.process_time() - started,
        "validation": [
            (update / batches.per_epoch, 1 - wrong) for update, wrong in trainer.history.validation
        ],
    }
