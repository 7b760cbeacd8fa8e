"""Run one step of a recurrence a call, for loops that callers write themselves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from rnncore import checks, devices, sequences
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.initializers import draw_params
from rnncore.layers import options
from rnncore.layers.parameters import Parametrised
from rnncore.layout import Extent, Layout, State, give_state, take_state, without_axis
from rnncore.sequences import Inputs, PackedOnce, SequenceTape, Tape


class Cell(Parametrised):
    """Run one step of one layer: a sequence with ``T = 1`` under PyTorch's cell names."""

    def __init__(self, cell: str, given: Mapping[str, Any]) -> None:
        done = dict(given)
        for name in ("input_size", "hidden_size"):
            done[name] = checks.size(name, done[name])
        done["bias"] = checks.flag("bias", done["bias"])
        place = options.device(done["device"])
        done["dtype"] = options.dtype(done["dtype"], place)
        done["seed"] = options.seed(done["seed"])
        if "nonlinearity" in done:
            choices = ("tanh", "relu")
            done["nonlinearity"] = checks.choice("nonlinearity", done["nonlinearity"], choices)
        device = devices.get(place)
        done["device"] = device.name
        self._arguments = done
        self.spec = CellSpec(
            cell,
            done["input_size"],
            done["hidden_size"],
            bias=done["bias"],
            nonlinearity=done.get("nonlinearity", "tanh"),
            dtype=done["dtype"],
        )
        drawn = draw_params(self.spec, done["seed"])
        params = {name.removesuffix("_l0"): device.upload(array) for name, array in drawn.items()}
        super().__init__(params, device)
        self._packed = PackedOnce(device, self.spec, params.values())
        self._layout = Layout.of(self.spec, device)
        self._tape: Tape | None = None

    @property
    def input_size(self) -> int:
        """``D``: number of inputs."""
        return self.spec.input_size

    @property
    def hidden_size(self) -> int:
        """``H``: number of units."""
        return self.spec.hidden_size

    @property
    def dtype(self) -> str:
        """Type of every array."""
        return self.spec.dtype

    def __call__(self, x: object, state: object = None) -> Any:
        """Run one step for inference.

        Parameters
        ----------
        x : array (N, D) or (D,)
            Input of the cell's dtype.
        state : array (N, H), or a pair of them for an LSTM, optional
            The state before the step; zeros if None.

        Returns
        -------
        ndarray (N, H), or a pair
            The state after the step; its ``h`` is the output.
        """
        return self._run(x, state, keep=False)[0]

    def forward(self, x: object, state: object = None) -> Any:
        """Run one step for training: as :meth:`record`, with the tape kept on the cell."""
        after, tape = self._run(x, state, keep=True)
        self._tape = tape
        return after

    def record(self, x: object, state: object = None) -> tuple[Any, Tape]:
        """Run one step for training and hand its tape to the caller, as loops need it."""
        after, tape = self._run(x, state, keep=True)
        assert tape is not None
        return after, tape

    def backward(
        self,
        dstate: object,
        need_dx: bool = True,
        *,
        tape: Tape | None = None,
        retain: bool = False,
    ) -> tuple[Array | None, Any]:
        """Run the gradient of the last ``forward``, or of a tape; add into ``grads``.

        Parameters
        ----------
        dstate : as the state, or None
            Gradient of the state after the step; None means zero.
        need_dx : bool, optional
            Whether to compute the input's gradient.
        tape : Tape, optional
            What ``record`` returned; without it, the last ``forward``'s.
        retain : bool, optional
            Whether to leave the tape intact for another gradient.

        Returns
        -------
        dx : ndarray of x's shape, or None
            Gradient of the input.
        dstate : as the state
            Gradient of the state before the step.
        """
        used = self._usable(self._tape if tape is None else tape, tape is None)
        assert isinstance(used, SequenceTape)
        extent = used.extent
        dend = None
        if dstate is not None:
            dend = self._take_state("dstate", dstate, extent, optional=True)
        need_dx, retain = checks.flag("need_dx", need_dx), checks.flag("retain", retain)
        dx = self._layout.empty(extent, self.input_size) if need_dx else None
        grads = list(self._own_grads().values())
        listener = self._listener_of_last(used, retain)
        dstart = sequences.backward(used, None, dend, dx, grads, retain)
        if listener is not None:
            listener.finished(grads)
        given_dx = None if dx is None else (dx[0] if extent.batched else dx[0, 0])
        return given_dx, _given(dstart, extent.batched)

    def hold(self) -> AbstractContextManager[None]:
        """Promise, for a ``with`` block, that parameters do not change: weights are packed once."""
        return self._packed.hold()

    def __repr__(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        plain = {"nonlinearity": "tanh", "bias": True, "dtype": "float32", "device": "cpu"}
        shown += [
            f"{name}={self._arguments[name]!r}"
            for name, value in plain.items()
            if self._arguments.get(name, value) != value
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _run(self, x: object, state: object, keep: bool) -> tuple[Any, SequenceTape | None]:
        layout = self._layout
        given = layout.device.array("x", x, layout.dtype)
        features = self.input_size
        if given.ndim not in (1, 2) or given.shape[-1] != features:
            checks.wrong_shape("x", f"(N, {features}) or ({features},)", given.shape)
        batched = given.ndim == 2
        extent = Extent(1, given.shape[0] if batched else 1, batched)
        start = None
        if state is not None:
            start = self._take_state("state", state, extent)
        sequence = checks.unit_stride(given).reshape(1, extent.batch, features)
        y = layout.device.empty((1, extent.batch, self.hidden_size), layout.dtype)
        inputs = Inputs(sequence, start, None, None, extent)
        final, tape = sequences.forward(self._packed.get(), inputs, None, y, keep)
        if tape is not None:
            tape.owner = self._owner
            self._open(tape)
        return _given(final, batched), tape

    def _take_state(
        self, name: str, state: object, extent: Extent, optional: bool = False
    ) -> tuple[Array | None, ...]:
        shapes = self.spec.state_shapes(extent.batch)
        seen = without_axis(shapes, 0)
        if not extent.batched:
            seen = without_axis(seen, 0)
        return take_state(self._layout, name, state, seen, shapes, optional)

    def _usable(self, tape: object, from_forward: bool) -> Tape:
        if tape is None and from_forward:
            raise RuntimeError("backward: expected a forward call before it")
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a tape of record, got {type(tape).__name__}")
        if tape.owner is not self._owner:
            raise RuntimeError("tape: recorded by another cell, or before this one moved")
        if tape.spent:
            raise RuntimeError("tape: already spent; backward(..., retain=True) keeps one intact")
        return tape

    def _brought(self, device: Device) -> Any:
        options.dtype(self.dtype, device.name)
        return super()._brought(device)

    def _settle(self, device: Device, brought: Any) -> None:
        super()._settle(device, brought)
        self._layout = replace(self._layout, device=device)
        self._packed.move(device, self._params.values())
        self._arguments["device"] = device.name

    def _params_changed(self) -> None:
        self._packed.drop()

    def _config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, **self._arguments}


class RNNCell(Cell):
    """Run one step of a plain recurrence.

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    bias : bool, optional
        Whether there are ``bias_ih`` and ``bias_hh``.
    nonlinearity : {"tanh", "relu"}, optional
        The activation.
    dtype : {"float32", "float64", "float16", "bfloat16"}, optional
        Type of every array. The last two are for GPUs alone; parameters, gradients and states are
        then float32.
    device : {"cpu", "cuda", "cuda:0", ...}, optional
        Where it runs: with NumPy arrays on the CPU, with CuPy arrays on a GPU.
    seed : int, optional
        What initial values are drawn from; a fresh one if None.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> cell = rc.RNNCell(3, 4, seed=1)
    >>> h = None
    >>> for x_t in np.ones((5, 2, 3), np.float32):
    ...     h = cell(x_t, h)
    >>> h.shape
    (2, 4)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__("rnn", options.arguments(locals()))


class LSTMCell(Cell):
    """Run one step of a long short-term memory; its state is ``(h, c)``.

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    bias : bool, optional
        Whether there are ``bias_ih`` and ``bias_hh``.
    dtype : {"float32", "float64", "float16", "bfloat16"}, optional
        Type of every array. The last two are for GPUs alone; parameters, gradients and states are
        then float32.
    device : {"cpu", "cuda", "cuda:0", ...}, optional
        Where it runs: with NumPy arrays on the CPU, with CuPy arrays on a GPU.
    seed : int, optional
        What initial values are drawn from; a fresh one if None.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__("lstm", options.arguments(locals()))


class GRUCell(Cell):
    """Run one step of a gated recurrent unit, reset after the product.

    Parameters
    ----------
    input_size, hidden_size : int
        ``D`` and ``H``.
    bias : bool, optional
        Whether there are ``bias_ih`` and ``bias_hh``.
    dtype : {"float32", "float64", "float16", "bfloat16"}, optional
        Type of every array. The last two are for GPUs alone; parameters, gradients and states are
        then float32.
    device : {"cpu", "cuda", "cuda:0", ...}, optional
        Where it runs: with NumPy arrays on the CPU, with CuPy arrays on a GPU.
    seed : int, optional
        What initial values are drawn from; a fresh one if None.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__("gru", options.arguments(locals()))


def _given(state: State, batched: bool) -> Any:
    return give_state(tuple(part[0] if batched else part[0, 0] for part in state))
