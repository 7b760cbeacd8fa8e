"""What batch makers promise, for sizes that hypothesis draws."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncore import train

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=40)
SEEDS = st.integers(0, 2**32)


def rows_of(lengths: list[int]) -> list[np.ndarray]:
    """Return rows whose values tell which row and step they are of."""
    return [100 * n + np.arange(1, length + 1) for n, length in enumerate(lengths)]


def assert_same(one: Any, other: Any) -> None:
    for ours, theirs in zip(one, other, strict=True):
        if isinstance(ours, tuple):
            assert_same(ours, theirs)
        else:
            np.testing.assert_array_equal(ours, theirs)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 60), SEEDS, st.booleans())
def test_text_batches_carry_every_track_on(
    batch: int, steps: int, more: int, seed: int, fixed: bool
) -> None:
    text = np.arange(batch * (steps + more) + 1)
    offset = more // 2 if fixed else None
    batches = train.TextBatches(text, batch, steps, seed, offset=offset)
    track = steps + more
    for epoch in range(3):
        walk = list(batches.epoch(epoch))
        inputs = np.concatenate([one.inputs for one in walk])
        targets = np.concatenate([one.targets for one in walk])
        np.testing.assert_array_equal(targets, inputs + 1)
        np.testing.assert_array_equal(np.diff(inputs, axis=0), 1)
        np.testing.assert_array_equal(inputs[0] - inputs[0, 0], track * np.arange(batch))
        assert [one.first for one in walk] == [True] + [False] * (len(walk) - 1)
        assert 0 <= inputs[0, 0] < max(steps, more + 1)
        if fixed:
            assert inputs[0, 0] == offset
            assert len(inputs) > track - offset - steps


@settings(deadline=None)
@given(
    LENGTHS, st.integers(1, 9), SEEDS, st.booleans(), st.integers(1, 5), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_padded_batches_have_every_row_once_an_epoch(
    lengths: list[int], batch: int, seed: int, shuffle: bool, bucket: int, drop: bool, tagged: bool
) -> None:
    rows = rows_of(lengths)
    targets = [row + 7 for row in rows] if tagged else list(range(len(rows)))
    options = {"shuffle": shuffle, "bucket": bucket, "drop_last": drop}
    if drop and len(rows) < batch:
        with pytest.raises(ValueError, match="batch: expected at most"):
            train.PaddedBatches(rows, targets, batch, seed, **options)
        return
    batches = train.PaddedBatches(rows, targets, batch, seed, **options)
    for epoch in range(2):
        seen = []
        for inputs, wanted, found in batches.epoch(epoch):
            assert inputs.shape == (found.max(), len(found))
            assert len(found) == batch or not drop
            for n, length in enumerate(found):
                place = int(inputs[0, n]) // 100
                seen.append(place)
                np.testing.assert_array_equal(inputs[:length, n], rows[place])
                assert not inputs[length:, n].any()
                if tagged:
                    np.testing.assert_array_equal(wanted[:length, n], targets[place])
                    assert (wanted[length:, n] == -1).all()
                else:
                    assert wanted[n] == place
        assert len(seen) == len(set(seen))
        assert len(rows) - len(seen) < (batch if drop else 1)
        if not shuffle:
            assert seen == list(range(len(seen)))


def test_buckets_bring_lengths_together() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 640).tolist()
    rows = rows_of(lengths)
    filled = {}
    for bucket in (1, 40):
        batches = train.PaddedBatches(rows, lengths, 16, seed=1, bucket=bucket)
        filled[bucket] = sum(lengths) / sum(one.inputs.size for one in batches.epoch())
    assert filled[1] < 0.6
    assert filled[40] > 0.95
    firsts = [one.lengths.max() for one in batches.epoch()]
    assert firsts != sorted(firsts)  # the batches themselves come in no order of length


@settings(deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(0, 30), st.integers(1, 4), st.integers(1, 7),
    SEEDS, st.booleans(),
)  # fmt: skip
def test_windows_are_followed_by_their_targets(
    steps: int, horizon: int, more: int, stride: int, batch: int, seed: int, shuffle: bool
) -> None:
    time = np.arange(float(steps + horizon + more))
    series = np.stack([time, 1000 + time], axis=1)
    batches = train.WindowBatches(
        series, batch, steps, horizon, seed, columns=[1], stride=stride, shuffle=shuffle
    )
    starts = []
    for inputs, targets in batches.epoch():
        assert inputs.shape[::2] == (steps, 2)
        assert targets.shape[::2] == (horizon, 1)
        starts += inputs[0, :, 0].tolist()
        np.testing.assert_array_equal(np.diff(inputs, axis=0), 1)
        np.testing.assert_array_equal(targets[0, :, 0], inputs[-1, :, 1] + 1)
        np.testing.assert_array_equal(np.diff(targets, axis=0), 1)
    assert sorted(starts) == np.arange(0, more + 1, stride).tolist()
    assert shuffle or starts == sorted(starts)


def makers() -> dict[str, Any]:
    rows = rows_of([3, 1, 4, 1, 5, 9, 2, 6])
    return {
        "text": lambda: train.TextBatches(np.arange(100), 3, 7, seed=4),
        "padded": lambda: train.PaddedBatches(rows, rows, 3, seed=4, bucket=2),
        "pairs": lambda: train.PairBatches(rows, rows, 3, 0, 1, seed=4),
        "windows": lambda: train.WindowBatches(np.arange(30.0), 4, 5, 2, seed=4),
    }


@pytest.mark.parametrize("name", list(makers()))
def test_batches_go_on_from_any_position(name: str) -> None:
    make = makers()[name]
    expected = list(itertools.islice(make(), 20))
    for position in (0, 1, 3, 11):
        other = make()
        next(other)
        other.position = position
        for batch, wanted in zip(itertools.islice(other, 5), expected[position:], strict=False):
            assert_same(batch, wanted)
        assert other.position == position + 5
    assert_same(other[2], expected[2])
    with pytest.raises(IndexError):
        other[-1]


@pytest.mark.parametrize("name", ["padded", "pairs", "windows"])
def test_epochs_come_in_orders_of_their_own(name: str) -> None:
    batches = makers()[name]()
    firsts = set()
    for epoch in range(12):
        inputs = next(batches.epoch(epoch))[0]
        firsts.add((inputs[0] if isinstance(inputs, tuple) else inputs).tobytes())
    assert len(firsts) > 3


def test_pairs_begin_with_start_and_end_with_end() -> None:
    batches = train.PairBatches(
        [[5, 6, 7], [8]], [[9], [2, 3]], 2, start=0, end=1, reverse=True, shuffle=False
    )
    (source, read), targets, lengths = next(batches)
    assert source.T.tolist() == [[7, 6, 5], [8, 0, 0]]
    assert lengths.tolist() == [3, 1]
    assert read.T.tolist() == [[0, 9, 1], [0, 2, 3]]
    assert targets.T.tolist() == [[9, 1, -1], [2, 3, 1]]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_reversing_twice_gives_the_rows_back(lengths: list[int]) -> None:
    x = np.arange(6 * len(lengths) * 2).reshape(6, len(lengths), 2)
    once = train.reversed_within(x, lengths)
    np.testing.assert_array_equal(train.reversed_within(once, lengths), x)
    for n, length in enumerate(lengths):
        np.testing.assert_array_equal(once[:length, n], x[:length, n][::-1])
        np.testing.assert_array_equal(once[length:, n], x[length:, n])


@pytest.mark.parametrize(("make", "match"), [
    (lambda: train.TextBatches(range(20), 2, 3, offset=7), "offset: expected at most 6, got 7"),
    (lambda: train.TextBatches(range(20), 0, 3), "batch"),
    (lambda: train.PaddedBatches([[1]], [0, 1], 1), "targets: expected 1, one for each input"),
    (lambda: train.PaddedBatches([[1, 2]], [[1]], 1), r"targets\[0\]: expected one for each of 2"),
    (lambda: train.PaddedBatches([[1], [1.5]], [0, 1], 1), "inputs: expected rows of one dtype"),
    (lambda: train.PairBatches([[1]], [3], 1, 0, 1), r"targets\[0\]: expected indices"),
    (lambda: train.WindowBatches(np.arange(5.0), 1, 4, 2), "series: expected at least 6"),
    (lambda: train.WindowBatches(np.arange(9), 1, 4), "series: expected floats"),
    (lambda: train.WindowBatches(np.arange(9.0), 1, 4, columns=[1]), "columns: expected -1 .. 0"),
    (lambda: train.WindowBatches(np.arange(9.0), 1, 4, columns=0), "columns: expected a sequence"),
])  # fmt: skip
def test_batch_makers_refuse_what_does_not_fit(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()
