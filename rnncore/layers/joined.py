"""What layers made of other layers share: names with prefixes, and gradients that come together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rnncore.checks import Array
from rnncore.devices import Device
from rnncore.layers.base import Layer
from rnncore.layout import Extent
from rnncore.sequences import Inputs, Tape


class JoinedTape(Tape):
    """The tapes of a joined layer's members, and what joining them needs."""

    def __init__(self, extent: Extent, parts: list[Any], held: Any = None) -> None:
        super().__init__(extent)
        self.parts = parts
        self.held = held

    @property
    def spent(self) -> bool:
        """Whether a gradient has used up any of the tapes."""
        return any(part.spent for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Memory that the members' tapes hold."""
        return sum(part.nbytes for part in self.parts)

    def release(self) -> None:
        """Let go of everything: a gradient has ended, or was interrupted half way."""
        self.parts, self.held = [_SPENT], None


class _Spent:
    spent = True
    nbytes = 0


_SPENT = _Spent()


class Joined(Layer):
    """Join member layers. Its parameters are the members' arrays under names of its own."""

    _members: Sequence[Layer]

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for member in self._members:
            member.zero_grad()

    def _hold_reduced(self, weights: str) -> None:
        for member in self._members:
            member._hold_reduced(weights)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Promise, for a ``with`` block, that parameters do not change: weights are packed once."""
        with ExitStack() as stack:
            for member in self._members:
                stack.enter_context(member.hold())
            yield

    def _tellers(self) -> Iterator[Any]:
        for member in self._members:
            yield from member._tellers()

    def _open(self, tape: Any) -> None:
        for member, part in zip(self._members, tape.parts, strict=True):
            member._open(part)

    def _take(self, x: object, state: object, lengths: object, resets: object) -> Inputs:
        for i, member in enumerate(self._members):
            if member._device is not self._device:
                raise RuntimeError(
                    f"layers[{i}]: expected device {self.device}, as the whole has, got "
                    f"{member.device}; move the whole"
                )
        return super()._take(x, state, lengths, resets)

    def _named(self, members: list[Mapping[str, Array]]) -> dict[str, Array]:
        """Return the members' arrays under this layer's names."""
        raise NotImplementedError

    def _own_grads(self) -> dict[str, Array]:
        return self._named([member._own_grads() for member in self._members])

    def _brought(self, device: Device) -> Any:
        return [member._brought(device) for member in self._members]

    def _settle(self, device: Device, brought: Any) -> None:
        for member, part in zip(self._members, brought, strict=True):
            member._settle(device, part)
        super()._settle(device, (self._named([member.params for member in self._members]), None))

    def _grads_so_far(self) -> dict[str, Array] | None:
        known = any(member._grads_so_far() is not None for member in self._members)
        return self._own_grads() if known else None

    def _params_changed(self) -> None:
        for member in self._members:
            member._params_changed()

    def _commit(self, pending: Any) -> None:
        for member, part in zip(self._members, pending, strict=True):
            member._commit(part)

    def _memory(self) -> Any:
        return [member._memory() for member in self._members]

    def _remember(self, memory: Any) -> None:
        for member, part in zip(self._members, memory, strict=True):
            member._remember(part)


@contextmanager
def all_or_nothing(tape: JoinedTape, members: Sequence[Layer], retain: bool) -> Iterator[None]:
    """Undo what was added into the gradients of `members` if a later one fails.

    Kernels add gradients only when all is computed; this extends it over several of them.
    """
    touched = [grad for member in members for grad in member._touched()]
    before = [grad.copy() for grad in touched]
    try:
        yield
    except BaseException:
        for grad, copy in zip(touched, before, strict=True):
            grad[...] = copy
        if tape.spent:
            tape.release()
        raise
    if not retain:
        tape.release()
