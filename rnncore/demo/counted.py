"""The yardstick: a language model that only counts."""

from __future__ import annotations

import numpy as np

from rnncore.demo.text import Text

MOST_TRAINING = 10_000_000


def counted_loss(text: Text, order: int = 5) -> float:
    r"""Return the loss of an n-gram model on the last tenth, in nats per character.

    Probabilities of each order are mixed with those of the order below (Witten and Bell, 1991):
    in a context seen n times with d different characters after it,
    :math:`p_k(c) = (count(c) + d\, p_{k-1}(c)) / (n + d)`, down to equal shares.

    Parameters
    ----------
    text : Text
        Counted on its training part (at most the last ten million characters of it).
    order : int
        ``n``: the longest context has ``n - 1`` characters.

    Examples
    --------
    >>> from rnncore.demo.text import split_text
    >>> round(counted_loss(split_text("abc", "abc" * 3 + "q")), 3)
    6.762
    """
    start = max(0, text.cut - MOST_TRAINING)
    indices, cut = text.indices[start:], text.cut - start
    symbols = len(text.alphabet)
    probability = np.full(indices.size - cut, 1 / symbols)
    contexts = np.zeros(indices.size, dtype=np.int64)
    for length in range(order):
        if length:
            codes = contexts[1:] * symbols + indices[: indices.size - length]
            contexts = np.unique(codes, return_inverse=True)[1]
        events, inverse = np.unique(
            contexts * symbols + indices[length:], return_inverse=True
        )  # entry j is about the character at place length + j
        train = cut - length
        times = np.bincount(inverse[:train], minlength=events.size)
        seen = np.bincount(contexts[:train], minlength=contexts.max() + 1)
        kinds = np.bincount(events[times > 0] // symbols, minlength=seen.size)
        here, n, d = times[inverse[train:]], seen[contexts[train:]], kinds[contexts[train:]]
        mixed = (here + d * probability) / np.maximum(n + d, 1)
        probability = np.where(n > 0, mixed, probability)
    return float(-np.log(probability).mean())
