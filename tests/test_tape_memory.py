"""Tapes in the caller's memory: the bits of the engine's own, found again, copied, refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Case, draw
from variants import ALONE, OPTIONS, SIZES

from rnncore import masks
from rnncore.backends import cpu

ROWS = {"whole": None, "ragged": np.array([4, 0, 2])}


class Call:
    """One recurrence at the border to C++, forward and backward as often as wanted."""

    def __init__(self, case: Case, lengths: np.ndarray | None, recompute: bool) -> None:
        self.problem, self.spec = draw(case), case.spec
        self.lengths, self.recompute = lengths, recompute
        self.packed = cpu.pack(self.spec, list(self.problem.params.values()), 1)
        self.masks = masks.draw_masks(self.spec, case.T, case.N, dropout=0.4, seed=3)
        self.y = np.empty((case.T, case.N, self.spec.features))
        self.final = [np.empty(s) for s in (*self.spec.state_shapes(case.N), (0,))][:2]
        self.cn = self.final[1] if self.spec.has_cell_state else None

    def memory(self) -> np.ndarray:
        drops = self.masks.inputs if self.masks else []
        masked = [mask is not None for mask in drops]
        steps, batch = self.y.shape[:2]
        width = cpu.tape_width(self.spec, masked, self.recompute)
        return cpu.tape_memory(self.spec, steps, batch, width)

    def forward(self, memory: np.ndarray | None) -> Any:
        p = self.problem
        return cpu.forward(
            self.packed, p.x, p.h0, p.c0, self.lengths, None, self.y, self.final[0], self.cn,
            self.masks, True, self.recompute, 1, memory,
        )  # fmt: skip

    def find(self, memory: np.ndarray) -> Any:
        return cpu.tape_in(
            self.packed, memory, *self.y.shape[:2], self.lengths, None, self.masks, self.recompute
        )

    def backward(self, tape: Any, retain: bool = False, fresh: float | None = None) -> list:
        """Return dx, dh0, dc0 and gradients; with `fresh` written over that number."""
        p = self.problem
        grads = [np.full(v.shape, fresh or 0.0) for v in p.params.values()]
        dx, states = np.empty_like(p.x), [np.zeros_like(part) for part in self.final]
        dc0 = states[1] if self.spec.has_cell_state else None
        cpu.backward(
            self.packed, tape, p.x, self.y, p.h0, p.c0, self.masks, p.dy, p.dhn, p.dcn, dx,
            states[0], dc0, grads, retain, 1, fresh is not None,
        )  # fmt: skip
        return [dx, *states, *grads]


def aligned_copy(memory: np.ndarray) -> np.ndarray:
    room = np.empty(memory.size + 8)
    start = -room.ctypes.data % 64 // 8
    copy = room[start : start + memory.size].reshape(memory.shape)
    copy[...] = memory
    return copy


def assert_same(actual: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("cell", "name"), ALONE)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_tape_found_again_gives_the_bits_of_the_engines_own(cell, name, rows, recompute) -> None:
    case = Case(cell=cell, **(SIZES | OPTIONS[cell][name]), states=True)
    call = Call(case, ROWS[rows], recompute)
    expected = call.backward(call.forward(None))
    memory = call.memory()
    call.forward(memory)
    copy = aligned_copy(memory)
    assert_same(call.backward(call.find(memory), retain=True), expected)
    assert_same(call.backward(call.find(memory), fresh=np.nan), expected)
    assert_same(call.backward(call.find(copy)), expected)


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (5, 0), (40, 9)])
def test_gradients_are_written_over_whatever_was_there(steps: int, batch: int) -> None:
    case = Case(cell="lstm", T=steps, N=batch, D=64, H=65, dtype="float64", states=True)
    call = Call(case, None, False)
    expected = call.backward(call.forward(None))
    assert_same(call.backward(call.forward(None), fresh=np.nan), expected)


def test_memory_that_does_not_fit_is_refused_before_anything_is_written() -> None:
    call = Call(Case(cell="gru", T=4, N=3, D=3, H=5, dtype="float64"), None, False)
    memory = aligned_copy(call.memory())
    call.y[...] = 7.0
    for wrong, error, text in (
        (memory[:3], ValueError, "memory: expected .* bytes more"),
        (memory.reshape(-1)[1:], ValueError, "memory: expected an address that 64 divides"),
        (np.zeros(memory.shape, "f4"), TypeError, "memory: expected dtype"),
        (memory[:, :2], ValueError, "memory: expected a C-contiguous array"),
    ):
        with pytest.raises(error, match=text):
            call.forward(wrong)
    assert np.all(call.y == 7.0)
