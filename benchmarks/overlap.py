"""Measure what a training step pays for summing gradients over processes, and what overlap hides.

mpiexec -n 2 python -m mpi4py -m benchmarks.overlap --engine mpi
torchrun --nproc-per-node 2 -m benchmarks.overlap --engine torch

Every process trains the same layers on a batch of its own. Timed from a barrier to the slowest
process, interleaved, in milliseconds: `backward` alone, the sums alone, one after the other, and
overlapped. Between two processes on one machine the sums and the layers share its CPUs and its
memory's bandwidth: what overlap hides there is a lower bound of what it hides between machines.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rnncore as rc
from rnncore import distributed
from rnncore.distributed.reducer import BUCKET_BYTES


def communicator(engine: str) -> Any:
    if engine == "mpi":
        return distributed.MPICommunicator()
    import torch.distributed as dist

    dist.init_process_group("gloo")
    return distributed.TorchCommunicator()


class Step:
    """The parts of a training step on one process."""

    def __init__(self, world: Any, arguments: argparse.Namespace) -> None:
        size = arguments.hidden
        self.layer = rc.LSTM(size, size, arguments.layers, seed=0)
        self.world = world
        self.reducer = distributed.Reducer(self.layer, world, bucket_bytes=arguments.bucket_bytes)
        draw = np.random.default_rng(world.rank)
        self.x = draw.standard_normal((arguments.steps, arguments.batch, size)).astype(np.float32)
        self.dy = np.ones((arguments.steps, arguments.batch, size), np.float32)

    def prepare(self) -> None:
        self.layer.zero_grad()
        self.layer.forward(self.x)
        self.meet()

    def meet(self) -> None:
        self.world.all_reduce(self.world.empty(1, np.float64)).wait()

    def backward(self) -> None:
        with self.reducer.no_sync():
            self.layer.backward(self.dy)

    def sums(self) -> None:
        self.reducer.synchronize()

    def one_after_the_other(self) -> None:
        self.backward()
        self.sums()

    def overlapped(self) -> None:
        self.layer.backward(self.dy)
        self.sums()

    def slowest(self, seconds: float) -> float:
        """Return the largest of all processes' times."""
        times = self.world.empty(self.world.size, np.float64)
        times[...] = 0
        times[self.world.rank] = seconds
        self.world.all_reduce(times).wait()
        return float(times.max())

    def seconds(self, work: Callable[[], None]) -> float:
        self.prepare()
        start = time.perf_counter()
        work()
        return self.slowest(time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["mpi", "torch"], required=True)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--bucket-bytes", type=int, default=BUCKET_BYTES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", help="where rank 0 writes the figures as JSON")
    arguments = parser.parse_args()
    world = communicator(arguments.engine)
    step = Step(world, arguments)
    works = [step.backward, step.sums, step.one_after_the_other, step.overlapped]
    times: dict[str, list[float]] = {work.__name__: [] for work in works}
    for repeat in range(arguments.repeats + 2):
        for work in works:
            seconds = step.seconds(work)
            if repeat >= 2:
                times[work.__name__].append(1e3 * seconds)
    if world.rank == 0:
        report(arguments, step, times)
    step.meet()
    if arguments.engine == "torch":
        import torch.distributed as dist

        dist.destroy_process_group()


def report(arguments: argparse.Namespace, step: Step, times: dict[str, list[float]]) -> None:
    nbytes = 4 * step.layer.num_parameters
    threads = rc.get_num_threads()
    print(f"{step.layer!r}, T={arguments.steps} N={arguments.batch}")
    print(f"{nbytes / 1e6:.1f} MB of gradients, {arguments.engine}, processes: {step.world.size}, "
          f"threads in each: {threads}")  # fmt: skip
    print(f"{'ms':22}{'median':>9}{'quarter':>9}{'three q.':>9}")
    medians = {}
    for name, values in times.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        medians[name] = float(middle)
        print(f"{name.replace('_', ' '):22}{middle:9.2f}{low:9.2f}{high:9.2f}")
    apart, together = medians["one_after_the_other"], medians["overlapped"]
    hidden = (apart - together) / medians["sums"]
    print(f"overlap hides {apart - together:.2f} ms, {hidden:.0%} of the sums")
    if arguments.out:
        record = {
            "arguments": vars(arguments),
            "gradient_bytes": nbytes,
            "processes": step.world.size,
            "threads": threads,
            "machine": platform.processor() or platform.machine(),
            "versions": {"rnncore": rc.__version__, "numpy": np.__version__},
            "ms": times,
        }
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
