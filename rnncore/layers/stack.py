"""Run layers one after another as one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from rnncore.checks import Array
from rnncore.layers.base import Layer, Outcome
from rnncore.layers.joined import Joined, JoinedTape, all_or_nothing
from rnncore.layers.pointwise import Pointwise, as_layers
from rnncore.layout import Extent
from rnncore.sequences import Inputs


class Stack(Joined):
    """Run layers one after another.

    Parameters
    ----------
    layers : sequence of layers
        Each takes what the one before puts out. All have one device, one dtype and one
        ``batch_first``. The stack works on these very layers: their parameters are its own,
        ``0.weight_ih_l0`` ... Modules of :mod:`rnncore.nn` that map each step by itself
        (``Linear``, ``LayerNorm``, ``Dropout``, or one of yours with ``features``) may be among
        them; their state is None, and what they put out is zero past a sequence's end.

    Raises
    ------
    ValueError
        If there is none, sizes do not meet, layouts or devices differ or a layer comes twice.
    TypeError
        If a member is no layer, or dtypes differ.

    Examples
    --------
    >>> import numpy as np
    >>> import rnncore as rc
    >>> stack = rc.Stack([rc.LSTM(3, 4, bidirectional=True, seed=1), rc.GRU(8, 5, seed=2)])
    >>> y, (first, second) = stack(np.ones((6, 2, 3), np.float32))
    >>> y.shape, second.shape, list(stack.params)[-1]
    ((6, 2, 5), (1, 2, 5), '1.bias_hh_l0')

    The vanilla network's three matrices, W_xh, W_hh and W_hy:

    >>> from rnncore import nn
    >>> network = rc.Stack([rc.RNN(3, 4, seed=1), nn.Linear(4, 2, seed=2)])
    >>> y, (h, none) = network(np.ones((6, 2, 3), np.float32))
    >>> y.shape, [name for name in network.params if "weight" in name]
    ((6, 2, 2), ['0.weight_ih_l0', '0.weight_hh_l0', '1.weight'])
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        if not isinstance(layers, tuple | list):
            raise TypeError(f"layers: expected a list of layers, got {type(layers).__name__}")
        _refuse_repeats(layers)
        self._members = as_layers(layers)
        _check_members(self._members)
        first, last = self._members[0], self._members[-1]
        params = self._named([layer.params for layer in self._members])
        super().__init__(params, (first.input_size, last.output_size), first._layout)

    @property
    def layers(self) -> tuple[Any, ...]:
        """The members in order: layers and modules."""
        return tuple(
            member.module if isinstance(member, Pointwise) else member for member in self._members
        )

    @property
    def stateful(self) -> bool:
        """Whether any member carries its state from call to call."""
        return any(layer.stateful for layer in self._members)

    @property
    def state(self) -> Any:
        """Copies of the states that members carry, None for one that carries none."""
        return [layer.state if layer.stateful else None for layer in self._stateful_parts()]

    def set_state(self, state: object) -> None:
        """Set the states that the next call starts from: a list, None for members to leave."""
        parts = self._parts("state", state)
        members = self._stateful_parts()
        before = [layer._memory() for layer in members]
        try:
            for layer, part in zip(members, parts, strict=True):
                if part is not None:
                    layer.set_state(part)
        except BaseException:
            for layer, memory in zip(members, before, strict=True):
                layer._remember(memory)
            raise

    def reset_state(self, rows: object = None) -> None:
        """Let the stateful members' next call start from zeros, in all rows or in some."""
        for layer in self._stateful_parts():
            if layer.stateful:
                layer.reset_state(rows)

    @property
    def rng_state(self) -> list[Any]:
        """The members' ``rng_state``, in order."""
        return [layer.rng_state for layer in self._members]

    @rng_state.setter
    def rng_state(self, value: Any) -> None:
        parts = self._parts("rng_state", value)
        before = self.rng_state
        try:
            for layer, part in zip(self._members, parts, strict=True):
                layer.rng_state = part
        except (TypeError, ValueError):
            for layer, part in zip(self._members, before, strict=True):
                layer.rng_state = part
            raise

    def __repr__(self) -> str:
        return f"Stack([{', '.join(map(repr, self._members))}])"

    def _stateful_parts(self) -> Sequence[Layer]:
        if not self.stateful:
            raise RuntimeError("state: expected a member made with stateful=True, got none")
        return self._members

    def _parts(self, name: str, value: object) -> Sequence[Any]:
        if not isinstance(value, tuple | list):
            raise TypeError(f"{name}: expected a list, got {type(value).__name__}")
        if len(value) != len(self._members):
            raise ValueError(f"{name}: expected {len(self._members)} entries, got {len(value)}")
        return value

    def _named(self, members: list[Mapping[str, Array]]) -> dict[str, Array]:
        return {
            f"{i}.{name}": array
            for i, arrays in enumerate(members)
            for name, array in arrays.items()
        }

    def _take_state(self, name: str, state: object, extent: Extent) -> list[Any]:
        parts = [None] * len(self._members) if state is None else self._parts(name, state)
        return [
            layer._take_state(f"{name}[{i}]", part, extent)
            for i, (layer, part) in enumerate(zip(self._members, parts, strict=True))
        ]

    def _take_dstate(self, name: str, dstate: object, extent: Extent) -> list[Any]:
        return [
            None if part is None else layer._take_dstate(f"{name}[{i}]", part, extent)
            for i, (layer, part) in enumerate(
                zip(self._members, self._parts(name, dstate), strict=True)
            )
        ]

    def _give_state(self, state: list[Any], batched: bool) -> list[Any]:
        pairs = zip(self._members, state, strict=True)
        return [layer._give_state(part, batched) for layer, part in pairs]

    def _run(
        self, inputs: Inputs, keep: bool, out: Array | None = None, recompute: bool = False
    ) -> Outcome:
        x = inputs.x
        outcomes: list[Outcome] = []
        last = self._members[-1]
        for layer, state in zip(self._members, inputs.state, strict=True):
            given = inputs._replace(x=x, state=state)
            outcome = layer._run(given, keep, out if layer is last else None, recompute)
            outcomes.append(outcome)
            x = outcome.y
        tapes = [outcome.tape for outcome in outcomes]
        tape = JoinedTape(inputs.extent, tapes) if keep else None
        final = [outcome.state for outcome in outcomes]
        return Outcome(x, final, tape, [outcome.pending for outcome in outcomes])

    def _run_backward(
        self, tape: JoinedTape, dy: Array | None, dend: Any, need_dx: bool, retain: bool
    ) -> tuple[Array | None, list[Any]]:
        ends = dend or [None] * len(self._members)
        dstart: list[Any] = []
        with all_or_nothing(tape, self._members[1:], retain):
            for i in reversed(range(len(self._members))):
                dy, start = self._members[i]._run_backward(
                    tape.parts[i], dy, ends[i], need_dx or i > 0, retain
                )
                dstart.append(start)
        return dy, dstart[::-1]

    def __reduce__(self) -> tuple[Any, ...]:
        # Members go as they are, so that what a module shares with one outside stays shared.
        return type(self), (list(self.layers),)

    def _frozen_values(self) -> Mapping[str, Array]:
        return {
            f"{i}.{name}": array
            for i, layer in enumerate(self._members)
            for name, array in layer._frozen_values().items()
        }

    def _config(self) -> dict[str, Any]:
        return {"type": "Stack", "layers": [layer._config() for layer in self._members]}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        from rnncore.layers import from_config

        return cls([from_config(part) for part in config["layers"]])

    def _frozen_config(self, dtype: str) -> dict[str, Any]:
        members = [layer._frozen_config(dtype) for layer in self._members]
        return {"type": "Stack", "layers": members}

    def _stream(self, batch: int) -> Any:
        from rnncore.frozen import StackStream

        return StackStream([layer._stream(batch) for layer in self._members])


def _refuse_repeats(layers: Sequence[Any]) -> None:
    if not layers:
        raise ValueError("layers: expected at least one layer, got none")
    for i, layer in enumerate(layers):
        if any(layer is other for other in layers[:i]):
            raise ValueError(f"layers[{i}]: expected each layer once, got {layer!r} again")


def _check_members(layers: Sequence[Layer]) -> None:
    for i, layer in enumerate(layers[1:], start=1):
        before = layers[i - 1]
        if layer.input_size != before.output_size:
            raise ValueError(
                f"layers[{i}]: expected input_size={before.output_size}, "
                f"which layers[{i - 1}] puts out, got {layer.input_size}"
            )
        if layer.dtype != before.dtype:
            raise TypeError(f"layers[{i}]: expected dtype {before.dtype}, got {layer.dtype}")
        if layer.device != before.device:
            raise ValueError(f"layers[{i}]: expected device {before.device}, got {layer.device}")
        if layer.batch_first != before.batch_first:
            raise ValueError(
                f"layers[{i}]: expected batch_first={before.batch_first}, got {layer.batch_first}"
            )
