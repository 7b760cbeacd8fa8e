"""Run a layer forwards and its twin backwards over the whole depth, and merge what they put out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from rnncore import checks
from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.layers import options
from rnncore.layers.base import Outcome
from rnncore.layers.joined import Joined, JoinedTape, all_or_nothing
from rnncore.layers.recurrent import Recurrent
from rnncore.layout import Extent, State, give_sequence_state, take_sequence_state
from rnncore.sequences import Inputs

MERGES = ("concat", "sum", "mul", "average")


class Bidirectional(Joined):
    """Run a layer forwards and a second one backwards.

    The reverse direction runs over the layer's whole depth before outputs are merged, as in Keras;
    ``bidirectional=True`` joins the directions after every layer, as in PyTorch. With one layer and
    the same weights, ``"concat"`` is equal to that.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        The forward direction, of any depth, neither bidirectional nor stateful. The reverse one
        has the same configuration and draws its own parameters, ``weight_ih_l0_reverse`` ...
    merge : {"concat", "sum", "mul", "average"}, optional
        How the two outputs become one.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> layer = rc.Bidirectional(rc.GRU(3, 4, num_layers=2, seed=1), merge="sum")
    >>> y, h = layer(np.ones((6, 2, 3), np.float32))
    >>> y.shape, h.shape
    ((6, 2, 4), (4, 2, 4))
    """

    def __init__(self, layer: Recurrent, merge: str = "concat") -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
        if layer.bidirectional:
            raise ValueError(f"layer: expected one direction, got {layer!r}")
        if layer.stateful:
            raise ValueError(f"layer: expected one that is not stateful, got {layer!r}")
        self.merge = checks.choice("merge", merge, MERGES)
        config = layer._config()
        config["seed"] = options.seed_after(config["seed"])
        self._members = (layer, type(layer)._from_config(config))
        self.spec = replace(layer.spec, num_directions=2)
        width = layer.output_size * (2 if merge == "concat" else 1)
        params = self._named([member.params for member in self._members])
        super().__init__(params, (layer.input_size, width), layer._layout)

    @property
    def layers(self) -> tuple[Recurrent, Recurrent]:
        """The forward and the reverse direction."""
        forward, reverse = self._members
        return forward, reverse  # type: ignore[return-value]

    @property
    def rng_state(self) -> list[Any]:
        """The two directions' ``rng_state``."""
        return [layer.rng_state for layer in self._members]

    @rng_state.setter
    def rng_state(self, value: Any) -> None:
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(f"rng_state: expected a list of two, got {value!r}")
        before = self.rng_state
        try:
            for layer, part in zip(self._members, value, strict=True):
                layer.rng_state = part
        except (TypeError, ValueError):
            self._members[0].rng_state = before[0]
            raise

    def __repr__(self) -> str:
        merge = "" if self.merge == "concat" else f", merge={self.merge!r}"
        return f"Bidirectional({self._members[0]!r}{merge})"

    def _named(self, members: list[Mapping[str, Array]]) -> dict[str, Array]:
        forward, reverse = members
        both = {**forward} | {f"{name}_reverse": array for name, array in reverse.items()}
        return {name: both[name] for name in _names(self.spec.param_shapes(), forward)}

    def _take_state(self, name: str, state: object, extent: Extent) -> tuple[Any, Any]:
        if state is None:
            return (None, None)
        return _apart(take_sequence_state(self._layout, self.spec, name, state, extent))

    def _take_dstate(self, name: str, dstate: object, extent: Extent) -> tuple[Any, Any]:
        parts = take_sequence_state(self._layout, self.spec, name, dstate, extent, optional=True)
        return _apart(parts)

    def _give_state(self, state: tuple[State, State], batched: bool) -> Any:
        joined = []
        for forward, reverse in zip(*state, strict=True):
            both = self._device.xp.stack((forward, reverse), axis=1)
            joined.append(both.reshape(2 * len(forward), *forward.shape[1:]))
        return give_sequence_state(tuple(joined), batched)

    def _run(
        self, inputs: Inputs, keep: bool, out: Array | None = None, recompute: bool = False
    ) -> Outcome:
        x, states, lengths, resets, extent = inputs
        forward, reverse = self.layers
        turn = _Turn(self._device, lengths, extent)
        y = self._layout.empty(extent, self.output_size) if out is None else out
        places: tuple[Array | None, Array | None] = (None, None)
        if self.merge == "concat":
            width = forward.output_size
            places = (y[:, :, :width], y[:, :, width:])
        given = Inputs(x, states[0], lengths, resets, extent)
        ahead = forward._run(given, keep, places[0], recompute)
        place = turn.view(places[1])
        given = Inputs(turn(x), states[1], lengths, turn.resets(resets), extent)
        back = reverse._run(given, keep, place, recompute)
        parts = ahead.y, back.y if place is not None else turn(back.y)
        self._merge_into(y, parts, placed=place is not None)
        tape = None
        if keep:
            held = (turn, parts if self.merge == "mul" else None)
            tape = JoinedTape(extent, [ahead.tape, back.tape], held)
        pending = [ahead.pending, back.pending]
        return Outcome(y, (ahead.state, back.state), tape, pending)

    def _merge_into(self, y: Array, parts: tuple[Array, Array], placed: bool) -> None:
        forward, reverse = parts
        if self.merge == "concat":
            if not placed:
                y[:, :, forward.shape[2] :] = reverse
        elif self.merge == "mul":
            self._device.multiply(forward, reverse, out=y)
        else:
            self._device.add(forward, reverse, out=y)
            if self.merge == "average":
                y[...] = self._device.scale(y, 0.5)

    def _apart(self, dy: Array, parts: tuple[Array, Array] | None) -> tuple[Array, Array]:
        """Return each direction's share of the output's gradient."""
        if self.merge == "concat":
            width = self._members[0].output_size
            return dy[:, :, :width], dy[:, :, width:]
        if parts is not None:
            return self._device.multiply(dy, parts[1]), self._device.multiply(dy, parts[0])
        if self.merge == "average":
            dy = self._device.scale(dy, 0.5)
        return dy, dy

    def _run_backward(
        self, tape: JoinedTape, dy: Array | None, dend: Any, need_dx: bool, retain: bool
    ) -> tuple[Array | None, Any]:
        turn, parts = tape.held
        shares: tuple[Array | None, Array | None] = (None, None)
        if dy is not None:
            ahead, back = self._apart(dy, parts)
            shares = (ahead, turn(back))
        ends = dend or (None, None)
        starts: list[State] = []
        inputs: list[Any] = []
        with all_or_nothing(tape, self._members[:1], retain):
            for i, layer in enumerate(self._members):
                dx, start = layer._run_backward(tape.parts[i], shares[i], ends[i], need_dx, retain)
                inputs.append(dx)
                starts.append(start)
        if need_dx:
            self._device.add(inputs[0], turn(inputs[1]), out=inputs[0])
        return inputs[0], tuple(starts)

    def _config(self) -> dict[str, Any]:
        layer = self._members[0]._config()
        return {"type": "Bidirectional", "layer": layer, "merge": self.merge}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        from rnncore.layers import from_config

        return cls(from_config(config["layer"]), config["merge"])

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        return {**self._config(), "layer": self._members[0]._frozen_config(dtype)}

    def _stream(self, batch: int) -> Any:
        raise ValueError("stream: expected a layer of one direction, got a Bidirectional")


