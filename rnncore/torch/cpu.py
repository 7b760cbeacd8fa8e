"""Run the operators on tensors of the CPU: their memory goes to the engine as it is."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from rnncore import backends, openmp
from rnncore.backends.interface import TapeBackend
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.masks import Masks
from rnncore.threads import get_num_threads
from rnncore.torch import packing
from rnncore.torch.call import Call, Gradients, OutputGradients, Outputs, aligned

DTYPES = (torch.float32, torch.float64)
"""What is computed in."""

_ALIGNMENT = 64  # bytes of a tape's address; torch's own memory has it

# PyTorch's operators and the engine's calls alternate: one set of threads serves both.
openmp.borrow(torch._C.__file__)


def obstacle() -> str | None:
    """Return why nothing can run on the CPU: nothing is in its way."""
    return None


def tape_width(call: Call) -> int:
    """Return how many numbers a tape has for each step and row."""
    spec = call.cell(DTYPES)
    return _backend().tape_width(spec, call.is_masked(spec), call.recompute)


def forward(call: Call, keep: bool) -> Outputs:
    """Run a sequence; see ``ops.forward``."""
    backend, spec, threads = _backend(), call.cell(DTYPES), num_threads()
    steps, batch = call.extent()
    arrays = [_memory(p) for p in call.params]
    packed = packing.packed_for_forward(backend, spec, call.params, arrays, threads)
    y = call.x.new_empty(call.places(spec.features))
    hn, cn = call.states(spec)
    memory, tape = None, call.x.new_empty(0)
    if keep:
        memory = backend.tape_memory(spec, steps, batch, tape_width(call))
        tape = torch.from_numpy(memory)
    backend.forward(
        packed, _time_major(call, call.x), *_initial(call), _lengths(call), _resets(call),
        _time_major(call, y), hn.numpy(), cn.numpy() if spec.has_cell_state else None,
        _masks(call, spec), keep, call.recompute, threads, memory,
    )  # fmt: skip
    if memory is not None:
        packing.remember(memory, memory.ctypes.data, packed)
    return y, hn, cn, tape


def backward(
    tape: Tensor, y: Tensor, call: Call, gradients: OutputGradients, need_dx: bool, retain: bool
) -> Gradients:
    """Run a sequence's gradient; see ``ops.backward``."""
    backend, spec, threads = _backend(), call.cell(DTYPES), num_threads()
    arrays = [_memory(p) for p in call.params]
    memory = aligned(tape, _ALIGNMENT).detach().numpy()
    packed = packing.packed_for_backward(backend, spec, arrays, memory.ctypes.data, threads)
    lengths, resets, masks = _lengths(call), _resets(call), _masks(call, spec)
    core = backend.tape_in(packed, memory, *call.extent(), lengths, resets, masks, call.recompute)
    dx = call.x.new_empty(call.places(spec.input_size) if need_dx else (0,))
    dh0, dc0 = call.states(spec)
    grads = [p.new_empty(p.shape) for p in call.params]
    dy, dhn, dcn = gradients
    backend.backward(
        packed, core, _time_major(call, call.x), _time_major(call, y), *_initial(call), masks,
        None if dy is None else _time_major(call, dy), _optional(dhn), _optional(dcn),
        _time_major(call, dx) if need_dx else None, dh0.numpy(),
        dc0.numpy() if spec.has_cell_state else None, [g.numpy() for g in grads], retain, threads,
        overwrite=True,
    )  # fmt: skip
    return dx, dh0, dc0, grads


def num_threads() -> int:
    """Return how many threads a call may use: rnncore's number, and no more than torch's."""
    return min(get_num_threads(), int(torch.get_num_threads()))


def _time_major(call: Call, sequence: Tensor) -> Array:
    """Return a sequence's memory as ``(T, N, features)`` with unit stride on the last axis."""
    if sequence.shape[-1] > 1 and sequence.stride(-1) != 1:
        sequence = sequence.contiguous()
    array: Array = sequence.detach().numpy()
    return array.transpose(1, 0, 2) if call.batch_first else array


def _backend() -> TapeBackend:
    return cast(TapeBackend, backends.get_backend("cpu"))


def _memory(tensor: Tensor) -> Array:
    return cast(Array, tensor.detach().contiguous().numpy())


def _optional(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else _memory(tensor)


def _initial(call: Call) -> tuple[Array | None, Array | None]:
    return _optional(call.h0), _optional(call.c0)


def _lengths(call: Call) -> Array | None:
    return _optional(call.lengths)


def _resets(call: Call) -> Array | None:
    if call.resets is None:
        return None
    return _memory(call.resets.t() if call.batch_first else call.resets)


def _masks(call: Call, spec: CellSpec) -> Masks | None:
    if not call.masks:
        return None
    parts = call.mask_parts(spec)
    return Masks(*([None if m is None else m.numpy() for m in part] for part in parts))
