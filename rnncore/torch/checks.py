"""Refuse what a module is called with by mistake, before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rnncore.torch.devices import KERNELS


def nonlinearity(value: Any) -> str:
    """Return what a plain recurrence may apply."""
    if value not in ("tanh", "relu"):
        raise ValueError(f"nonlinearity: expected 'tanh' or 'relu', got {value!r}")
    return str(value)


def same_device(name: str, tensor: Tensor, weight: Tensor) -> None:
    """Refuse devices that the engine does not run on, and tensors on different ones."""
    if tensor.device.type not in KERNELS and tensor.device.type != "meta":
        raise NotImplementedError(
            f"{name}: expected a tensor on the CPU or a CUDA device, got one on {tensor.device}, "
            "which this version of rnncore.torch does not run on"
        )
    if tensor.device != weight.device:
        raise ValueError(
            f"{name}: expected a tensor on {weight.device} as the weights are, "
            f"got one on {tensor.device}"
        )


def cast(name: str, tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a tensor in the dtype of the weights, which only autocast may change."""
    if tensor.dtype == weight.dtype:
        return tensor
    if tensor.is_floating_point() and torch.is_autocast_enabled(tensor.device.type):
        return tensor.to(weight.dtype)
    raise TypeError(f"{name}: expected {weight.dtype} as the weights are, got {tensor.dtype}")


def no_transform(*tensors: Tensor) -> None:
    """Refuse ``torch.func``'s transforms and forward-mode gradients, which have no rule here."""
    if torch.compiler.is_compiling():
        return
    active = torch._C._are_functorch_transforms_active()
    # what is_grads_batched=True makes
    active = active or any(torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors)
    if not active and forward_ad._current_level >= 0:
        active = any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)
    if active:
        raise NotImplementedError(
            "rnncore.torch: torch.vmap, a transform of torch.func or a forward-mode gradient was "
            "asked for, which this version has no rules for; torch.nn's own modules have them: "
            "rnncore.torch.restore(model)"
        )


def tensor(name: str, value: Any) -> Tensor:
    """Return what is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    return value


def shape(name: str, value: Tensor, expected: tuple[int, ...]) -> Tensor:
    """Return a tensor of the expected shape."""
    if value.shape != expected:
        raise ValueError(f"{name}: expected {tuple(expected)}, got {tuple(value.shape)}")
    return value


def state(
    hx: Any, is_pair: bool, shapes: Sequence[tuple[int, ...]], weight: Tensor
) -> list[Tensor]:
    """Return the parts of a state of the expected shapes: h, and c beside it in a pair."""
    names, parts = ["hx"], [hx]
    if is_pair:
        if not isinstance(hx, tuple | list) or len(hx) != 2:
            raise ValueError(f"hx: expected a pair (h_0, c_0), got {type(hx).__name__}")
        names, parts = ["hx[0]", "hx[1]"], list(hx)
    for name, part, expected in zip(names, parts, shapes, strict=False):
        shape(name, tensor(name, part), expected)
        same_device(name, part, weight)
    return parts


def operands(
    x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor | None, bool]:
    """Return input, h and c in the dtype of the weights, and whether to keep a tape."""
    x = cast("input", x, weights[0])
    state = [cast("hx", part, weights[0]) for part in state]
    h0, c0 = [*state, None, None][:2]
    tracked = (x, *state, *weights)
    no_transform(*tracked)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tracked)
    return x, h0, c0, keep


def lengths(value: Any, batch: int, batched: bool, device: torch.device) -> Tensor:
    """Return lengths as an int64 tensor; their range is the operator's to check.

    Those on the GPU that the input is on stay there, so that nobody waits for them.
    """
    given = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"lengths: expected integers, got {given.dtype}")
    shape("lengths", given, (batch,) if batched else ())
    kept = given.device == device and device.type != "meta"
    return given.to(device=device if kept else "cpu", dtype=torch.int64).reshape(batch)


def resets(value: Any, expected: tuple[int, ...]) -> Tensor:
    """Return marks of segments' first steps."""
    given = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if given.dtype != torch.bool:
        raise TypeError(f"resets: expected torch.bool, got {given.dtype}")
    return shape("resets", given, expected)
