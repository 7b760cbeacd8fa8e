"""The surnames of names.py: pairs of language and name, each once, in ten parts, and as batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scores
import selection

from rnncore import models, nn, train

START, END = 0, 1


class Names(NamedTuple):
    """Pairs of name and language, each once; a spelling is in one of ten parts."""

    texts: list[str]
    languages: np.ndarray
    tenths: np.ndarray
    labels: list[str]
    alphabet: list[str]

    def rows(self, which: np.ndarray) -> list[np.ndarray]:
        return self.encoded([self.texts[i] for i in which])

    def encoded(self, texts: list[str]) -> list[np.ndarray]:
        """Return texts as indices; 0 and 1 are the start and the end."""
        place = {character: i for i, character in enumerate(self.alphabet, start=2)}
        return [np.array([place[one] for one in text]) for text in texts]


def as_names(pairs: Iterable[tuple[str, str]], seed: int) -> Names:
    """Return pairs of language and name, in ten parts that have each language's share."""
    kept = sorted(set(pairs))
    labels = sorted({language for language, _ in kept})
    languages = np.array([labels.index(language) for language, _ in kept])
    texts = [text for _, text in kept]
    dealt = scores.stratified_folds(languages, 2 * selection.FOLDS, selection.SPLITS + seed)
    part_of = dict(zip(texts[::-1], dealt[::-1], strict=True))
    together = np.array([part_of[text] for text in texts])
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


def about_languages(batches: Iterable[Any], languages: int) -> Iterator[Any]:
    """Turn pairs of a language and a name into what OneToMany reads; -1 is no language."""
    for (source, read), targets, _ in batches:
        yield (np.eye(languages + 1, languages, dtype=np.float32)[source[0]], read), targets


class Writings:
    """Names that a writer learns, or is measured by, told their languages or not."""

    def __init__(self, names: Names, which: np.ndarray, told: bool, seed: int) -> None:
        languages = names.languages[which] if told else np.full(len(which), -1)
        sources, self.count = [[language] for language in languages], len(names.labels)
        self.pairs = train.PairBatches(sources, names.rows(which), 128, START, END, seed)

    def nats(self, model: models.OneToMany) -> float:
        """Return the mean loss of a character, the end of a name among them."""
        unseen = about_languages(self.pairs.epoch(), self.count)
        return train.evaluate(model, nn.SoftmaxCrossEntropy(), unseen)
