"""Surnames of 18 languages, character by character: tell the language, and write names of one.

1. Many to one: a bidirectional GRU reads a name and says which language it is of. Classes are very
   unbalanced, so macro-F1 decides. In each of five folds validation among the other names chooses
   the setting; three trainings of what it chose answer together, and the fold is read once. The set
   has many names more than once (108 Arabic ones stand there 2,000 times): pairs of name and
   language count once, and a spelling is in one fold, whatever the number of its languages.
2. One to many: a GRU starts from a language and writes a name. Its nats a character are compared
   with those of the same model that is not told the language; the readers of the first fold
   judge what it writes.

python examples/names.py --data DIR
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores
import selection
from surnames import END, START, Names, Writings, about_languages, as_names, made_names

import rnncore as rc
from rnncore import models, nn, train

FILE = "names.tsv"
MEMBERS, WRITER_EPOCHS, SHOWN, JUDGED = 3, 14, 5, 100


class Setting(NamedTuple):
    """What validation chooses."""

    units: int = 64
    dropout: float = 0.25
    batch: int = 64
    epochs: int = 14
    rate: float = 5e-3
    weighted: bool = True
    """Whether a class weighs by the inverse root of its size."""
    reduce: str = "last"


SETTINGS = {
    "64 units": Setting(),
    "64 units, no weights": Setting(weighted=False),
    "64 units, mean of all states": Setting(reduce="mean"),
    "96 units, much dropout": Setting(96, 0.4, 128, 10),
    "128 units": Setting(128, 0.3, 64, 16, 3e-3),
}


# --- many to one ----------------------------------------------------------------------------------


def fit_readers(
    names: Names, known: np.ndarray, setting: Setting, seeds: Sequence[int], arguments: Namespace
) -> selection.Committee:
    """Train classifiers, one for each seed; the last epoch counts."""
    classes, languages, members = len(names.labels), names.languages[known], []
    weight = scores.root_weights(languages, classes) if setting.weighted else None
    rows, symbols = names.rows(known), 2 + len(names.alphabet)
    for seed in seeds:
        given = {"vocabulary": symbols, "dropout": setting.dropout, "seed": seed + 1}
        layer = rc.GRU(32, setting.units, bidirectional=True, seed=seed)
        model = models.Classifier(layer, classes, reduce=setting.reduce, **given)
        batches = train.PaddedBatches(rows, languages.tolist(), setting.batch, seed)
        plan = batches.per_epoch, arguments.epochs or setting.epochs, setting.rate, None
        scores.fit(model, nn.SoftmaxCrossEntropy(weight=weight), batches, *plan, "reader")
        members.append(model)
    return selection.Committee(members)


def train_readers(names: Names, parts: selection.Parts, arguments: Namespace, label: str) -> Any:
    """Return a fold's readers in the setting that validates best, and how the settings did."""
    classes, languages, seed = len(names.labels), names.languages, arguments.seed
    settings = dict(list(SETTINGS.items())[: 2 if arguments.quick else None])

    def judge(setting: Setting, known: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        readers = fit_readers(names, known, setting, [seed], arguments)
        given = scores.predictions(readers, names.rows(unseen), 256)
        return scores.confusions(languages[unseen], given, classes)

    chosen, validation = selection.choose(settings, parts.inner, judge, scores.macro_f1, label)
    seeds = range(seed, seed + 10 * MEMBERS, 10)
    readers = fit_readers(names, parts.learnt, settings[chosen], seeds, arguments)
    return readers, {"chosen": chosen, "validation_macro_f1": validation}


def read_test(
    names: Names, learnt: np.ndarray, test: np.ndarray, readers: selection.Committee
) -> dict[str, np.ndarray]:
    """Return the confusions of all that tell the languages of a fold."""
    classes, languages = len(names.labels), names.languages
    framed = [[f"^{names.texts[i]}$" for i in part] for part in (learnt, test)]
    given = {
        "most frequent": np.full(len(test), np.bincount(languages[learnt]).argmax()),
        "runs of 1-3": scores.naive_bayes(framed[0], languages[learnt], framed[1], classes),
        "GRU": scores.predictions(readers, names.rows(test), 256),
    }
    for number, member in enumerate(readers.members, start=1):
        given[f"GRU, training {number}"] = scores.predictions(member, names.rows(test), 256)
    return {name: scores.confusions(languages[test], one, classes) for name, one in given.items()}


# --- one to many ----------------------------------------------------------------------------------


def fit_writer(
    names: Names, parts: selection.Parts, told: bool, arguments: Namespace
) -> models.OneToMany:
    """Train on a fold; the epoch that validates best is the one that is kept."""
    count, seed = len(names.labels), arguments.seed
    layer = rc.GRU(32, 128, seed=seed)
    model = models.OneToMany(count, 2 + len(names.alphabet), layer, dropout=0.2, seed=seed + 1)
    learnt, unseen = (Writings(names, which, told, seed) for which in parts.inner[0])
    batches, loss = about_languages(learnt.pairs, count), nn.SoftmaxCrossEntropy()
    plan = learnt.pairs.per_epoch, arguments.epochs or WRITER_EPOCHS, 5e-3, unseen.nats
    scores.fit(model, loss, batches, *plan, "told the language" if told else "not told")
    return model


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
    for language, label in enumerate(names.labels):
        written = write_names(model, language, names, seed)
        rows = names.encoded([text for text in written if text])
        right = (scores.predictions(judge, rows) == language).mean()
        new = np.mean([text not in seen for text in written])
        found[label] = {"samples": written[:SHOWN], "recognised": right, "new": new}
        print(f"{label:11} {', '.join(written[:SHOWN]):60} {right:4.0%} recognised, {new:4.0%} new")
    return found


def main() -> None:
    arguments = jobs.parser(__doc__ or "", "names").parse_args()
    arguments.epochs = arguments.epochs or (15 if arguments.quick else None)
    seed, started = arguments.seed, time.perf_counter()
    pairs: Iterable[Any] = made_names(seed)
    if not arguments.quick:
        path = jobs.find_data(arguments, "names", [FILE]) / FILE
        pairs = [tuple(line.split("\t")) for line in jobs.read_lines(path)]
    names = as_names(pairs, seed)
    print(f"{len(names.texts)} pairs of name and language, {len(set(names.texts))} spellings")
    folds = range(1 if arguments.quick else selection.FOLDS)
    parts = [selection.fold_parts(names.tenths, fold) for fold in folds]
    trained = [train_readers(names, parts[i], arguments, f"fold {i + 1}") for i in folds]
    writers = {told: fit_writer(names, parts[0], told, arguments) for told in (True, False)}
    tests = [part.test.open() for part in parts]  # all has been chosen and trained
    read = [
        read_test(names, part.learnt, test, readers)
        for part, test, (readers, _) in zip(parts, tests, trained, strict=True)
    ]
    tables = {name: [fold[name] for fold in read] for name in read[0]}
    found: dict[str, Any] = {"pairs": len(names.texts), "folds": [how for _, how in trained]}
    for name, each in tables.items():
        found[name] = scores.figures_of(f"all folds, {name}", each, names.labels)
    nats = {told: Writings(names, tests[0], told, 0).nats(writers[told]) for told in writers}
    print(f"nats a character: {nats[True]:.3f} told the language, {nats[False]:.3f} not told")
    found["nats_a_character"] = {"told": nats[True], "not told": nats[False]}
    found["written"] = judged(writers[True], trained[0][0], names, seed)
    shown = {name: np.sum(tables[name], axis=0) for name in ("runs of 1-3", "GRU")}
    scores.draw_confusions(jobs.picture_path("names", arguments), shown, names.labels)
    jobs.write_results("names", arguments, found, started)


if __name__ == "__main__":
    main()
