"""Sum over the processes of ``torchrun``, through ``torch.distributed``."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnncore.checks import Array
from rnncore.distributed.communicator import Pending


class TorchCommunicator:
    """Sum through a process group of PyTorch whose backend reads host memory, as gloo does.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        Whose processes take part; the default group if None.
        Its own limit, the ``timeout`` of ``init_process_group``, ends a sum that does not come.

    Raises
    ------
    RuntimeError
        If ``torch.distributed.init_process_group`` was not called.
    ValueError
        If the group has no backend for host memory: NCCL alone takes none.
    """

    def __init__(self, group: Any = None) -> None:
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            raise RuntimeError("group: expected torch.distributed.init_process_group() before it")
        backend = str(dist.get_backend(group))
        if backend == "nccl":
            raise ValueError(
                "group: expected a backend that sums host memory, as 'gloo', got 'nccl'; "
                "NCCLCommunicator sums CuPy arrays"
            )
        self._torch, self._dist = torch, dist
        # The default group is not held: one that outlives destroy_process_group() ends the process.
        self._group = group
        self._root = 0 if group is None else dist.get_global_rank(group, 0)

    @property
    def rank(self) -> int:
        """Which process this is, from 0."""
        return int(self._dist.get_rank(self._group))

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self._dist.get_world_size(self._group))

    def empty(self, count: int, dtype: Any) -> Array:
        """Return a new array ``(count,)``."""
        return np.empty(count, dtype)

    def all_reduce(self, array: Array) -> Pending:
        """Start to replace an array by its sum over all processes; gloo's own threads do it."""
        tensor = self._torch.from_numpy(array)
        return _Sum(self._dist.all_reduce(tensor, group=self._group, async_op=True))

    def broadcast(self, array: Array) -> None:
        """Replace an array by that of rank 0."""
        self._dist.broadcast(self._torch.from_numpy(array), src=self._root, group=self._group)


class _Sum:
    def __init__(self, work: Any) -> None:
        self._work = work

    def wait(self) -> None:
        """Return once the array holds the sum."""
        try:
            self._work.wait()
        except RuntimeError as error:
            if "imed out" not in str(error):
                raise
            raise TimeoutError(
                "torch.distributed: expected all processes within the group's timeout, got no sum; "
                "one of them has failed, or fell behind"
            ) from error
