"""Sum gradients over processes as backward finishes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnncore.checks import Array, flag, real, size
from rnncore.distributed.agreement import (
    on_host,
    other_ranks,
    shape_texts,
    told_ranks,
    value_texts,
)
from rnncore.distributed.buckets import Parameter, Slot, make_buckets
from rnncore.distributed.communicator import Communicator
from rnncore.train.groups import Modules, named_gradients, named_modules

BUCKET_BYTES = 1 << 20
"""Gradients that go to the engine at a time, at least."""


class Reducer:
    """Replace the gradients of modules by their mean over processes.

    What ``backward`` finishes is copied into buckets and handed to the engine at once, layer by
    layer even inside one call of several layers; :meth:`synchronize` waits, and writes the means
    into ``grads``. Until then ``grads`` are the process' own.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        The same on every process.
    communicator : Communicator
        The engine.
    bucket_bytes : int, optional
        Gradients of fewer bytes wait for others. Larger buckets cost fewer messages, smaller ones
        start earlier.
    broadcast : bool, optional
        Whether parameters become those of rank 0. Otherwise they must be equal already.

    Raises
    ------
    ValueError
        If the processes have parameters of other names, shapes or dtypes, or, without `broadcast`,
        other values; on all of them.
    TypeError
        If gradients lie where the engine does not read.
    RuntimeError
        If another reducer listens to these modules.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore import distributed, nn
    >>> layer = nn.Linear(3, 2, seed=0)
    >>> reducer = distributed.Reducer(layer, distributed.SingleProcess())
    >>> _ = layer.forward(np.ones((5, 3), np.float32))
    >>> _ = layer.backward(np.ones((5, 2), np.float32))
    >>> reducer.synchronize()
    >>> layer.grads["bias"]
    array([5., 5.], dtype=float32)
    """

    def __init__(
        self,
        modules: Modules,
        communicator: Communicator,
        *,
        bucket_bytes: int = BUCKET_BYTES,
        broadcast: bool = True,
    ) -> None:
        self.communicator = communicator
        self._weight, self._active = 1.0, True
        nbytes = size("bucket_bytes", bucket_bytes)
        self._parameters = _parameters(modules)
        self._tellers = [
            teller for module in named_modules(modules).values() for teller in module._tellers()
        ]
        others = other_ranks(communicator, shape_texts(self._parameters, nbytes))
        if others:
            raise ValueError(
                f"modules: expected the parameters and bucket_bytes of rank 0 on every rank, got "
                f"others on {told_ranks(others)}"
            )
        self._slots = self._make_slots()
        self._buckets = make_buckets(list(self._slots.values()), communicator, nbytes)
        self._started = 0
        if flag("broadcast", broadcast):
            for one in self._parameters:
                communicator.broadcast(one.value)
        else:
            others = other_ranks(communicator, value_texts(self._parameters))
            if others:
                raise ValueError(
                    "modules: expected the values of rank 0 on every rank, got others on "
                    f"{told_ranks(others)}; broadcast=True brings them"
                )
        for teller in self._tellers:
            teller._listener = self

    @property
    def weight(self) -> float:
        """What this process' gradients count in the mean: its share of the batch; 1 at first.

        Gradients of a mean over rows want the number of rows, 0 where a process has none. Set it
        before ``backward``.
        """
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        number = real("weight", value)
        if number < 0:
            raise ValueError(f"weight: expected at least 0, got {number}")
        if self._started:
            raise RuntimeError("weight: gradients are on their way; set it before backward")
        self._weight = number

    @property
    def active(self) -> bool:
        """Whether gradients go to the engine as they are finished: not inside :meth:`no_sync`."""
        return self._active

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Let gradients add up in this process alone: for all but the last part of a batch."""
        before, self._active = self._active, False
        try:
            yield
        finally:
            self._active = before

    def synchronize(self) -> None:
        """Wait for the sums, and write the weighted means into ``grads``.

        To be called on every process once ``backward`` is done, whether it ran there or not.

        Raises
        ------
        TimeoutError
            If the engine's limit has passed; the process cannot go on then.
        ValueError
            If all weights are 0; gradients are as they were. On GPUs nobody reads the sum back,
            and they become NaN instead.
        RuntimeError
            If a ``backward`` failed after it had handed gradients to the engine.
        """
        for bucket in self._buckets[: self._started]:
            if any(slot.told == 0 for slot in bucket.slots):
                raise RuntimeError(
                    "synchronize: gradients left before a backward that failed; this process "
                    "cannot agree with the others any more"
                )
        for bucket in self._buckets[self._started :]:
            for slot in bucket.slots:
                slot.fill()
        self._start_full()
        counts = True
        for bucket in self._buckets:
            assert bucket.under_way is not None
            bucket.under_way.wait()
            counts = not isinstance(bucket.flat, np.ndarray) or bool(bucket.flat[-1] > 0)
            if counts:
                bucket.write_means()
        for bucket in self._buckets:
            bucket.clear()
        self._started = 0
        if not counts:
            raise _no_weight()

    def mean(self, value: float) -> float:
        """Return the weighted mean of a number over all processes, as of a loss.

        Raises
        ------
        ValueError
            If all weights are 0; on all processes.
        """
        pair = self.communicator.empty(2, np.float64)
        pair[0], pair[1] = float(value) * self._weight, self._weight
        self.communicator.all_reduce(pair).wait()
        total, weight = on_host(pair)
        if not weight > 0:
            raise _no_weight()
        return float(total / weight)

    def check(self) -> None:
        """See that all processes hold the same parameters, bit for bit.

        Raises
        ------
        RuntimeError
            If one does not; on all of them.
        """
        others = other_ranks(self.communicator, value_texts(self._parameters))
        if others:
            raise RuntimeError(
                f"modules: expected the parameters of rank 0, got others on {told_ranks(others)}"
            )

    def close(self) -> None:
        """Stop listening to the modules."""
        for teller in self._tellers:
            if teller._listener is self:
                teller._listener = None

    def places(self, grads: Sequence[Array]) -> Sequence[Array] | None:
        """Return where in the buckets a layer may write totals ahead of time."""
        slots = [self._slots.get(id(grad)) for grad in grads]
        if not self._active or any(slot is None or slot.owners > 1 for slot in slots):
            return None
        self._refuse_late(slots)
        return [slot.place for slot in slots if slot is not None]

    def filled(self, grads: Sequence[Array]) -> None:
        """Hear that gradients were written to their places, and hand on what is full."""
        for grad in grads:
            self._slots[id(grad)].filled = True
        self._start_full()

    def finished(self, grads: Sequence[Array]) -> None:
        """Hear that gradients hold their totals, and hand on what is full."""
        if not self._active:
            return
        slots = [self._slots[id(grad)] for grad in grads if id(grad) in self._slots]
        self._refuse_late([slot for slot in slots if slot.told >= slot.owners])
        for slot in slots:
            slot.told += 1
            early = slot.filled and slot.told == 1
            if slot.told >= slot.owners and not early:
                slot.fill()
        self._start_full()

    def _start_full(self) -> None:
        while self._started < len(self._buckets) and self._buckets[self._started].full:
            self._buckets[self._started].start(self.communicator, self._weight)
            self._started += 1

    def _refuse_late(self, slots: Sequence[Slot | None]) -> None:
        for slot in slots:
            if slot is not None and slot.bucket is not None and slot.bucket.under_way is not None:
                raise RuntimeError(
                    f"backward: the gradient of {slot.parameter.name} is on its way already; "
                    "accumulate inside no_sync(), or call synchronize() before the next backward"
                )

    def _make_slots(self) -> dict[int, Slot]:
        owners: dict[int, int] = {}
        for teller in self._tellers:
            if teller._listener is not None:
                raise RuntimeError(f"modules: another reducer listens to {teller!r}")
            for grad in _own_gradients(teller):
                owners[id(grad)] = owners.get(id(grad), 0) + 1
        kind = type(self.communicator.empty(1, np.float32))
        for one in self._parameters:
            if not isinstance(one.gradient, kind):
                raise TypeError(
                    f"modules: expected gradients as {kind.__module__} arrays, which the engine "
                    f"reads, got {type(one.gradient).__module__}'s for {one.name}"
                )
        return {id(one.gradient): Slot(one, owners[id(one.gradient)]) for one in self._parameters}


def _parameters(modules: Modules) -> list[Parameter]:
    """Return every parameter once, tied ones under their first name."""
    found: dict[int, Parameter] = {}
    for name, value, gradient in named_gradients(modules):
        found.setdefault(id(gradient), Parameter(name, value, gradient))
    if not found:
        raise ValueError("modules: expected parameters, got none")
    return list(found.values())


def _no_weight() -> ValueError:
    return ValueError("weight: expected more than 0 on one process at least, got 0 on all")


def _own_gradients(teller: Any) -> list[Array]:
    own = teller._own_grads
    return list((own() if callable(own) else own).values())
