"""Surnames of 18 languages, character by character: tell the language, and write names of one.

1. Many to one: a bidirectional GRU reads a name and says which language it is of. Classes are very
   unbalanced, so macro-F1 decides. Five folds; of the rest an eighth validates. The set has many
   names more than once (108 Arabic ones stand there 2,000 times): pairs of name and language count
   once, and a spelling is in one fold, whatever the number of its languages.
2. One to many: a GRU starts from a language and writes a name. Its nats a character are compared
   with those of the same model that is not told the language; the classifier of the first fold
   judges what it writes.

python examples/names.py --data DIR
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores

import rnncore as rc
from rnncore import models, nn, train

FILE = "names.tsv"
FOLDS, EPOCHS, SHOWN, JUDGED = 5, 14, 5, 100
START, END = 0, 1


class Names(NamedTuple):
    """Pairs of name and language, each once; folds keep a spelling together."""

    texts: list[str]
    languages: np.ndarray
    folds: np.ndarray
    labels: list[str]
    alphabet: list[str]

    def rows(self, which: np.ndarray) -> list[np.ndarray]:
        place = {character: i for i, character in enumerate(self.alphabet, start=2)}
        return [np.array([place[one] for one in self.texts[i]]) for i in which]


def as_names(pairs: Iterable[tuple[str, str]], seed: int) -> Names:
    """Return pairs of language and name in ten folds: two at a time test, one validates."""
    kept = sorted(set(pairs))
    labels = sorted({language for language, _ in kept})
    languages = np.array([labels.index(language) for language, _ in kept])
    texts, folds = [text for _, text in kept], scores.stratified_folds(languages, 2 * FOLDS, seed)
    fold_of = dict(zip(texts[::-1], folds[::-1], strict=True))
    together = np.array([fold_of[text] for text in texts])
    return Names(texts, languages, together, labels, sorted(set("".join(texts))))


def made_names(seed: int) -> Iterator[tuple[str, str]]:
    """Yield names for --quick: each language has syllables and an end of its own."""
    draw = np.random.default_rng(seed)
    for language, count, syllables, end in (
        ("Alic", 150, "al ben mar ti", "o"),
        ("Borish", 90, "kov ro zim pa", "sky"),
        ("Caran", 60, "chu li wa", ""),
    ):
        for _ in range(count):
            yield language, "".join(draw.choice(syllables.split(), draw.integers(1, 5))) + end


# --- many to one ----------------------------------------------------------------------------------


def fit_reader(
    names: Names, known: np.ndarray, unseen: np.ndarray, weights: str, arguments: Namespace
) -> models.Classifier:
    """Train a classifier; the epoch of the best macro-F1 on the unseen is the one that is kept."""
    classes, seed = len(names.labels), arguments.seed
    layer = rc.GRU(32, 64, bidirectional=True, seed=seed)
    languages, symbols = names.languages, 2 + len(names.alphabet)
    model = models.Classifier(layer, classes, vocabulary=symbols, dropout=0.25, seed=seed + 1)
    batches = train.PaddedBatches(names.rows(known), languages[known].tolist(), 64, seed)
    weight = scores.root_weights(languages[known], classes) if weights == "weights" else None
    rows = names.rows(unseen)

    def validate(model: Any) -> float:
        given = scores.predictions(model, rows, 256)
        return 1 - scores.macro_f1(scores.confusions(languages[unseen], given, classes))

    loss, plan = nn.SoftmaxCrossEntropy(weight=weight), (batches.per_epoch, arguments.epochs, 5e-3)
    scores.fit(model, loss, batches, *plan, validate, weights)
    return model


def parts_of(names: Names, fold: int) -> list[np.ndarray]:
    """Return which names train, validate and test."""
    test = names.folds // 2 == fold
    validates = names.folds == (2 * fold + 2) % (2 * FOLDS)
    return [np.flatnonzero(part) for part in (~test & ~validates, validates, test)]


def read_names(names: Names, arguments: Namespace) -> tuple[dict[str, Any], Any]:
    """Return the confusions over all folds, and the model of the first that had no weights."""
    classes, languages, texts = len(names.labels), names.languages, names.texts
    tables, judge = dict[str, Any](), None
    for fold in range(1 if arguments.quick else FOLDS):
        known, unseen, test = parts_of(names, fold)
        learnt = np.concatenate([known, unseen])
        framed = [[f"^{texts[i]}$" for i in part] for part in (learnt, test)]
        given = {
            "most frequent": np.full(len(test), np.bincount(languages[learnt]).argmax()),
            "runs of 1-3": scores.naive_bayes(framed[0], languages[learnt], framed[1], classes),
        }
        for name in ("no weights", "weights"):
            model = fit_reader(names, known, unseen, name, arguments)
            given[name] = scores.predictions(model, names.rows(test), 256)
            judge = judge or model
        for name, found in given.items():
            tables.setdefault(name, []).append(scores.confusions(languages[test], found, classes))
            scores.figures_of(f"fold {fold + 1}, {name}", tables[name][-1:], names.labels)
    return tables, judge


# --- one to many ----------------------------------------------------------------------------------


def about_languages(batches: Iterable[Any], languages: int) -> Iterator[Any]:
    """Turn pairs of a language and a name into what OneToMany reads; -1 is no language."""
    for (source, read), targets, _ in batches:
        yield (np.eye(languages + 1, languages, dtype=np.float32)[source[0]], read), targets


def fit_writer(names: Names, told: bool, arguments: Namespace) -> tuple[models.OneToMany, float]:
    """Train on the first fold's part; return the model and its nats a character on the test."""
    count, seed = len(names.labels), arguments.seed
    layer = rc.GRU(32, 128, seed=seed)
    model = models.OneToMany(count, 2 + len(names.alphabet), layer, dropout=0.2, seed=seed + 1)
    parts = []
    for which in parts_of(names, 0):
        languages = names.languages[which] if told else np.full(len(which), -1)
        sources = [[language] for language in languages]
        parts.append(train.PairBatches(sources, names.rows(which), 128, START, END, seed))
    loss, plan = nn.SoftmaxCrossEntropy(), (parts[0].per_epoch, arguments.epochs, 5e-3)

    def measure(model: Any, part: int = 1) -> float:
        return train.evaluate(model, loss, about_languages(parts[part].epoch(), count))

    batches, label = about_languages(parts[0], count), "told the language" if told else "not told"
    scores.fit(model, loss, batches, *plan, measure, label)
    return model, measure(model, 2)


