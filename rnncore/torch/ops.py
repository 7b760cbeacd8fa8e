"""Make the engine's calls operators of PyTorch.

One operator runs a whole module forward, one runs its gradient. What forward leaves for its
gradient is a tensor too, the tape, ``(T, N, width)`` of the input's dtype: so autograd,
``torch.compile``, activation checkpointing and hooks on saved tensors treat it as any other.

The operators leave a tape as it is. Where autograd runs a gradient that is the tape's last use, it
skips the operator and lets the engine overwrite the tape, which saves a copy of the gates.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library

from rnncore.torch import checks
from rnncore.torch.call import Call, Gradients, Outputs
from rnncore.torch.devices import KERNELS, kernels_of

_CALL = (
    "Tensor x, Tensor? h0, Tensor? c0, Tensor[] params, Tensor? lengths, Tensor? resets, "
    "Tensor[] masks, str spec, bool batch_first, bool recompute"
)
_GRADIENTS = "Tensor? dy, Tensor? dhn, Tensor? dcn, bool need_dx"
_RESULTS = "(Tensor, Tensor, Tensor, Tensor[])"


@library.custom_op(
    "rnncore::forward",
    mutates_args=(),
    device_types=tuple(KERNELS),
    schema=f"({_CALL}, bool keep, bool consume) -> (Tensor, Tensor, Tensor, Tensor)",
)
def forward(*args: Any) -> Outputs:
    """Run a sequence.

    Parameters
    ----------
    x : Tensor (T, N, D), or (N, T, D) with `batch_first`
        Input, in one of its device's ``DTYPES``.
    h0, c0 : Tensor (L*K, N, P) and (L*K, N, H), or None
        Initial state.
    params : list of Tensor
        In the order of ``CellSpec.param_shapes``.
    lengths : int64 Tensor (N,), or None
        Lengths of the rows, on the CPU or where `x` is.
    resets : bool Tensor (T, N), laid out as `x`, or None
        First steps of segments.
    masks : list of Tensor
        Empty, or L + 3*L*K of them in the order of ``rnncore.masks.Masks``; time-major, one of a
        single axis where there is none.
    spec : str
        See ``rnncore.torch.specification``.
    batch_first, recompute, keep, consume : bool
        The layout, whether the tape keeps states alone, whether there is one, and whether a
        gradient may overwrite it, since the caller shows it to nobody.

    Returns
    -------
    y, hn, cn : Tensor
        Output and final state; `cn` is empty for a cell without one.
    tape : Tensor
        Empty without `keep`.
    """
    *call, keep, _ = args
    results: Outputs = kernels_of(call[0]).forward(Call(*call), keep)
    return results


@library.custom_op(
    "rnncore::backward",
    mutates_args=(),
    device_types=tuple(KERNELS),
    schema=f"(Tensor tape, Tensor y, {_CALL}, {_GRADIENTS}) -> {_RESULTS}",
)
def backward(*args: Any) -> Gradients:
    """Run the gradient of :func:`forward`; returns dx, dh0, dc0 and those of the parameters."""
    tape, y, *call, dy, dhn, dcn, need_dx = args
    results: Gradients = kernels_of(y).backward(
        tape, y, Call(*call), (dy, dhn, dcn), need_dx, retain=True
    )
    return results


# --- what tracing sees: shapes alone --------------------------------------------------------------


@forward.register_fake
def _fake_forward(*args: Any) -> Outputs:
    *given, keep, _ = args
    call = Call(*given)
    kernels = kernels_of(call.x)
    spec = call.cell(kernels.DTYPES)
    y = call.x.new_empty(call.places(spec.features))
    tape = (*call.extent(), kernels.tape_width(call)) if keep else (0,)
    return y, *call.states(spec), call.x.new_empty(tape)


@backward.register_fake
def _fake_backward(*args: Any) -> Gradients:
    _, _, *given, _, _, _, need_dx = args
    call = Call(*given)
    spec = call.cell(kernels_of(call.x).DTYPES)
    dx = call.x.new_empty(call.places(spec.input_size) if need_dx else (0,))
    return dx, *call.states(spec), [p.new_empty(p.shape) for p in call.params]


# --- autograd -------------------------------------------------------------------------------------


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, _, consume = inputs
    call = Call(*given)
    y, _, _, tape = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(tape)
    optional = (call.h0, call.c0, call.lengths, call.resets)
    ctx.save_for_backward(tape, y, call.x, *optional, *call.params, *call.masks)
    ctx.num_params = len(call.params)
    ctx.consume = consume
    ctx.settings = call.spec, call.batch_first, call.recompute


def _gradient(ctx: Any, dy: Any, dhn: Any, dcn: Any, _: Any) -> tuple[Any, ...]:
    checks.no_transform(*(d for d in (dy, dhn, dcn) if d is not None))
    tape, y, x, h0, c0, lengths, resets, *rest = ctx.saved_tensors
    params, masks = rest[: ctx.num_params], rest[ctx.num_params :]
    needs = Call(*ctx.needs_input_grad[:-2])
    call = Call(x, h0, c0, params, lengths, resets, masks, *ctx.settings)
    if ctx.consume and _is_last_use(tape):
        torch.autograd.graph.increment_version(tape)
        results = kernels_of(y).backward(tape, y, call, (dy, dhn, dcn), needs.x, retain=False)
    else:
        results = backward(tape, y, *call, dy, dhn, dcn, needs.x)
    dx, dh0, dc0, dparams = results
    return (
        dx if needs.x else None,
        dh0 if needs.h0 else None,
        dc0 if needs.c0 else None,
        [d if need else None for d, need in zip(dparams, needs.params, strict=True)],
        None,
        None,
        [None] * len(masks),
        *(None,) * 5,
    )


def _is_last_use(tape: Tensor) -> bool:
    """Return whether the graph is freed by the pass that runs now, and nobody traces it."""
    if torch.is_grad_enabled() or type(tape) is not Tensor:
        return False
    keeps = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return keeps is not None and not keeps()


def _refuse_second(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "rnncore.torch: a gradient of a gradient was asked for; this version computes first "
        "gradients alone. torch.nn's own modules have second ones: rnncore.torch.restore(model)"
    )


library.register_autograd("rnncore::forward", _gradient, setup_context=_save)
library.register_autograd("rnncore::backward", _refuse_second)
