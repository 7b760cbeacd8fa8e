"""Run one recurrence of any cell: what RNN, LSTM and GRU share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from rnncore import checks, devices, sequences
from rnncore.cells import CellSpec
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.initializers import draw_params
from rnncore.layers import options
from rnncore.layers.base import Layer, Outcome
from rnncore.layers.listening import SUMMED_LAST, GradientListener, Report
from rnncore.layout import Extent, Layout, State, give_sequence_state, take_sequence_state
from rnncore.masks import Masks, draw_masks
from rnncore.sequences import Inputs, PackedOnce, SequenceTape

if TYPE_CHECKING:
    from rnncore._inference import ShortCalls


class Kept(NamedTuple):
    """The state that a stateful layer carries from call to call."""

    state: State
    batched: bool


class Recurrent(Layer):
    """Run a recurrence of L layers in one or two directions.

    Its subclasses differ in their signatures alone.

    Parameters
    ----------
    cell : str
        A key of ``rnncore.cells.GATES``.
    given : mapping
        The layer's arguments by name: ``input_size``, ``hidden_size``, and what is to differ from
        the defaults.

    Examples
    --------
    A layer of one's own; see ``docs/add_a_cell.md`` for a cell of one's own:

    >>> class Gated(Recurrent):
    ...     def __init__(self, input_size, hidden_size, **options):
    ...         super().__init__("gru", options | {
    ...             "input_size": input_size, "hidden_size": hidden_size})
    >>> Gated(3, 4, clip=2.0)
    Gated(3, 4, clip=2.0)
    """

    def __init__(self, cell: str, given: Mapping[str, Any]) -> None:
        self._arguments = options.resolve(cell, given)
        done = self._arguments
        self.spec = _spec(cell, done)
        device = devices.get(done["device"])
        drawn = draw_params(self.spec, done["seed"], done.get("forget_bias", 0.0))
        params = {name: device.upload(array) for name, array in drawn.items()}
        sizes = (self.spec.input_size, self.spec.features)
        super().__init__(params, sizes, Layout.of(self.spec, device, done["batch_first"]))
        self._packed = PackedOnce(device, self.spec, params.values())
        self._seed, self._calls = done["seed"], 0
        self._stateful: bool = done["stateful"]
        self._kept: Kept | None = None

    @property
    def hidden_size(self) -> int:
        """``H``: number of units."""
        return self.spec.hidden_size

    @property
    def num_layers(self) -> int:
        """``L``: number of layers."""
        return self.spec.num_layers

    @property
    def bidirectional(self) -> bool:
        """Whether a second direction runs beside the first in every layer."""
        return self.spec.num_directions == 2

    @property
    def stateful(self) -> bool:
        """Whether the last state is the next call's start."""
        return self._stateful

    @property
    def rng_state(self) -> dict[str, int]:
        """Seed and call counter that the next training call's masks are drawn from."""
        return {"seed": self._seed, "calls": self._calls}

    @rng_state.setter
    def rng_state(self, value: Any) -> None:
        self._seed, self._calls = options.rng_state(value)

    @property
    def state(self) -> Any:
        """A copy of the state that a stateful layer carries, None before its first call."""
        if self._kept is None:
            return None
        return give_sequence_state(_copied(self._kept.state), self._kept.batched)

    def set_state(self, state: object) -> None:
        """Set the state that the next call starts from.

        Parameters
        ----------
        state : array (L*K, N, P), or a pair with (L*K, N, H) for an LSTM
            Copied. The next call has N rows, or is unbatched if the batch axis is absent. None
            forgets, as :meth:`reset_state` does.
        """
        if not self._stateful:
            super().set_state(state)
        if state is None:
            self._kept = None
            return
        first = state[0] if isinstance(state, tuple | list) and len(state) == 2 else state
        part = self._device.any_array("state", first)
        batched = part.ndim != 2
        batch = part.shape[1] if part.ndim == 3 else 1
        parts = self._take_parts("state", state, Extent(0, batch, batched))
        self._kept = Kept(_copied(parts), batched)

    def reset_state(self, rows: object = None) -> None:
        """Let the next call start from zeros, in all rows or in some.

        Parameters
        ----------
        rows : integers, or bool array (N,), optional
            Which sequences of the batch start anew. All of them if None: the next call may then
            have another N.
        """
        if not self._stateful:
            super().reset_state(rows)
        if rows is None:
            self._kept = None
        elif self._kept is not None:
            index = checks.rows("rows", rows, self._kept.state[0].shape[1])
            chosen = self._device.upload(index)
            fresh = _copied(self._kept.state)  # an interrupt leaves the old state whole
            for part in fresh:
                part[:, chosen] = 0
            self._kept = Kept(fresh, self._kept.batched)

    def hold(self) -> AbstractContextManager[None]:
        """Promise, for a ``with`` block, that parameters do not change: weights are packed once."""
        return self._packed.hold()

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self)).parameters.values()
        defaults = {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.default is not inspect.Parameter.empty
        }
        defaults |= {
            name: default for name, default in options.COMMON.items() if name not in defaults
        }
        done = self._arguments
        shown = [str(self.spec.input_size), str(self.spec.hidden_size)]
        shown += [
            f"{name}={done[name]!r}"
            for name, default in defaults.items()
            if name in done and name != "seed" and done[name] != default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _take_parts(self, name: str, state: object, extent: Extent) -> State:
        return take_sequence_state(self._layout, self.spec, name, state, extent)  # type: ignore[return-value]

    def _take_state(self, name: str, state: object, extent: Extent) -> State | None:
        if state is not None:
            return self._take_parts(name, state, extent)
        if self._kept is None:
            return None
        batch = self._kept.state[0].shape[1]
        if batch != extent.batch:
            raise ValueError(
                f"x: expected N={batch}, the batch of the state this layer carries, "
                f"got N={extent.batch}; reset_state() forgets it"
            )
        return self._kept.state

    def _take_dstate(self, name: str, dstate: object, extent: Extent) -> tuple[Array | None, ...]:
        return take_sequence_state(self._layout, self.spec, name, dstate, extent, optional=True)

    def _give_state(self, state: State, batched: bool) -> Any:
        return give_sequence_state(state, batched)

    def _run(
        self, inputs: Inputs, keep: bool, out: Array | None = None, recompute: bool = False
    ) -> Outcome:
        extent = inputs.extent
        masks = self._draw_masks(extent) if keep else None
        y = self._layout.empty(extent, self.output_size) if out is None else out
        final, tape = sequences.forward(self._packed.get(), inputs, masks, y, keep, recompute)
        kept = Kept(_copied(final), extent.batched) if self._stateful else None
        return Outcome(y, final, tape, (kept, self._calls + 1 if keep else self._calls))

    def _draw_masks(self, extent: Extent) -> Masks | None:
        return draw_masks(
            self.spec,
            extent.steps,
            extent.batch,
            dropout=self._arguments["dropout"],
            variational=self._arguments["variational"],
            recurrent_dropout=self._arguments["recurrent_dropout"],
            seed=self._seed,
            call=self._calls,
            device=self._device,
        )

    def _commit(self, pending: Any) -> None:
        self._kept, self._calls = pending

    def _run_backward(
        self,
        tape: SequenceTape,
        dy: Array | None,
        dend: tuple[Array | None, ...] | None,
        need_dx: bool,
        retain: bool,
    ) -> tuple[Array | None, State]:
        dx = self._layout.empty(tape.extent, self.input_size) if need_dx else None
        grads = list(self._own_grads().values())
        listener = self._listener_of_last(tape, retain)
        report = None
        if listener is not None and self.num_layers > 1 and tape.packed.backend.name == "cpu":
            report = self._report(listener, grads)
        dstart = sequences.backward(tape, dy, dend, dx, grads, retain, report)
        if listener is not None:
            listener.finished(grads)
        return dx, dstart

    def _report(self, listener: GradientListener, grads: list[Array]) -> Report | None:
        """Return where a listener wants each layer's gradients as soon as they are known."""
        places = listener.places(grads)
        if places is None:
            return None
        late = [name.startswith(SUMMED_LAST) for name in self._params]
        early = [None if wait else place for place, wait in zip(places, late, strict=True)]
        each = len(grads) // self.num_layers

        def finished(layer: int) -> None:
            of_layer = range(layer * each, (layer + 1) * each)
            listener.filled([grads[i] for i in of_layer if not late[i]])

        return early, finished

    def _brought(self, device: Device) -> Any:
        options.dtype(self.dtype, device.name)
        kept = self._kept
        if kept is not None:
            kept = Kept(tuple(device.brought("state", part) for part in kept.state), kept.batched)
        return super()._brought(device), kept

    def _settle(self, device: Device, brought: Any) -> None:
        held, self._kept = brought
        super()._settle(device, held)
        self._packed.move(device, self._params.values())
        self._arguments["device"] = device.name

    def _params_changed(self) -> None:
        self._packed.drop()

    def _config(self) -> dict[str, Any]:
        return {"type": type(self).__name__, **self._arguments, "seed": self._seed}

    def _memory(self) -> Any:
        return self.rng_state, self._kept and (self._kept.state, self._kept.batched)

    def _remember(self, memory: Any) -> None:
        self.rng_state, kept = memory
        if kept is not None:
            state, batched = kept
            parts = tuple(self._device.brought("state", part) for part in state)
            self.set_state(give_sequence_state(parts, batched))

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        untrained = {"dropout": 0.0, "variational": False, "recurrent_dropout": 0.0}
        return {**self._config(), **untrained, "stateful": False, "dtype": dtype}

    def _hold_reduced(self, weights: str) -> None:
        self._packed.weights = weights

    def _short_calls(self) -> ShortCalls | None:
        packed = self._packed.get()
        if packed.backend.name != "cpu":
            return None
        from rnncore._inference import ShortCalls

        return ShortCalls(packed.weights, self.batch_first)

    def _stream(self, batch: int) -> Any:
        if self.bidirectional:
            raise ValueError("stream: expected a layer of one direction, got a bidirectional one")
        packed = self._packed.get()
        return packed.backend.stream(packed.weights, self.spec, batch)


def _spec(cell: str, done: Mapping[str, Any]) -> CellSpec:
    """Return the specification that a layer's checked arguments ask for."""
    return CellSpec(
        cell,
        done["input_size"],
        done["hidden_size"],
        done["num_layers"],
        2 if done["bidirectional"] else 1,
        done.get("proj_size", 0),
        done["bias"],
        done.get("nonlinearity", "tanh"),
        done["dtype"],
        peephole=done.get("peephole", False),
        coupled=done.get("coupled", False),
        reset_after=done.get("reset_after", True),
        layer_norm=done["layer_norm"],
        zoneout=options.zoneout_rates(cell, done["zoneout"]),
        activations=options.padded_activations(done["activations"]),
        clip=done["clip"],
    )


def _copied(state: State) -> State:
    return tuple(part.copy() for part in state)
