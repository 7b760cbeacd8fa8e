"""The type of a dance from its tune: ABC's notes alone, character by character.

Of each tune in the Nottingham collection the notes are read: no header, so neither the meter, which
would give the type away, nor the key or the title; and no chord symbols. Tunes that stand there
twice count once. Five folds, each of which is tested once; of the rest an eighth validates.
Trained without weights and with weights of classes, since nearly half of all tunes are reels.

python examples/dance_type.py --data DIR
"""

from __future__ import annotations

import json
import re
import time
from argparse import Namespace
from collections import Counter
from typing import Any, NamedTuple

import jobs
import numpy as np
import scores

import rnncore as rc
from rnncore import models, nn, train

FILE = "nottingham_abc.jsonl"
FOLDS, EPOCHS = 5, 20
CHORDS = re.compile(r'"[^"]*"')
TOKENS = re.compile(r"\(\d|\[\d|[:|]+\]?|[_=^]*[A-Ga-gz][,']*|\d*/?\d+|\S")
MEASURES = {"no weights": scores.accuracy, "weights": scores.macro_f1}


class Tunes(NamedTuple):
    """Tunes as indices of symbols, and which type each is of."""

    rows: list[np.ndarray]
    types: np.ndarray
    names: list[str]
    symbols: int


def load_tunes(lines: list[str], level: str) -> tuple[Tunes, list[str]]:
    """Return the tunes that differ, and the meters that the headers name."""
    stored = list({tune["abc"]: tune for tune in map(json.loads, lines)}.values())
    texts = [CHORDS.sub("", tune["abc"]) for tune in stored]
    rows = [list(text) if level == "characters" else TOKENS.findall(text) for text in texts]
    return numbered(rows, [tune["label"] for tune in stored]), [tune["meter"] for tune in stored]


def numbered(rows: list[list[str]], labels: list[str]) -> Tunes:
    """Return rows as indices, the most frequent first; 0 is what stands there once or twice."""
    frequent = Counter(symbol for row in rows for symbol in row)
    kept = [symbol for symbol, count in frequent.most_common() if count > 2]
    place = {symbol: i for i, symbol in enumerate(kept, start=1)}
    names = [name for name, _ in Counter(labels).most_common()]
    indices = [np.array([place.get(symbol, 0) for symbol in row]) for row in rows]
    return Tunes(indices, np.array([names.index(one) for one in labels]), names, 1 + len(kept))


def made_tunes(seed: int) -> tuple[Tunes, list[str]]:
    """Return tunes for --quick: bars of two groups of three or four notes, or of three long."""
    draw, rows, labels = np.random.default_rng(seed), [], []
    for name, count, groups, notes, length in (
        ("reel", 120, 2, 4, ""),
        ("jig", 80, 2, 3, ""),
        ("waltz", 40, 3, 1, "2"),
    ):
        for _ in range(count):
            drawn = draw.choice(list("DEFGABcd"), (4, groups, notes))
            bars = [" ".join("".join(n + length for n in group) for group in bar) for bar in drawn]
            rows.append(list("|".join(bars)))
            labels.append(name)
    return numbered(rows, labels), [{"waltz": "3/4"}.get(name, "4/4") for name in labels]


def fit(tunes: Tunes, parts: list[np.ndarray], weighted: str, arguments: Namespace) -> Any:
    """Train on one part; the epoch that does best on the other is the one that is kept."""
    known, unseen = parts
    classes, types = len(tunes.names), tunes.types
    layer = rc.GRU(32, 64, bidirectional=True, seed=arguments.seed)
    model = models.Classifier(
        layer,
        classes,
        reduce="mean",
        vocabulary=tunes.symbols,
        dropout=0.3,
        seed=arguments.seed + 1,
    )
    batches = train.PaddedBatches(
        [tunes.rows[i] for i in known], types[known].tolist(), 32, arguments.seed
    )
    weight = scores.root_weights(types[known], classes) if weighted == "weights" else None

    def validate(model: Any) -> float:
        given = scores.predictions(model, [tunes.rows[i] for i in unseen])
        return 1 - MEASURES[weighted](scores.confusions(types[unseen], given, classes))

    loss = nn.SoftmaxCrossEntropy(weight=weight)
    epochs = arguments.epochs or (45 if arguments.quick else EPOCHS)
    scores.fit(model, loss, batches, batches.per_epoch, epochs, 5e-3, validate, weighted)
    return model


def baselines(tunes: Tunes, meters: list[str], folds: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tables of three rules that only count, each on folds that it has not seen."""
    tables = {}
    classes, types = len(tunes.names), tunes.types
    given = {name: np.zeros_like(types) for name in ("most frequent", "runs of 1-3", "the meter")}
    for fold in range(FOLDS):
        test = np.flatnonzero(folds // 2 == fold)
        known = np.flatnonzero(folds // 2 != fold)
        rows, asked = (
            [tunes.rows[i].tolist() for i in known],
            [tunes.rows[i].tolist() for i in test],
        )
        given["most frequent"][test] = np.bincount(types[known]).argmax()
        given["runs of 1-3"][test] = scores.naive_bayes(rows, types[known], asked, classes)
        met = {meter: Counter(types[i] for i in known if meters[i] == meter) for meter in meters}
        given["the meter"][test] = [
            met[meters[i]].most_common(1)[0][0] if met[meters[i]] else 0 for i in test
        ]
    for name, found in given.items():
        tables[name] = scores.confusions(types, found, classes)
    return tables


def main() -> None:
    made = jobs.parser(__doc__ or "", "music")
    made.add_argument("--level", choices=("characters", "tokens"), default="characters")
    arguments = made.parse_args()
    started = time.perf_counter()
    if arguments.quick:
        tunes, meters = made_tunes(arguments.seed)
    else:
        path = jobs.find_data(arguments, "music", [FILE]) / FILE
        tunes, meters = load_tunes(jobs.read_lines(path), arguments.level)
    folds, classes = (
        scores.stratified_folds(tunes.types, 2 * FOLDS, arguments.seed),
        len(tunes.names),
    )
    found: dict[str, Any] = {"tunes": len(tunes.types), "level": arguments.level}
    for name, table in baselines(tunes, meters, folds).items():
        found[name] = scores.figures_of(name, [table], tunes.names)
    tables = {}
    for weighted in MEASURES:
        each = []
        for fold in range(1 if arguments.quick else FOLDS):
            validates = folds == (2 * fold + 2) % (2 * FOLDS)
            test = folds // 2 == fold
            parts = [np.flatnonzero(part) for part in (~test & ~validates, validates)]
            model = fit(tunes, parts, weighted, arguments)
            given = scores.predictions(model, [tunes.rows[i] for i in np.flatnonzero(test)])
            each.append(scores.confusions(tunes.types[test], given, classes))
            print(f"{weighted}, fold {fold + 1}: {scores.accuracy(each[-1]):.1%}")
        tables[weighted] = np.sum(each, axis=0)
        found[weighted] = scores.figures_of(f"{weighted}, all folds", each, tunes.names)
    scores.draw_confusions(jobs.picture_path("dance_type", arguments), tables, tunes.names)
    jobs.write_results("dance_type", arguments, found, started)


if __name__ == "__main__":
    main()
