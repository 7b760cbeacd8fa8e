"""Write sequences with any model that steps: draw them, or search for the most probable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rnncore import devices
from rnncore.checks import Array, size

Step: TypeAlias = Callable[[Array, Any], tuple[Array, Any]]
"""Takes the last symbols ``(N,)`` and a state; returns logits ``(N, V)`` and the next state.

Symbols are on the host, where the search is. A model on a GPU keeps the state there; its logits are
read back at each step."""


class Sampled(NamedTuple):
    """Sequences that were drawn."""

    symbols: Array
    """``(T, N)``; past the end symbol, that symbol."""
    log_probabilities: Array
    """``(N,)``, of the whole sequences under the model at temperature 1."""


class Hypothesis(NamedTuple):
    """One sequence that a search has found."""

    symbols: list[int]
    """Without the start, up to and with the end symbol."""
    log_probability: float
    """Of the whole sequence."""


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities over the last axis, in float64 on the host."""
    logits = devices.of(logits).download(logits)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def sample(
    step: Step,
    start: Any,
    length: int,
    *,
    state: Any = None,
    temperature: float = 1.0,
    end: int | None = None,
    seed: int = 0,
) -> Sampled:
    """Draw sequences symbol by symbol.

    Parameters
    ----------
    step : callable
        As :data:`Step`.
    start : array_like of int (N,)
        The symbols that come before the first.
    length : int
        Most symbols to draw.
    state : state, optional
        What the first step is given.
    temperature : float
        Divides the logits: below 1 the probable becomes more so; 0 takes the most probable.
    end : int, optional
        The symbol that ends a sequence.
    seed : int
        Of the draws.

    Returns
    -------
    Sampled
        Symbols ``(T, N)`` with T up to `length`, and log-probabilities ``(N,)``.

    Examples
    --------
    >>> def step(symbols, state):  # after n comes n + 1
    ...     return np.where(np.arange(5) == symbols[:, None] + 1, 20.0, 0.0), state
    >>> sample(step, [0, 2], 9, end=4).symbols.T.tolist()
    [[1, 2, 3, 4], [3, 4, 4, 4]]
    """
    if not temperature >= 0:
        raise ValueError(f"temperature: expected at least 0, got {temperature}")
    size("length", length)
    draw, symbols = np.random.default_rng(seed), np.asarray(start, dtype=np.int64)
    rows, total = np.arange(len(symbols)), np.zeros(len(symbols))
    live, written = np.ones(len(symbols), dtype=bool), []
    for _ in range(length):
        logits, state = step(symbols, state)
        shares = log_softmax(logits)
        if temperature:
            # The largest of logits with Gumbel noise is distributed as softmax (Gumbel, 1954).
            noise = draw.gumbel(size=shares.shape)
            chosen = (shares / temperature + noise).argmax(axis=1)
        else:
            chosen = shares.argmax(axis=1)
        symbols = chosen if end is None else np.where(live, chosen, end)
        total += np.where(live, shares[rows, symbols], 0.0)
        written.append(symbols)
        live = live & (symbols != end)
        if not live.any():
            break
    return Sampled(np.array(written), total)


def beam_search(
    step: Step,
    start: Any,
    length: int,
    *,
    state: Any = None,
    width: int = 4,
    end: int | None = None,
    length_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """Search for the most probable sequences, keeping the best few at each step.

    Parameters
    ----------
    step : callable
        As :data:`Step`. The arrays of its state, in tuples and lists as deep as it likes, have
        rows on their axis 1, as the layers' states have.
    start : array_like of int (N,)
        The symbols that come before the first.
    length : int
        Most symbols of a sequence.
    state : state, optional
        What the first step is given, of N rows.
    width : int
        Sequences that are kept; 1 takes the most probable symbol each time.
    end : int, optional
        The symbol that ends a sequence. An ended one keeps its place among the best.
    length_penalty : float
        Results are ordered by log-probability over their length to this power: 0 by
        log-probability, 1 by its mean per symbol.

    Returns
    -------
    list of N lists of Hypothesis
        Best first, at most `width`.

    References
    ----------
    Sutskever, Vinyals and Le, Sequence to sequence learning with neural networks, 2014. Wu et al.,
    Google's neural machine translation system, 2016, for the length penalty.

    Examples
    --------
    >>> def step(symbols, state):  # 0 and 1 may follow anything, 1 with probability 0.75; 2 ends
    ...     return np.log(np.tile([0.2, 0.6, 0.2], (len(symbols), 1))), state
    >>> best, *_ = beam_search(step, [0], 2, width=9, end=2)[0]
    >>> best.symbols, round(float(np.exp(best.log_probability)), 4)
    ([1, 1], 0.36)
    """
    width, length = size("width", width), size("length", length)
    symbols = np.repeat(np.asarray(start, dtype=np.int64), width)
    count = len(symbols) // width
    state = take_rows(state, np.repeat(np.arange(count), width))
    scores = np.where(np.arange(width) == 0, 0.0, -np.inf) + np.zeros((count, 1))
    written = np.zeros((count, width, 0), dtype=np.int64)
    ended = np.zeros((count, width), dtype=bool)
    for _ in range(length):
        logits, state = step(symbols, state)
        shares = log_softmax(logits).reshape(count, width, -1)
        if end is not None:
            stay = np.where(np.arange(shares.shape[2]) == end, 0.0, -np.inf)
            shares = np.where(ended[..., None], stay, shares)
        scores, parents, chosen = _best(scores[..., None] + shares, width)
        written = np.concatenate(
            [np.take_along_axis(written, parents[..., None], axis=1), chosen[..., None]], axis=2
        )
        ended = np.take_along_axis(ended, parents, axis=1) | (chosen == end)
        symbols = chosen.reshape(-1)
        if ended.all():
            break
        state = take_rows(state, (parents + width * np.arange(count)[:, None]).reshape(-1))
    return [
        _ordered(row, row_scores, end, length_penalty)
        for row, row_scores in zip(written, scores, strict=True)
    ]


def _best(totals: Array, width: int) -> tuple[Array, Array, Array]:
    """Return the `width` largest of ``totals (N, width, V)``, whose beams they go on, and how."""
    classes = totals.shape[2]
    flat = totals.reshape(len(totals), -1)
    some = np.argpartition(-flat, width - 1, axis=1)[:, :width]
    some.sort(axis=1)  # ties go to the better beam and the smaller symbol
    order = np.argsort(-np.take_along_axis(flat, some, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(some, order, axis=1)
    return np.take_along_axis(flat, places, axis=1), places // classes, places % classes


def _ordered(rows: Array, scores: Array, end: int | None, penalty: float) -> list[Hypothesis]:
    found = []
    for symbols, score in zip(rows.tolist(), scores.tolist(), strict=True):
        if np.isfinite(score):
            stop = symbols.index(end) + 1 if end in symbols else len(symbols)
            found.append(Hypothesis(symbols[:stop], score))
    return sorted(found, key=lambda one: -one.log_probability / len(one.symbols) ** penalty)


def take_rows(state: Any, rows: Array) -> Any:
    """Return a state with some of its rows, axis 1 of every array in it."""
    if state is None:
        return None
    if isinstance(state, tuple | list):
        parts = [take_rows(part, rows) for part in state]
        return state._make(parts) if hasattr(state, "_make") else type(state)(parts)
    chosen: Array = state[:, devices.of(state).upload(rows)]
    return chosen
