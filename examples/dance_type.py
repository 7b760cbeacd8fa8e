"""The type of a dance from its tune: ABC's notes alone, symbol by symbol.

Of each tune in the Nottingham collection the notes are read: no header, so neither the meter, which
would give the type away, nor the key or the title. Tunes that stand there twice count once. In each
of five folds validation among the other tunes chooses how a tune is cut into symbols and whether
rare types weigh more; three trainings of what it chose answer together, and the fold is read once.

python examples/dance_type.py --data DIR
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores
import selection

import rnncore as rc
from rnncore import models, nn, train

FILE = "nottingham_abc.jsonl"
EPOCHS, MEMBERS = 15, 3
CHORDS = re.compile(r'"[^"]*"')
TOKENS = re.compile(r"\"[^\"]*\"|\(\d|\[\d|[:|]+\]?|[_=^]*[A-Ga-gz][,']*|\d*/?\d+|\S")


class Setting(NamedTuple):
    """What validation chooses: what is one symbol, and whether rare types weigh more."""

    level: str = "characters"
    weighted: bool = False


SETTINGS = {
    "characters": Setting(),
    "characters, weights of types": Setting(weighted=True),
    "tokens": Setting("tokens"),
    "tokens and chords": Setting("tokens and chords"),
}


class Tunes(NamedTuple):
    """Tunes as indices of symbols by level, which type each is of, and what the header names."""

    rows: dict[str, list[np.ndarray]]
    types: np.ndarray
    names: list[str]
    meters: list[str]

    def at(self, level: str, places: np.ndarray) -> list[np.ndarray]:
        return [self.rows[level][i] for i in places]


def symbols_of(text: str, level: str) -> list[str]:
    """Return a tune's symbols; chord symbols are left out but for one level."""
    if level == "tokens and chords":
        return TOKENS.findall(text)
    text = CHORDS.sub("", text)
    return list(text) if level == "characters" else TOKENS.findall(text)


def load_tunes(lines: list[str]) -> Tunes:
    """Return the tunes that differ."""
    stored = list({tune["abc"]: tune for tune in map(json.loads, lines)}.values())
    return as_tunes(*([tune[name] for tune in stored] for name in ("abc", "label", "meter")))


def as_tunes(texts: list[str], labels: list[str], meters: list[str]) -> Tunes:
    rows = {}
    for level in {setting.level for setting in SETTINGS.values()}:
        rows[level] = numbered([symbols_of(text, level) for text in texts])
    names = [name for name, _ in Counter(labels).most_common()]
    return Tunes(rows, np.array([names.index(one) for one in labels]), names, meters)


def numbered(rows: list[list[str]]) -> list[np.ndarray]:
    """Return rows as indices, the most frequent first; 0 is what stands there once or twice."""
    frequent = Counter(symbol for row in rows for symbol in row)
    kept = [symbol for symbol, count in frequent.most_common() if count > 2]
    place = {symbol: i for i, symbol in enumerate(kept, start=1)}
    return [np.array([place.get(symbol, 0) for symbol in row]) for row in rows]


def made_tunes(seed: int) -> Tunes:
    """Return tunes for --quick: bars of two groups of three or four notes, or of three long."""
    draw, texts, labels = np.random.default_rng(seed), [], []
    for name, count, groups, notes, length in (
        ("reel", 120, 2, 4, ""),
        ("jig", 80, 2, 3, ""),
        ("waltz", 40, 3, 1, "2"),
    ):
        for _ in range(count):
            drawn = draw.choice(list("DEFGABcd"), (4, groups, notes))
            bars = [" ".join("".join(n + length for n in group) for group in bar) for bar in drawn]
            texts.append("|".join(bars))
            labels.append(name)
    return as_tunes(texts, labels, [{"waltz": "3/4"}.get(name, "4/4") for name in labels])


