"""Sampling and beam search, beside every sequence there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import rnncore as rc
from rnncore import models
from rnncore.models.search import log_softmax

END = 3


def language_model(seed: int = 0) -> models.LanguageModel:
    model = models.LanguageModel(4, rc.LSTM(3, 5, dtype="float64", seed=seed), seed=seed + 1)
    for value in model.params.values():
        value *= 3  # far from even
    return model


def log_probability(model: models.LanguageModel, symbols: list[int], start: int = 0) -> float:
    read = np.array([start, *symbols[:-1]])[:, None]
    shares = log_softmax(model(read)[0])[:, 0]
    return float(shares[np.arange(len(symbols)), symbols].sum())


def all_sequences(length: int) -> list[list[int]]:
    """Return every sequence that ends with END, or that is as long as can be."""
    words = []
    for n in range(1, length + 1):
        for word in itertools.product(range(4), repeat=n):
            inside = END in word[:-1]
            if not inside and (word[-1] == END or n == length):
                words.append(list(word))
    return words


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_wide_beam_finds_the_best_of_all_sequences(seed: int) -> None:
    model = language_model(seed)
    found = models.beam_search(model.stepper(), [0], 4, width=200, end=END)[0]
    every = sorted(all_sequences(4), key=lambda word: -log_probability(model, word))
    assert len(found) == len(every)
    assert [one.symbols for one in found[:10]] == every[:10]
    for one in found:
        assert one.log_probability == pytest.approx(log_probability(model, one.symbols))
    assert sum(np.exp(one.log_probability) for one in found) == pytest.approx(1.0)


def test_a_beam_of_one_takes_the_most_probable_symbol_each_time() -> None:
    model = language_model()
    greedy = models.sample(model.stepper(), [0, 1, 2], 6, temperature=0, end=END)
    found = models.beam_search(model.stepper(), [0, 1, 2], 6, width=1, end=END)
    for n, (one,) in enumerate(found):
        np.testing.assert_array_equal(one.symbols, greedy.symbols[: len(one.symbols), n])
        assert one.log_probability == pytest.approx(greedy.log_probabilities[n])


def test_rows_are_searched_as_if_alone() -> None:
    model = language_model()
    together = models.beam_search(model.stepper(), [0, 1, 2], 5, width=3, end=END)
    for start, found in enumerate(together):
        (alone,) = models.beam_search(model.stepper(), [start], 5, width=3, end=END)
        assert [one.symbols for one in alone] == [one.symbols for one in found]
        for one, other in zip(alone, found, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, rel=1e-9)
            assert one.log_probability == pytest.approx(
                log_probability(model, one.symbols, start), rel=1e-9
            )


def test_a_length_penalty_favours_longer_sequences() -> None:
    def step(symbols: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        return np.log(np.tile([0.6, 0.4], (len(symbols), 1))), state

    by_sum = models.beam_search(step, [0], 5, width=64, end=1)[0]
    by_mean = models.beam_search(step, [0], 5, width=64, end=1, length_penalty=1.0)[0]
    assert by_sum[0].symbols == [1]
    assert by_mean[0].symbols == [0, 0, 0, 0, 0]


def test_a_search_without_an_end_writes_the_whole_length() -> None:
    found = models.beam_search(language_model().stepper(), [0], 5, width=3)[0]
    assert {len(one.symbols) for one in found} == {5}
    scores = [one.log_probability for one in found]
    assert scores == sorted(scores, reverse=True)


def test_drawn_sequences_are_as_frequent_as_they_are_probable() -> None:
    model, count = language_model(), 4000
    drawn = models.sample(model.stepper(), np.zeros(count, int), 3, end=END, seed=5)
    words = [tuple(word[: word.index(END) + 1] if END in word else word)
             for word in drawn.symbols.T.tolist()]  # fmt: skip
    for word in all_sequences(3):
        share = np.exp(log_probability(model, word))
        spread = np.sqrt(share * (1 - share) / count)
        assert words.count(tuple(word)) / count == pytest.approx(share, abs=5 * spread + 1e-3)
    for word, value in zip(words[:20], drawn.log_probabilities, strict=False):
        assert value == pytest.approx(log_probability(model, list(word)))


def test_a_low_temperature_is_greedy_and_a_high_one_is_even() -> None:
    step = language_model().stepper()
    starts = np.zeros(600, int)
    greedy = models.sample(step, [0], 5, temperature=0).symbols
    cold = models.sample(step, starts, 5, temperature=1e-3).symbols
    np.testing.assert_array_equal(cold, np.repeat(greedy, 600, axis=1))
    hot = models.sample(step, starts, 5, temperature=1e3).symbols
    counts = np.bincount(hot.reshape(-1), minlength=4) / hot.size
    np.testing.assert_allclose(counts, 0.25, atol=0.05)


def test_the_same_seed_draws_the_same() -> None:
    step = language_model().stepper()
    one, same, other = (models.sample(step, [0], 30, seed=seed).symbols for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_senseless_numbers_are_refused() -> None:
    step = language_model().stepper()
    with pytest.raises(ValueError, match="temperature"):
        models.sample(step, [0], 3, temperature=-1)
    for options in ({"width": 0}, {"length": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            models.beam_search(step, [0], **({"length": 3} | options))
