"""Engines for tests: several processes played by threads, and one that writes down what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

LIMIT_S = 20.0


class World:
    """What the ranks share: the arrays that each has handed in, by the number of the call."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.handed: dict[int, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        self.changed = threading.Condition()

    def hand_in(self, call: int, rank: int, array: np.ndarray) -> None:
        with self.changed:
            self.handed.setdefault(call, {})[rank] = (array, array.copy())
            self.changed.notify_all()

    def all_of(self, call: int) -> list[np.ndarray]:
        """Wait until every rank has made a call; return what they gave in the order of ranks."""
        with self.changed:
            complete = self.changed.wait_for(
                lambda: len(self.handed.get(call, {})) == self.size, LIMIT_S
            )
            if not complete:
                raise TimeoutError(f"call {call}: some rank did not make it")
            given = [self.handed[call][rank][1] for rank in range(self.size)]
        assert len({(one.shape, one.dtype) for one in given}) == 1, "ranks gave other arrays"
        return given


class ThreadCommunicator:
    """One rank of a :class:`World`."""

    def __init__(self, world: World, rank: int) -> None:
        self.world, self.rank, self.size = world, rank, world.size
        self.calls = 0

    def empty(self, count: int, dtype: Any) -> np.ndarray:
        return np.full(count, 99, dtype)

    def all_reduce(self, array: np.ndarray) -> Sum:
        self.calls += 1
        self.world.hand_in(self.calls, self.rank, array)
        return Sum(self.world, self.calls, array)

    def broadcast(self, array: np.ndarray) -> None:
        self.calls += 1
        self.world.hand_in(self.calls, self.rank, array)
        array[...] = self.world.all_of(self.calls)[0]


class Sum:
    def __init__(self, world: World, call: int, array: np.ndarray) -> None:
        self.world, self.call, self.array = world, call, array

    def wait(self) -> None:
        given = self.world.all_of(self.call)
        total = given[0].copy()
        for other in given[1:]:
            total += other
        self.array[...] = total


def on_ranks(size: int, work: Callable[[ThreadCommunicator], Any]) -> list[Any]:
    """Run `work` once for every rank, each in a thread; return the results in their order."""
    world = World(size)
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work, ThreadCommunicator(world, rank)) for rank in range(size)]
    return [future.result() for future in futures]


class Recorder:
    """A world of one that calls `seen` with every array it is to sum."""

    rank, size = 0, 1

    def __init__(self, seen: Callable[[np.ndarray], None]) -> None:
        self.seen = seen

    def empty(self, count: int, dtype: Any) -> np.ndarray:
        return np.full(count, 99, dtype)

    def all_reduce(self, array: np.ndarray) -> Recorder:
        self.seen(array)
        return self

    def broadcast(self, array: np.ndarray) -> None:
        pass

    def wait(self) -> None:
        pass
