"""Run recurrences as pure functions on arrays.

What the layers are thin over: a specification, its weights and a sequence go in, results come out,
and nothing is kept. Sequences are time-major; one without a batch axis is ``(T, D)``.

Examples
--------
>>> import numpy as np
>>> from rnncore import functional
>>> from rnncore.cells import CellSpec
>>> spec = CellSpec("gru", input_size=3, hidden_size=2)
>>> params = {k: np.full(s, 0.1, np.float32) for k, s in spec.param_shapes().items()}
>>> x = np.ones((4, 1, 3), np.float32)
>>> y, h, tape = functional.forward(spec, params, x)
>>> dx, dh, grads = functional.backward(spec, params, tape, np.ones_like(y))
>>> y.shape, h.shape, dx.shape, sorted(grads)[0]
((4, 1, 2), (1, 1, 2), (4, 1, 3), 'bias_hh_l0')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnncore import checks, devices, sequences
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import HOST, Device
from rnncore.layout import Extent, Layout, give_sequence_state, take_sequence_state
from rnncore.masks import Masks, draw_masks
from rnncore.sequences import Inputs, Packed, SequenceTape, Tape

__all__ = ["CellSpec", "Masks", "Tape", "backward", "draw_masks", "forward"]


def forward(
    spec: CellSpec,
    params: Mapping[str, Array],
    x: object,
    state: object = None,
    lengths: object = None,
    resets: object = None,
    *,
    masks: Masks | Sequence[object] | None = None,
    keep: bool = True,
    recompute: bool = False,
) -> tuple[Array, Any, Tape | None]:
    """Run a recurrence over a sequence.

    Parameters
    ----------
    spec : CellSpec
        Which recurrence. It runs where `x` lies, and all other arrays are to lie there too.
    params : mapping of str to ndarray
        Weights of ``spec.param_dtype`` with the names and shapes of ``spec.param_shapes()``.
    x : ndarray (T, N, D) or (T, D)
        Input of ``spec.dtype``.
    state : ndarray (L*K, N, P), or a pair with (L*K, N, H) for an LSTM, optional
        Initial state; zeros if None.
    lengths : N integers, optional
        Length of each row.
    resets : array of bool (T, N) or (T,), optional
        First steps of segments, which no state and no gradient enters from the step before.
    masks : Masks, or sequence of L entries, optional
        What is dropped and what zoneout keeps, as :func:`draw_masks` returns it; entries alone are
        ``Masks.inputs``. Zoneout without a mask takes its expectation. The tape refers to them.
    keep : bool, optional
        Whether to make a tape.
    recompute : bool, optional
        Whether the tape keeps states alone, and :func:`backward` works gates out again.

    Returns
    -------
    y : ndarray (T, N, K*P)
        Output, zero past a length.
    state : ndarray, or a pair
        Final state.
    tape : Tape or None
        What :func:`backward` needs.
    """
    device = devices.of_foreign(x) or HOST
    devices.require_dtype(spec.dtype, device.name)
    layout = Layout.of(spec, device)
    taken, extent = layout.take_sequence("x", x, spec.input_size)
    inputs = Inputs(
        taken,
        None if state is None else take_sequence_state(layout, spec, "state", state, extent),
        None if lengths is None else device.lengths(lengths, *extent),
        None if resets is None else layout.take_resets(resets, extent),
        extent,
    )
    given_masks = None if masks is None else _take_masks(device, spec, masks, extent)
    packed = Packed.of(device, spec, _take_params(device, spec, params))
    y = layout.empty(extent, spec.features)
    final, tape = sequences.forward(packed, inputs, given_masks, y, keep, recompute)
    return layout.give(y, extent), give_sequence_state(final, extent.batched), tape


def backward(
    spec: CellSpec,
    params: Mapping[str, Array],
    tape: Tape,
    dy: object = None,
    dstate: object = None,
    *,
    need_dx: bool = True,
    retain: bool = False,
) -> tuple[Array | None, Any, dict[str, Array]]:
    """Run the gradient of :func:`forward`.

    Parameters
    ----------
    spec, params
        As they went into :func:`forward`.
    tape : Tape
        What that call returned; it is spent unless `retain` is set.
    dy : ndarray of y's shape, optional
        Gradient of the output; zeros if None.
    dstate : as the state, optional
        Gradient of the final state; zeros if None, as may be a part of a pair.
    need_dx : bool, optional
        Whether to compute the input's gradient.
    retain : bool, optional
        Whether to leave the tape intact for another gradient.

    Returns
    -------
    dx : ndarray of x's shape, or None
        Gradient of the input.
    dstate : as the state
        Gradient of the initial state.
    grads : dict of str to ndarray
        Gradients of the parameters.

    Raises
    ------
    RuntimeError
        If the tape is spent or was made by another recurrence.
    """
    if not isinstance(tape, SequenceTape):
        raise TypeError(f"tape: expected a tape of functional.forward, got {type(tape).__name__}")
    if tape.spent:
        raise RuntimeError("tape: already spent; backward(..., retain=True) keeps one intact")
    if tape.owner is not None or tape.packed.spec != spec:
        raise RuntimeError("tape: recorded by another layer or specification")
    device, extent = tape.packed.device, tape.extent
    layout = Layout.of(spec, device)
    taken = None if dy is None else layout.take_gradient("dy", dy, extent, spec.features)
    dend = None
    if dstate is not None:
        dend = take_sequence_state(layout, spec, "dstate", dstate, extent, optional=True)
    weights = _take_params(device, spec, params)
    if any(ours is not theirs for ours, theirs in zip(weights, tape.packed.params, strict=True)):
        tape.packed = Packed.of(device, spec, weights)
    dx = layout.empty(extent, spec.input_size) if need_dx else None
    shapes = spec.param_shapes()
    grads = {name: device.zeros(shape, spec.param_dtype) for name, shape in shapes.items()}
    dstart = sequences.backward(tape, taken, dend, dx, list(grads.values()), retain)
    given_dx = None if dx is None else layout.give(dx, extent)
    return given_dx, give_sequence_state(dstart, extent.batched), grads


def _take_params(device: Device, spec: CellSpec, params: Mapping[str, Array]) -> list[Array]:
    shapes = spec.param_shapes()
    missing = [name for name in shapes if name not in params]
    extra = [name for name in params if name not in shapes]
    if missing or extra:
        raise ValueError(f"params: missing {missing}, unexpected {extra}")
    taken = []
    for name, shape in shapes.items():
        value = device.array(f"params[{name!r}]", params[name], spec.param_dtype)
        if value.shape != shape:
            checks.wrong_shape(f"params[{name!r}]", str(shape), value.shape)
        taken.append(checks.contiguous(value))
    return taken


def _take_masks(
    device: Device, spec: CellSpec, masks: Masks | Sequence[object], extent: Extent
) -> Masks:
    """Return masks of every kind, checked; entries alone are those of the inputs."""
    none: list[Array | None] = [None] * spec.state_rows
    given: Sequence[Any] = masks if isinstance(masks, Masks) else (masks, none, none, none)
    names = [f"masks.{part}" for part in Masks._fields]
    names[0] = "masks.inputs" if isinstance(masks, Masks) else "masks"
    steps, batch, _ = extent
    kept, bits = (device, spec.numpy_dtype), (device, np.dtype(np.bool_))
    widths = [spec.layer_input_size(layer) for layer in range(spec.num_layers)]
    inputs = [(steps, batch, width) for width in widths]
    state = [(batch, spec.output_size)] * spec.state_rows
    kept_h = [(steps, batch, spec.output_size)] * spec.state_rows
    kept_c = [(steps, batch, spec.hidden_size)] * spec.state_rows
    taken = Masks(
        _take_entries(names[0], given[0], inputs, kept),
        _whole(_take_entries(names[1], given[1], state, kept)),
        _whole(_take_entries(names[2], given[2], kept_h, bits)),
        _whole(_take_entries(names[3], given[3], kept_c, bits)),
    )
    for name, rate, entries in zip(names[2:], spec.zoneout, taken[2:], strict=True):
        if not rate and any(mask is not None for mask in entries):
            raise ValueError(f"{name}: expected None alone, as spec.zoneout is {spec.zoneout}")
    return taken


def _whole(masks: list[Array | None]) -> list[Array | None]:
    """Return masks C-contiguous."""
    return [None if mask is None else checks.contiguous(mask) for mask in masks]


def _take_entries(
    name: str,
    masks: Sequence[object],
    shapes: Sequence[tuple[int, ...]],
    kind: tuple[Device, np.dtype[Any]],
) -> list[Array | None]:
    """Return the entries of one kind, each None or of its shape."""
    device, dtype = kind
    if isinstance(masks, str) or not isinstance(masks, Sequence):
        raise TypeError(f"{name}: expected a sequence of arrays, got {type(masks).__name__}")
    if len(masks) != len(shapes):
        raise ValueError(f"{name}: expected {len(shapes)} entries, got {len(masks)}")
    taken: list[Array | None] = []
    for i, (mask, shape) in enumerate(zip(masks, shapes, strict=True)):
        value = None if mask is None else device.array(f"{name}[{i}]", mask, dtype)
        if value is not None and value.shape != shape:
            checks.wrong_shape(f"{name}[{i}]", str(shape), value.shape)
        taken.append(None if value is None else checks.unit_stride(value))
    return taken