def write_names(model: models.OneToMany, language: int, names: Names, seed: int) -> list[str]:
    """Return names of a language, drawn at temperature 0.7."""
    about = np.zeros((JUDGED, len(names.labels)), dtype=np.float32)
    about[:, language] = 1
    given: dict[str, Any] = {"state": model.encode(about), "temperature": 0.7, "seed": seed}
    drawn = models.sample(model.stepper(), np.full(JUDGED, START), 20, end=END, **given)
    symbols = ["", "", *names.alphabet]
    return ["".join(symbols[one] for one in column) for column in drawn.symbols.T]


def judged(model: Any, judge: Any, names: Names, seed: int) -> dict[str, Any]:
    """Return, by language, some of what the model writes, and what the classifier says of it."""
    found, seen = {}, set(names.texts)
    place = {character: i for i, character in enumerate(names.alphabet, start=2)}
    for language, label in enumerate(names.labels):
        written = write_names(model, language, names, seed)
        rows = [np.array([place[one] for one in text], dtype=int) for text in written if text]
        right = (scores.predictions(judge, rows) == language).mean()
        new = np.mean([text not in seen for text in written])
        found[label] = {"samples": written[:SHOWN], "recognised": right, "new": new}
        print(f"{label:11} {', '.join(written[:SHOWN]):60} {right:4.0%} recognised, {new:4.0%} new")
    return found


def main() -> None:
    arguments = jobs.parser(__doc__ or "", "names").parse_args()
    arguments.epochs = arguments.epochs or (15 if arguments.quick else EPOCHS)
    started = time.perf_counter()
    pairs: Iterable[Any] = made_names(arguments.seed)
    if not arguments.quick:
        path = jobs.find_data(arguments, "names", [FILE]) / FILE
        pairs = [tuple(line.split("\t")) for line in jobs.read_lines(path)]
    names = as_names(pairs, arguments.seed)
    print(f"{len(names.texts)} pairs of name and language, {len(set(names.texts))} spellings")
    tables, judge = read_names(names, arguments)
    found: dict[str, Any] = {"pairs": len(names.texts)}
    for name, each in tables.items():
        found[name] = scores.figures_of(f"all folds, {name}", each, names.labels)
    (writer, told), (_, untold) = (fit_writer(names, known, arguments) for known in (True, False))
    print(f"nats a character: {told:.3f} told the language, {untold:.3f} not told")
    found["nats_a_character"] = {"told": told, "not told": untold}
    found["written"] = judged(writer, judge, names, arguments.seed)
    shown = {name: np.sum(tables[name], axis=0) for name in ("no weights", "weights")}
    scores.draw_confusions(jobs.picture_path("names", arguments), shown, names.labels)
    jobs.write_results("names", arguments, found, started)


if __name__ == "__main__":
    main()