def fit(
    tunes: Tunes, known: np.ndarray, setting: Setting, seeds: Sequence[int], epochs: int
) -> selection.Committee:
    """Train on tunes, once for each seed; the last epoch counts."""
    classes, types, members = len(tunes.names), tunes.types[known], []
    symbols = 1 + max(row.max() for row in tunes.rows[setting.level])
    rows = tunes.at(setting.level, known)
    loss = nn.SoftmaxCrossEntropy(
        weight=scores.root_weights(types, classes) if setting.weighted else None
    )
    for seed in seeds:
        given = {"reduce": "mean", "vocabulary": symbols, "dropout": 0.3, "seed": seed + 1}
        layer = rc.GRU(32, 64, bidirectional=True, seed=seed)
        model = models.Classifier(layer, classes, **given)
        batches = train.PaddedBatches(rows, types.tolist(), 32, seed)
        plan = batches.per_epoch, epochs, 5e-3, None
        scores.fit(model, loss, batches, *plan, setting.level)
        members.append(model)
    return selection.Committee(members)


def counted(tunes: Tunes, known: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Return the types that three rules which only count give the tunes of a fold."""
    types, classes, meters = tunes.types[known], len(tunes.names), tunes.meters
    frequent = np.bincount(types).argmax()
    rows, asked = ([row.tolist() for row in tunes.at("characters", part)] for part in (known, test))
    met: dict[str, Counter[int]] = {}
    for i in known:
        met.setdefault(meters[i], Counter())[tunes.types[i]] += 1
    return {
        "most frequent": np.full(len(test), frequent),
        "runs of 1-3": scores.naive_bayes(rows, types, asked, classes),
        "the meter": np.array(
            [met[meters[i]].most_common(1)[0][0] if meters[i] in met else frequent for i in test]
        ),
    }


def read_test(
    tunes: Tunes, parts: selection.Parts, level: str, committee: selection.Committee
) -> dict[str, np.ndarray]:
    """Read a fold, which can be done once; return the confusions of all that forecast it."""
    test = parts.test.open()
    given = counted(tunes, parts.learnt, test)
    rows = tunes.at(level, test)
    given["GRU"] = scores.predictions(committee, rows)
    for number, member in enumerate(committee.members, start=1):
        given[f"GRU, training {number}"] = scores.predictions(member, rows)
    right, classes = tunes.types[test], len(tunes.names)
    return {name: scores.confusions(right, one, classes) for name, one in given.items()}


def main() -> None:
    arguments = jobs.parser(__doc__ or "", "music").parse_args()
    epochs = arguments.epochs or (45 if arguments.quick else EPOCHS)
    seed, started = arguments.seed, time.perf_counter()
    if arguments.quick:
        tunes = made_tunes(seed)
    else:
        path = jobs.find_data(arguments, "music", [FILE]) / FILE
        tunes = load_tunes(jobs.read_lines(path))
    settings = dict(list(SETTINGS.items())[: 2 if arguments.quick else None])
    tenths = scores.stratified_folds(tunes.types, 2 * selection.FOLDS, selection.SPLITS + seed)

    def judge(setting: Setting, known: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        model = fit(tunes, known, setting, [seed], epochs)
        given = scores.predictions(model, tunes.at(setting.level, unseen))
        return scores.confusions(tunes.types[unseen], given, len(tunes.names))

    found: dict[str, Any] = {"tunes": len(tunes.types), "folds": []}
    trained = []
    for fold in range(1 if arguments.quick else selection.FOLDS):
        parts = selection.fold_parts(tenths, fold)
        given = settings, parts.inner, judge, scores.accuracy, f"fold {fold + 1}"
        chosen, validation = selection.choose(*given)
        seeds = range(seed, seed + 10 * MEMBERS, 10)
        committee = fit(tunes, parts.learnt, settings[chosen], seeds, epochs)
        trained.append((parts, settings[chosen].level, committee))
        found["folds"].append({"chosen": chosen, "validation_accuracy": validation})
    read = [read_test(tunes, *fold) for fold in trained]  # all has been chosen and trained
    tables = {name: [fold[name] for fold in read] for name in read[0]}
    for name, each in tables.items():
        found[name] = scores.figures_of(f"all folds, {name}", each, tunes.names)
    shown = {name: np.sum(tables[name], axis=0) for name in ("the meter", "GRU")}
    scores.draw_confusions(jobs.picture_path("dance_type", arguments), shown, tunes.names)
    jobs.write_results("dance_type", arguments, found, started)


if __name__ == "__main__":
    main()
