"""Say what every layer does, and do what they all do alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rnncore import checks
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.layers.parameters import Parametrised
from rnncore.layout import Extent, Layout
from rnncore.sequences import Inputs, Tape

if TYPE_CHECKING:
    from rnncore._inference import ShortCalls
    from rnncore.frozen import Frozen


class Outcome(NamedTuple):
    """What a run gives: results, a tape, and what the layer keeps once the call has succeeded."""

    y: Array
    state: Any
    tape: Tape | None
    pending: Any


class Layer(Parametrised):
    """Run sequences forward and backward.

    A subclass supplies the states' form and how to run; layout, order of calls and what happens
    after an error are here, once.
    """

    def __init__(
        self,
        params: dict[str, Array],
        sizes: tuple[int, int],
        layout: Layout,
    ) -> None:
        super().__init__(params, layout.device)
        self.input_size, self.output_size = sizes
        self.dtype: str = layout.dtype.name
        self.batch_first = layout.batch_first
        self._layout = layout
        self._tape: Tape | None = None

    def __call__(
        self, x: object, state: object = None, lengths: object = None, resets: object = None
    ) -> tuple[Array, Any]:
        """Run a sequence for inference: nothing is dropped and nothing kept for a gradient.

        Parameters
        ----------
        x : array (T, N, D), (N, T, D) with ``batch_first``, or (T, D)
            Input of the layer's dtype on its device: a NumPy array, or a CuPy array for a layer on
            a GPU. Anything with DLPack there is taken without a copy.
        state : array (L*K, N, P), or a pair with (L*K, N, H) for an LSTM, optional
            Initial state; zeros, or what a stateful layer kept, if None.
        lengths : N integers, optional
            Length of each sequence, from 0 to T. A layer on a GPU takes them from either memory;
            from its own they are not read back, and those out of range are clamped.
        resets : array of bool (T, N), optional
            True marks the first step of a new segment: no state and no gradient crosses from the
            step before it, in either direction. Laid out as `x`: (N, T) with ``batch_first``, (T,)
            unbatched.

        Returns
        -------
        y : ndarray (T, N, K*P)
            Output in the layout of `x`; zero past a length.
        state : ndarray or pair
            State at each sequence's end; float32 beside 16-bit sequences.

        Raises
        ------
        ValueError
            If a shape or a length is wrong.
        TypeError
            If an argument is no array, or has another dtype.
        """
        inputs = self._take(x, state, lengths, resets)
        outcome = self._run(inputs, keep=False)
        return self._finish(inputs, outcome)

    def forward(
        self, x: object, state: object = None, lengths: object = None, resets: object = None
    ) -> tuple[Array, Any]:
        """Run a sequence for training: as :meth:`record`, with the tape kept on the layer."""
        inputs = self._take(x, state, lengths, resets)
        outcome = self._run(inputs, keep=True)
        results = self._finish(inputs, outcome)
        self._tape = outcome.tape
        return results

    def record(
        self,
        x: object,
        state: object = None,
        lengths: object = None,
        resets: object = None,
        *,
        recompute: bool = False,
    ) -> tuple[Array, Any, Tape]:
        """Run a sequence for training and hand its tape to the caller.

        Takes what a call takes. Input, output, state and parameters are referenced by the tape, not
        copied, and must not change before ``backward``.

        Parameters
        ----------
        x, state, lengths, resets
            As a call takes them.
        recompute : bool, optional
            Whether the tape keeps states alone, and ``backward`` works gates out again: less memory
            for more time, and the same bits.

        Returns
        -------
        y, state
            As from a call, with what training drops and keeps at random.
        tape : Tape
            For ``backward(dy, dstate, tape=tape)``.
        """
        inputs = self._take(x, state, lengths, resets)
        outcome = self._run(inputs, keep=True, recompute=checks.flag("recompute", recompute))
        assert outcome.tape is not None
        return *self._finish(inputs, outcome), outcome.tape

    def backward(
        self,
        dy: object,
        dstate: object = None,
        need_dx: bool = True,
        *,
        tape: Tape | None = None,
        retain: bool = False,
    ) -> tuple[Array | None, Any]:
        """Run the gradient of the last ``forward``, or of a tape; add into ``grads``.

        Parameters
        ----------
        dy : array of y's shape, or None
            Gradient of the output; None means zero.
        dstate : as the state, optional
            Gradient of the final state; None means zero, as it does for a part of a pair.
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
            Gradient of the initial state.

        Raises
        ------
        RuntimeError
            If there is no tape, or it is spent, or another layer recorded it.
        """
        tape = self._usable(tape)
        extent = tape.extent
        taken = None
        if dy is not None:
            taken = self._layout.take_gradient("dy", dy, extent, self.output_size)
        dend = None if dstate is None else self._take_dstate("dstate", dstate, extent)
        need_dx, retain = checks.flag("need_dx", need_dx), checks.flag("retain", retain)
        dx, dstart = self._run_backward(tape, taken, dend, need_dx, retain)
        given_dx = None if dx is None else self._layout.give(dx, extent)
        return given_dx, self._give_state(dstart, extent.batched)

    def freeze(self, dtype: str | None = None) -> Frozen:
        """Return a snapshot for inference, its weights packed once.

        Parameters
        ----------
        dtype : {None, "float32", "bfloat16", "int8"}, optional
            How weights are held; None for the layer's own. Inputs, states and results of the last
            three are float32. bfloat16 rounds the weights; int8 gives each row of a weight matrix
            and each row of x and h, step by step, a scale and whole numbers from -127 to 127.

        Returns
        -------
        Frozen
            Immutable, never stateful, and safe to call from many threads at once.
        """
        from rnncore.frozen import freeze

        return freeze(self, dtype)

    @abstractmethod
    def hold(self) -> AbstractContextManager[None]:
        """Promise, for a ``with`` block, that parameters do not change: weights are packed once."""

    @property
    def stateful(self) -> bool:
        """Whether the last state is the next call's start."""
        return False

    @property
    def state(self) -> Any:
        """A copy of the state that a stateful layer carries, None before its first call."""
        return None

    def set_state(self, state: object) -> None:
        """Set the state that the next call starts from; a layer must be stateful for it."""
        raise RuntimeError(f"set_state: expected a layer made with stateful=True, got {self!r}")

    def reset_state(self, rows: object = None) -> None:
        """Let the next call start from zeros; a layer must be stateful for it."""
        raise RuntimeError(f"reset_state: expected a layer made with stateful=True, got {self!r}")

    @property
    @abstractmethod
    def rng_state(self) -> Any:
        """Seed and call counter that the next training call's masks are drawn from."""

    @rng_state.setter
    def rng_state(self, value: Any) -> None: ...

    def _take(self, x: object, state: object, lengths: object, resets: object) -> Inputs:
        taken, extent = self._layout.take_sequence("x", x, self.input_size)
        start = self._take_state("state", state, extent)
        rows = None if lengths is None else self._layout.device.lengths(lengths, *extent)
        anew = None if resets is None else self._layout.take_resets(resets, extent)
        return Inputs(taken, start, rows, anew, extent)

    def _finish(self, inputs: Inputs, outcome: Outcome) -> tuple[Array, Any]:
        """Commit what the layer keeps and return the results as the caller sees them."""
        extent = inputs.extent
        self._commit(outcome.pending)
        if outcome.tape is not None:
            outcome.tape.owner = self._owner
            self._open(outcome.tape)
        return self._layout.give(outcome.y, extent), self._give_state(outcome.state, extent.batched)

    def _settle(self, device: Device, brought: Any) -> None:
        super()._settle(device, brought)
        self._layout = replace(self._layout, device=device)

    def _usable(self, tape: Tape | None) -> Tape:
        if tape is None:
            if self._tape is None:
                raise RuntimeError("backward: expected a forward call before it")
            tape = self._tape
        elif not isinstance(tape, Tape):
            raise TypeError(f"tape: expected a tape of record, got {type(tape).__name__}")
        if tape.owner is not self._owner:
            raise RuntimeError("tape: recorded by another layer, or before this one moved")
        if tape.spent:
            raise RuntimeError("tape: already spent; backward(..., retain=True) keeps one intact")
        return tape

    @abstractmethod
    def _take_state(self, name: str, state: object, extent: Extent) -> Any:
        """Return a caller's state in the layer's own form, or where to start without one."""

    @abstractmethod
    def _take_dstate(self, name: str, dstate: object, extent: Extent) -> Any:
        """Return a caller's gradient of the final state in the layer's own form."""

    @abstractmethod
    def _give_state(self, state: Any, batched: bool) -> Any:
        """Return a state as the caller sees it."""

    @abstractmethod
    def _run(
        self, inputs: Inputs, keep: bool, out: Array | None = None, recompute: bool = False
    ) -> Outcome:
        """Run a sequence, into `out` if given, and change nothing on the layer."""

    @abstractmethod
    def _commit(self, pending: Any) -> None:
        """Keep what a successful call leaves on the layer."""

    @abstractmethod
    def _run_backward(
        self, tape: Any, dy: Array | None, dend: Any, need_dx: bool, retain: bool
    ) -> tuple[Array | None, Any]:
        """Run a sequence's gradient and add into the parameters'."""

    @abstractmethod
    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        """Return the configuration of a snapshot for inference."""

    def _frozen_values(self) -> Mapping[str, Array]:
        """Return the parameters of a snapshot, under the names that its configuration has."""
        return self.params

    def _touched(self) -> list[Array]:
        """Return every gradient that ``backward`` adds into."""
        return list(self._own_grads().values())

    @abstractmethod
    def _hold_reduced(self, weights: str) -> None:
        """Pack weights as "bfloat16" or "int8" from now on: a snapshot's are never trained."""

    def _short_calls(self) -> ShortCalls | None:
        """Return a faster way for short calls of a snapshot, where there is one."""
        return None

    @abstractmethod
    def _stream(self, batch: int) -> Any:
        """Return a stream over the layer's weights."""