class _Turn:
    """Reverse each row's own length in time; what lies past it stays. Its own inverse."""

    def __init__(self, device: Device, lengths: Array | None, extent: Extent) -> None:
        self._xp = xp = device.xp
        self._lengths: Array | int = extent.steps
        self._index: Array | None = None
        if lengths is not None:
            # Those of a caller's array on a GPU are not known to be in range: kernels clamp too.
            self._lengths = inside = device.brought("lengths", lengths).clip(0, extent.steps)
            steps = xp.arange(extent.steps)[:, None]
            self._index = xp.where(steps < inside, inside - 1 - steps, steps)[:, :, None]

    def __call__(self, sequence: Array) -> Array:
        if self._index is None:
            return sequence[::-1]
        turned: Array = self._xp.take_along_axis(sequence, self._index, axis=0)
        return turned

    def resets(self, resets: Array | None) -> Array | None:
        """Return the first steps of the segments as met from the end, the first of all left out.

        Where a segment starts at t, the one before it starts, reversed, at length - t.
        """
        if resets is None:
            return None
        xp = self._xp
        steps = xp.arange(len(resets))[:, None]
        inside = (steps > 0) & (steps < self._lengths)
        index = xp.broadcast_to(xp.where(inside, self._lengths - steps, 0), resets.shape)
        turned: Array = xp.take_along_axis(resets, index, axis=0) & inside
        return turned

    def view(self, sequence: Array | None) -> Array | None:
        """Return a reversed view to write into, None where there is none."""
        return None if sequence is None or self._index is not None else sequence[::-1]


def _names(shapes: Mapping[str, Any], forward: Mapping[str, Array]) -> list[str]:
    """Return the names of both directions by layer, forward first."""
    return [name for name in shapes if name.removesuffix("_reverse") in forward]


def _apart(state: tuple[Array | None, ...]) -> tuple[Any, Any]:
    """Return each direction's rows of a state that goes by layer, forward first."""
    return tuple(
        tuple(None if part is None else checks.contiguous(part[first::2]) for part in state)
        for first in (0, 1)
    )  # type: ignore[return-value]
