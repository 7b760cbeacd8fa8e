"""Run the operators on tensors of a GPU: memory and stream are torch's, CuPy compiles kernels.

Kernels read and write tensors where they are. Parameters and states are float32 beside sequences of
16 bits, so those of a 16-bit module are converted on their way in, and results on their way out.
Memory comes from torch's allocator while torch's current stream is the one that the kernels run on,
and so may be let go as soon as they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnncore.backends import cuda_addresses as core
from rnncore.cells import CellSpec
from rnncore.cuda import driver, errors
from rnncore.cuda.precision import tf32_allowed
from rnncore.errors import DeviceError
from rnncore.torch import packing
from rnncore.torch.call import Call, Gradients, OutputGradients, Outputs, aligned

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""What is computed in."""


def obstacle() -> str | None:
    """Return why nothing can run on GPUs here, if so."""
    try:
        driver.current()
    except DeviceError as error:
        return str(error).splitlines()[0]
    return None


def tape_width(call: Call) -> int:
    """Return how many numbers a tape has for each step and row; it holds gates in any case."""
    spec = call.cell(DTYPES)
    return core.tape_width(spec, call.is_masked(spec), call.lengths is not None)


def forward(call: Call, keep: bool) -> Outputs:
    """Run a sequence; see ``ops.forward``."""
    spec = call.cell(DTYPES)
    known = _known_lengths(call)
    with _on(call.x.device) as stream:
        packer = _Packer(stream)
        packed = packing.packed_for_forward(packer, spec, call.params, call.params, 1)
        arrays = _take(call, spec)
        sequence = _sequence(packed, call, arrays, known)
        places = call.places(spec.features)  # y is zero past lengths, where no kernel writes
        y = call.x.new_empty(places) if call.lengths is None else call.x.new_zeros(places)
        hn, cn = call.states(spec, _real_dtype(spec))
        if keep:
            memory = tape = call.x.new_empty((*call.extent(), tape_width(call)))
        else:
            memory, tape = _bytes(call.x, sequence.tape_bytes(False)), call.x.new_empty(0)
        workspace = _bytes(call.x, sequence.forward_bytes())
        sequence.forward(
            packed.weights.program, stream, tf32_allowed(), _address(memory), _address(workspace),
            keep, _strided(call, y), _address(hn), _address(cn),
        )  # fmt: skip
        if tape.numel():
            packing.remember(tape.untyped_storage(), tape.data_ptr(), packed)
        return y, hn.to(y.dtype), cn.to(y.dtype), tape


def backward(
    tape: Tensor, y: Tensor, call: Call, gradients: OutputGradients, need_dx: bool, retain: bool
) -> Gradients:
    """Run a sequence's gradient; see ``ops.backward``."""
    spec = call.cell(DTYPES)
    known = _known_lengths(call)
    with _on(call.x.device) as stream:
        tape, y = aligned(tape, core.ALIGNMENT), _unit_stride(y)
        packer = _Packer(stream)
        packed = packing.packed_for_backward(packer, spec, call.params, tape.data_ptr(), 1)
        arrays = _take(call, spec)
        sequence = _sequence(packed, call, arrays, known)
        sequence.resume(_strided(call, y))
        dy = None if gradients[0] is None else _unit_stride(gradients[0])
        dhn, dcn = (_real_or_none(spec, given) for given in gradients[1:])
        dx = call.x.new_empty(call.places(spec.input_size) if need_dx else (0,))
        dh0, dc0 = call.states(spec, _real_dtype(spec))
        grads = [p.new_empty(p.shape, dtype=_real_dtype(spec)) for p in call.params]
        torch._foreach_zero_(grads)  # the core adds to them
        workspace = _bytes(call.x, sequence.backward_bytes(retain))
        sequence.backward(
            packed.weights.program, stream, tf32_allowed(), _address(tape), _address(workspace),
            _strided(call, dy), _address(dhn), _address(dcn),
            _strided(call, dx if need_dx else None), _address(dh0), _address(dc0),
            [_address(grad) for grad in grads], retain,
        )  # fmt: skip
        dparams = [g.to(p.dtype) for g, p in zip(grads, call.params, strict=True)]
        return dx, dh0.to(y.dtype), dc0.to(y.dtype), dparams


# --- weights --------------------------------------------------------------------------------------


class _Packed(NamedTuple):
    """Packed weights, and the memory that they lie in and refer to."""

    weights: core.Weights
    block: Tensor
    params: Sequence[Tensor]


class _Packer(NamedTuple):
    """Packs weights on a stream, which is the one that they may be used on."""

    stream: int

    @property
    def name(self) -> str:
        return f"cuda stream {self.stream}"

    def pack(self, spec: CellSpec, params: Sequence[Any], num_threads: int) -> _Packed:
        params = [_real(spec, param) for param in params]
        weights = core.weights_of(spec, [_address(param) for param in params])
        block = _bytes(params[0], weights.nbytes)
        weights.pack(self.stream, _address(block))
        return _Packed(weights, block, params)


