"""A character model trained by several processes of torchrun, each on its own rows of the batch.

torchrun --nproc-per-node 2 examples/distributed_torch.py
"""

import torch.distributed as dist
from distributed_training import parse_arguments, train_on_own_rows

from rnncore import distributed


def main() -> None:
    arguments = parse_arguments()
    launched = dist.is_torchelastic_launched()
    if launched:
        dist.init_process_group("gloo")
    train_on_own_rows(
        distributed.TorchCommunicator() if launched else distributed.SingleProcess(), arguments
    )
    if launched:
        dist.barrier()  # gloo ends a process whose peers close their connections before it does
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
