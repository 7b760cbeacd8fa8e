"""A character model trained by several processes of MPI, each on its own rows of the batch.

mpiexec -n 2 python -m mpi4py examples/distributed_mpi.py
"""

from distributed_training import parse_arguments, train_on_own_rows

from rnncore import distributed


def main() -> None:
    arguments = parse_arguments()
    train_on_own_rows(distributed.MPICommunicator(), arguments)


if __name__ == "__main__":
    main()
