"""Train one model in several processes: gradients are summed by an engine that exists already.

Every process runs the whole model on its own share of the batch. As ``backward`` finishes the
gradients of a layer they go, in buckets, to MPI, to ``torch.distributed`` or to NCCL, which sum
them while the layers below are still at work. There is no collective of our own here: all that an
engine must do is in :class:`Communicator`.
"""

from rnncore.distributed.communicator import Communicator, Pending, SingleProcess
from rnncore.distributed.data_parallel import DataParallel
from rnncore.distributed.mpi import MPICommunicator
from rnncore.distributed.nccl import NCCLCommunicator
from rnncore.distributed.reducer import Reducer
from rnncore.distributed.torch import TorchCommunicator

__all__ = [
    "Communicator",
    "DataParallel",
    "MPICommunicator",
    "NCCLCommunicator",
    "Pending",
    "Reducer",
    "SingleProcess",
    "TorchCommunicator",
]
