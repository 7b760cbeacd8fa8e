"""PyTorch, eager: ``torch.nn``'s own layers, under ``torch.inference_mode`` in inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Refused, Work
from rnncore.bench.peers.pytorch_cells import WrittenOut
from rnncore.checks import Array

if TYPE_CHECKING:
    from rnncore.bench.variants import OptionProblem


class Eager(Peer):
    """Modules as they are."""

    name = "PyTorch"
    version: str = torch.__version__

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def inference(self, problem: Problem) -> Work:
        """Return a call of the module without gradients."""
        call = sequence_call(frozen(problem), problem)
        x = inputs(problem)
        return inference_work(lambda: call(x))

    def training(self, problem: Problem) -> Work:
        """Return forward and backward through everything."""
        problem.need("float32", "float64")
        return training_work(problem, module_of(problem))

    def streaming(self, problem: Problem) -> Work:
        """Return a step of the layers' cells, or of the module where its weights are int8."""
        case = problem.case
        step = module_step(frozen(problem)) if problem.dtype == "int8" else cells_step(problem)
        kept: list[Any] = [None]
        x_t = inputs(problem)[0].clone()

        def run(x: Any = x_t) -> Any:
            with torch.inference_mode():
                y, kept[0] = step(x, kept[0])
            return y

        def check() -> Arrays:
            kept[0] = None
            steps = torch.from_numpy(problem.stream_x).to(x_t.dtype)
            return {"y": np_array(torch.stack([run(x) for x in steps]))}

        assert case.directions == 1
        return Work(run, check)

    def first(self, problem: Problem) -> Work:
        """Return making the module from its weights, and a call."""
        x = inputs(problem)
        return inference_work(lambda: sequence_call(frozen(problem), problem)(x))

    def option(self, problem: OptionProblem) -> Work:
        """Return forward and backward through a cell written out in a loop over time.

        What is compared is computed with the engine's masks, what is timed draws its own.
        """
        module = WrittenOut(problem)
        work = training_work(problem, module)

        def check() -> Arrays:
            with module.given(problem.masks):
                return work.check()

        return replace(work, check=check)


def module_of(problem: Problem) -> Any:
    """Return the layer with the problem's weights; no time goes into drawing others."""
    case = problem.case
    module: Any = getattr(torch.nn, case.cell)(
        case.D,
        case.H,
        case.layers,
        bidirectional=case.directions == 2,
        device="meta",
        dtype=getattr(torch, problem.number),
    ).to_empty(device="cpu")
    module.load_state_dict({name: torch.from_numpy(w) for name, w in problem.weights.items()})
    return module


def frozen(problem: Problem) -> Any:
    """Return the module for inference, its weights in the problem's dtype."""
    module = module_of(problem).eval().requires_grad_(False)
    if problem.dtype == "bfloat16":
        return module.to(torch.bfloat16)
    if problem.dtype == "int8":
        if problem.case.cell == "RNN":
            raise Refused("quantize_dynamic has no RNN")
        kinds = {torch.nn.LSTM, torch.nn.GRU}
        quantized = torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(module), kinds, dtype=torch.qint8
        )
        return quantized[0]
    return module


def inputs(problem: Problem) -> Any:
    """Return x in the type that the module takes."""
    x = torch.from_numpy(problem.x)
    return x.to(torch.bfloat16) if problem.dtype == "bfloat16" else x


def np_array(tensor: Any) -> Array:
    """Return a tensor as NumPy's array in host memory, 16-bit numbers as float32."""
    tensor = tensor.detach().cpu()
    array: Array = (tensor.float() if tensor.itemsize == 2 else tensor).numpy()
    return array


def sequence_call(module: Any, problem: Problem) -> Callable[[Any], Any]:
    """Return a function of x that gives y; rows of different lengths go as a packed sequence."""
    if not problem.case.ragged:
        return lambda x: module(x)[0]
    lengths = torch.from_numpy(problem.lengths)
    rnn = torch.nn.utils.rnn

    def call(x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return rnn.pad_packed_sequence(module(packed)[0])[0]

    return call


def inference_work(call: Callable[[], Any]) -> Work:
    """Return the work of a call that gives y."""

    def run() -> Any:
        with torch.inference_mode():
            return call()

    return Work(run, lambda: {"y": np_array(run())})


def training_work(problem: Problem, module: Any, x: Any = None, dy: Any = None) -> Work:
    """Return the work of a training step through a module, compiled or not.

    `x` and `dy` are the problem's where they are to lie elsewhere than in host memory.
    """
    call = sequence_call(module, problem)
    x = (torch.from_numpy(problem.x) if x is None else x).requires_grad_()
    dy = torch.from_numpy(problem.dy) if dy is None else dy

    def run() -> Any:
        module.zero_grad()
        x.grad = None
        y = call(x)
        y.backward(dy)
        return y

    def check() -> Arrays:
        y = np_array(run())
        grads = {
            name.removeprefix("_orig_mod."): np_array(w.grad).copy()
            for name, w in module.named_parameters()
        }
        assert x.grad is not None
        return {"y": y, "dx": np_array(x.grad).copy(), **grads}

    return Work(run, check)


def cells_step(problem: Problem) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a step through ``torch.nn``'s cells, which cost less a call than the layers."""
    case, dtype = problem.case, inputs(problem).dtype
    cells: list[Any] = []
    for layer in range(case.layers):
        kind = getattr(torch.nn, f"{case.cell}Cell")
        cell = kind(case.D if layer == 0 else case.H, case.H, dtype=dtype).requires_grad_(False)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = map(torch.from_numpy, problem.layer_weights(layer, 0))
        cell.load_state_dict(dict(zip(names, weights, strict=True)))
        cells.append(cell)

    def step(x: Any, states: Any) -> tuple[Any, Any]:
        states = states or [None] * len(cells)
        after = []
        for cell, state in zip(cells, states, strict=True):
            after.append(cell(x, state))
            x = after[-1][0] if case.cell == "LSTM" else after[-1]
        return x, after

    return step


def module_step(module: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a step through a whole layer, as a sequence of one."""

    def step(x: Any, state: Any) -> tuple[Any, Any]:
        y, state = module(x[None], state)
        return y[0], state

    return step