# --- a call's arrays ------------------------------------------------------------------------------


class _Arrays(NamedTuple):
    """What kernels read of a call, in the types and layouts that they read."""

    x: Tensor
    x_strides: tuple[int, int]
    h0: Tensor | None
    c0: Tensor | None
    lengths: Tensor | None
    resets: Tensor | None
    masks: list[list[Tensor | None]]


def _take(call: Call, spec: CellSpec) -> _Arrays:
    x, x_strides = _dense(call)
    resets = call.resets
    if resets is not None:
        resets = (resets.t() if call.batch_first else resets).contiguous()
    lengths = call.lengths
    if lengths is not None:  # those on the device, which nobody else looks at
        steps = call.extent()[0]
        lengths = None if _are_known(lengths) else lengths.clamp(0, steps).to(torch.int32)
    masks: list[list[Tensor | None]] = []
    if call.masks:
        inputs, *others = call.mask_parts(spec)
        masks = [[None if m is None else _unit_stride(m) for m in inputs]]
        masks += [[None if m is None else m.contiguous() for m in part] for part in others]
    h0, c0 = _real_or_none(spec, call.h0), _real_or_none(spec, call.c0)
    return _Arrays(x, x_strides, h0, c0, lengths, resets, masks)


def _sequence(packed: _Packed, call: Call, arrays: _Arrays, known: list[int] | None) -> Any:
    """Return the core's view of a call; the arrays must outlive its use."""
    first, second = arrays.x_strides
    x = (_address(arrays.x), *((second, first) if call.batch_first else (first, second)))
    masks: tuple[list[Any], ...] | None = None
    if arrays.masks:
        inputs, *others = arrays.masks
        placed = [(0, 0, 0) if m is None else (_address(m), *m.stride()[:2]) for m in inputs]
        masks = (placed, *([_address(m) for m in part] for part in others))
    states = _address(arrays.h0), _address(arrays.c0)
    return core.sequence_of(
        packed.weights, call.extent(), known, _address(arrays.lengths), _address(arrays.resets), x,
        states, masks,
    )  # fmt: skip


def _known_lengths(call: Call) -> list[int] | None:
    """Return lengths that the host knows, which sort the rows: those that ended cost nothing."""
    if call.lengths is None or not _are_known(call.lengths):
        return None
    known: list[int] = call.lengths.tolist()
    steps = call.extent()[0]
    for n, length in enumerate(known):
        if not 0 <= length <= steps:
            raise ValueError(f"lengths[{n}]: expected 0 to {steps}, got {length}")
    return known


def _are_known(lengths: Tensor) -> bool:
    return bool(lengths.is_cpu)


def _dense(call: Call) -> tuple[Tensor, tuple[int, int]]:
    """Return the input with rows side by side in either order, and its two outer strides.

    Strides of axes of one entry may be anything in torch, so they follow from the shape here.
    """
    x = call.x
    first, second, features = x.shape
    if not x.is_contiguous() and x.transpose(0, 1).is_contiguous():
        return x, (features, first * features)
    return x.contiguous(), (second * features, features)


def _unit_stride(tensor: Tensor) -> Tensor:
    """Return a tensor whose last axis lies side by side."""
    if tensor.shape[-1] == 1 or tensor.stride(-1) == 1:
        return tensor
    return tensor.contiguous()


def _strided(call: Call, sequence: Tensor | None) -> tuple[int, int, int]:
    """Return where a sequence is, and its time and row strides in values."""
    if sequence is None:
        return 0, 0, 0
    first, second, _ = sequence.stride()
    return (_address(sequence), *((second, first) if call.batch_first else (first, second)))


def _real_or_none(spec: CellSpec, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _real(spec, tensor)


def _real(spec: CellSpec, tensor: Tensor) -> Tensor:
    """Return a parameter's or state's values in the type of sums."""
    return tensor.detach().to(_real_dtype(spec)).contiguous()


def _real_dtype(spec: CellSpec) -> torch.dtype:
    return torch.float64 if spec.dtype == "float64" else torch.float32


def _bytes(like: Tensor, count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, device=like.device)


# --- the device -----------------------------------------------------------------------------------


@contextmanager
def _on(device: torch.device) -> Iterator[int]:
    """Make a device torch's and CuPy's current one, and lend torch's current stream there."""
    errors.raise_pending()
    kernels = driver.current()
    with torch.cuda.device(device), kernels.on(device.index):
        yield torch.cuda.current_stream(device).cuda_stream


def _address(tensor: Tensor | None) -> int:
    """Return where a tensor's memory is, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
