"""What some jobs share: validation chooses a setting, and the test part is read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Added to --seed for the folds. Nothing was split by it until the stored results were made.
SPLITS = 1847
FOLDS = 5


class Sealed:
    """The places of the examples that test: they are handed out once.

    Raises
    ------
    RuntimeError
        From :meth:`open`, if it was called before.

    Examples
    --------
    >>> part = Sealed(np.array([2, 5]))
    >>> len(part), part.open().tolist()
    (2, [2, 5])
    """

    def __init__(self, places: np.ndarray) -> None:
        self._places: np.ndarray | None = places
        self._count = len(places)

    def __len__(self) -> int:
        return self._count

    def open(self) -> np.ndarray:
        """Return the places ``(N,)``, and never again."""
        if self._places is None:
            raise RuntimeError("the test part: expected to be read once, and it was read before")
        places, self._places = self._places, None
        return places


class Parts(NamedTuple):
    """Which examples are learnt from, how these split for the choice, and those that test."""

    learnt: np.ndarray
    inner: list[tuple[np.ndarray, np.ndarray]]
    """Pairs of what trains and what validates, all of them among those learnt from."""
    test: Sealed


def nested_parts(test: np.ndarray, validations: Sequence[np.ndarray]) -> Parts:
    """Return the parts where `test` says what tests; each of `validations` is an inner split.

    Both are masks ``(N,)`` over all examples; what tests is taken out of the validations.
    """
    inner = [(np.flatnonzero(~test & ~each), np.flatnonzero(~test & each)) for each in validations]
    return Parts(np.flatnonzero(~test), inner, Sealed(np.flatnonzero(test)))


def fold_parts(tenths: np.ndarray, fold: int) -> Parts:
    """Return a fold's parts: two of ten parts test, and of the other eight the next validates."""
    following = (2 * fold + 2) % (2 * FOLDS)
    return nested_parts(tenths // 2 == fold, [tenths == following])


def choose(
    settings: Mapping[str, Any],
    inner: Sequence[tuple[np.ndarray, np.ndarray]],
    judge: Callable[[Any, np.ndarray, np.ndarray], np.ndarray],
    figure: Callable[[np.ndarray], float],
    label: str,
) -> tuple[str, dict[str, float]]:
    """Return the name of the setting that validates best, and what each reached.

    The examples that test are not among what it gets.

    Parameters
    ----------
    settings : mapping
        What `judge` takes, by name; of equals the first is chosen.
    inner : sequence of pairs of ndarray
        :attr:`Parts.inner`.
    judge : callable
        From a setting, what trains and what validates to the confusions on the latter.
    figure : callable
        What the confusions of all validations together are worth; more is better.
    """
    found = {}
    for name, setting in settings.items():
        tables = [judge(setting, *pair) for pair in inner]
        found[name] = figure(np.sum(tables, axis=0))
        print(f"{label}, {name}: validation {found[name]:.3f}", flush=True)
    chosen = max(found, key=lambda name: found[name])
    print(f"{label}: chosen is {chosen}")
    return chosen, found


class Committee:
    """Classifiers that are called as one: the mean of their probabilities ``(N, classes)``."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = members

    def __call__(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        each = np.stack([np.asarray(member(x, lengths), np.float64) for member in self.members])
        shares = np.exp(each - each.max(axis=-1, keepdims=True))
        whole: np.ndarray = (shares / shares.sum(axis=-1, keepdims=True)).mean(axis=0)
        return whole
