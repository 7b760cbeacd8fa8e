"""Make a model train on the batches of all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from rnncore.devices import Device
from rnncore.distributed.communicator import Communicator
from rnncore.distributed.reducer import BUCKET_BYTES, Reducer
from rnncore.nn.module import Module, Trainable


class DataParallel(Module):
    """Run a model in every process on its own part of the batch, with the gradients of the whole.

    It stands in for the model: in loops, for ``Trainer``, optimisers and clipping. After
    ``backward`` the gradients are the mean over all processes, and equal on all of them.

    Parameters
    ----------
    model : module or layer
        Its parameters become those of rank 0. Names are the model's own.
    communicator : Communicator
        The engine.
    bucket_bytes, broadcast
        As :class:`Reducer` takes them.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> from rnncore import distributed
    >>> layer = rc.GRU(3, 4, num_layers=2, seed=0)
    >>> parallel = distributed.DataParallel(layer, distributed.SingleProcess())
    >>> y, _ = parallel.forward(np.ones((5, 2, 3), np.float32))
    >>> dx, _ = parallel.backward(np.ones_like(y))
    >>> list(parallel.grads) == list(layer.params)
    True
    """

    def __init__(
        self,
        model: Trainable,
        communicator: Communicator,
        *,
        bucket_bytes: int = BUCKET_BYTES,
        broadcast: bool = True,
    ) -> None:
        super().__init__()
        self.dtype = getattr(model, "dtype", self.dtype)  # a layer on a GPU may have 16 bits
        self.model = model
        self.reducer = Reducer(model, communicator, bucket_bytes=bucket_bytes, broadcast=broadcast)

    def parts(self) -> Iterator[tuple[str, Trainable]]:
        """Yield the model, without a name: checkpoints of both are the same."""
        yield "", self.model

    def _holders(self, prefix: str = "") -> Iterator[tuple[str, Trainable]]:
        """Yield what the model yields, without a name of its own in front."""
        yield prefix, self
        if isinstance(self.model, Module):
            yield from self.model._holders(prefix)
        else:
            yield prefix, self.model

    @property
    def weight(self) -> float:
        """What this process' gradients count in the mean, as :attr:`Reducer.weight`."""
        return self.reducer.weight

    @weight.setter
    def weight(self, value: float) -> None:
        self.reducer.weight = value

    def no_sync(self) -> AbstractContextManager[None]:
        """Let ``backward`` add to this process' own gradients alone inside a ``with`` block."""
        return self.reducer.no_sync()

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the model for inference, in this process alone."""
        model: Any = self.model
        return model(*args, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """Run the model's ``forward`` on this process' part of the batch."""
        model: Any = self.model
        return model.forward(*args, **options)

    def backward(self, *args: Any, **options: Any) -> Any:
        """Run the model's ``backward``; then ``grads`` hold the mean over all processes.

        An error here leaves the other processes waiting: it should end this one, and the launcher
        all others.
        """
        model: Any = self.model
        result = model.backward(*args, **options)
        if self.reducer.active:
            self.reducer.synchronize()
        return result

    def _brought(self, device: Device) -> Any:
        if device is not self._location():
            raise RuntimeError(
                f"to: expected the model on {device.name} before DataParallel took it, got one on "
                f"{self.device}; gradients are summed where they were then"
            )
        return super()._brought(device)

    def mean(self, value: float) -> float:
        """Return the weighted mean of a number over all processes, as of a loss."""
        return self.reducer.mean(value)

    def check(self) -> None:
        """See that all processes hold the same parameters, as :meth:`Reducer.check`."""
        self.reducer.check()

    def __repr__(self) -> str:
        communicator = self.reducer.communicator
        return f"DataParallel({self.model!r}, rank {communicator.rank} of {communicator.size})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("DataParallel: a process' engine cannot be copied; copy its model")
