"""Put gradients side by side in buckets, in the order in which backward finishes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rnncore.checks import Array
from rnncore.distributed.communicator import Communicator, Pending
from rnncore.layers.listening import SUMMED_LAST


class Parameter(NamedTuple):
    """A parameter with its gradient, by the first of its names."""

    name: str
    value: Array
    gradient: Array


class Slot:
    """A gradient's place in a bucket."""

    def __init__(self, parameter: Parameter, owners: int) -> None:
        self.parameter = parameter
        # How many layers or modules add to it; tied weights have more than one.
        self.owners = owners
        self.place: Any = None
        self.bucket: Bucket | None = None
        self.told = 0
        self.filled = False

    def fill(self) -> None:
        """Copy the gradient to its place."""
        self.place[...] = self.parameter.gradient
        self.filled = True


class Bucket:
    """Gradients of one dtype that are summed as one array, with the process' weight behind them."""

    def __init__(self, slots: Sequence[Slot], communicator: Communicator) -> None:
        self.slots = list(slots)
        gradients = [slot.parameter.gradient for slot in self.slots]
        count = sum(gradient.size for gradient in gradients)
        self.flat: Any = communicator.empty(count + 1, gradients[0].dtype)
        self.under_way: Pending | None = None
        begin = 0
        for slot, gradient in zip(self.slots, gradients, strict=True):
            slot.place = self.flat[begin : begin + gradient.size].reshape(gradient.shape)
            slot.bucket = self
            begin += gradient.size

    @property
    def full(self) -> bool:
        """Whether all its gradients are in their places."""
        return all(slot.filled for slot in self.slots)

    def start(self, communicator: Communicator, weight: float) -> None:
        """Hand the sum of all processes' weighted gradients to the engine."""
        if weight != 1.0:
            self.flat[:-1] *= self.flat.dtype.type(weight)
        self.flat[-1] = weight
        self.under_way = communicator.all_reduce(self.flat)

    def write_means(self) -> None:
        """Write the weighted means into the gradients, once the sum is there."""
        total = self.flat[-1:]
        for slot in self.slots:
            slot.place /= total
            slot.parameter.gradient[...] = slot.place

    def clear(self) -> None:
        """Be ready for the next step."""
        self.under_way = None
        for slot in self.slots:
            slot.told, slot.filled = 0, False


def make_buckets(slots: Sequence[Slot], communicator: Communicator, nbytes: int) -> list[Bucket]:
    """Return buckets of at least `nbytes` each but the last, the last parameters first.

    Backward finishes those of the last layer first, and parameters are named from the first layer
    on; a few that belong to options are summed last of all. The same on every process: buckets go
    to the engine in this order whatever finishes first.
    """
    buckets, waiting = [], list[Slot]()
    backward = slots[::-1]
    for slot in sorted(backward, key=_summed_last):
        gradient = slot.parameter.gradient
        if waiting and waiting[0].parameter.gradient.dtype != gradient.dtype:
            buckets.append(Bucket(waiting, communicator))
            waiting = []
        waiting.append(slot)
        if sum(one.parameter.gradient.nbytes for one in waiting) >= nbytes:
            buckets.append(Bucket(waiting, communicator))
            waiting = []
    return [*buckets, Bucket(waiting, communicator)] if waiting else buckets


def _summed_last(slot: Slot) -> bool:
    return slot.parameter.name.rsplit(".", 1)[-1].startswith(SUMMED_LAST)
