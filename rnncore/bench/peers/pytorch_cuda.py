"""PyTorch on a GPU: ``torch.nn``'s layers, which are cuDNN's.

float32 is true float32 unless the engine may use TF32 too; PyTorch's own default would let cuDNN's
recurrent layers round their factors to 10 bits.
"""

from __future__ import annotations

from typing import Any

import torch

import rnncore as rc
from rnncore.bench import gpu
from rnncore.bench.peers import pytorch
from rnncore.bench.peers.interface import Peer, Problem, Refused, Work


class OnGpu(Peer):
    """Modules as they are, on the current GPU."""

    name = "PyTorch"

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = rc.tf32_allowed()
        torch.backends.cuda.matmul.allow_tf32 = rc.tf32_allowed()

    @property
    def version(self) -> str:  # type: ignore[override]
        """Its version and cuDNN's, and how float32 is multiplied."""
        float32 = "TF32" if torch.backends.cudnn.allow_tf32 else "true float32"
        return f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {float32}"

    def inference(self, problem: Problem) -> Work:
        """Return a call of the module without gradients, which waits for its end."""
        module = placed(problem).eval().requires_grad_(False)
        call = pytorch.sequence_call(module, problem)
        x = moved(torch.from_numpy(problem.x), problem)
        return gpu.until_done(pytorch.inference_work(lambda: call(x)), torch.cuda.synchronize)

    def training(self, problem: Problem) -> Work:
        """Return forward and backward through everything, which waits for its end."""
        module = placed(problem)
        x, dy = (moved(torch.from_numpy(array), problem) for array in (problem.x, problem.dy))
        work = pytorch.training_work(problem, module, x, dy)
        return gpu.until_done(work, torch.cuda.synchronize)


def placed(problem: Problem) -> Any:
    """Return the layer with the problem's weights on the GPU, in the problem's dtype.

    Raises
    ------
    Refused
        Where PyTorch has no GPU.
    """
    problem.need(*gpu.DTYPES)
    if not torch.backends.cuda.is_built():
        raise Refused(f"PyTorch {torch.__version__} was built without CUDA")
    if not torch.cuda.is_available():
        raise Refused(f"PyTorch {torch.__version__} finds no GPU")
    return moved(pytorch.module_of(problem), problem)


def moved(what: Any, problem: Problem) -> Any:
    """Return a module or a tensor on the GPU, in the problem's dtype."""
    return what.to("cuda", getattr(torch, problem.dtype))
