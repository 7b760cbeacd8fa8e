"""Tell who wants to know when a backward pass has finished gradients, before it has ended.

What sums gradients over processes (:mod:`rnncore.distributed`) starts with those of the last layer
while the layers below it are still at work. An interrupted pass leaves ``grads`` as they were, so
what a listener is told of early it must keep to itself until the pass has succeeded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

from rnncore.checks import Array

SUMMED_LAST = ("norm_", "peephole_")
"""Names of gradients that a core knows at the very end of a call, whatever their layer."""

Report: TypeAlias = tuple[Sequence[Array | None], Callable[[int], object]]
"""Where a core writes totals of gradients layer by layer, and what it then calls with the layer."""


class GradientListener(Protocol):
    """Who is told. Gradients are named by the arrays that hold them."""

    def places(self, grads: Sequence[Array]) -> Sequence[Array] | None:
        """Return where the totals of `grads` may be written ahead of time; None for nowhere."""

    def filled(self, grads: Sequence[Array]) -> None:
        """Hear that the totals of `grads` were written to their places; `grads` come later."""

    def finished(self, grads: Sequence[Array]) -> None:
        """Hear that `grads` hold their totals."""


def telling(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a module's ``backward`` that tells the module's listener once it has succeeded.

    An inherited ``backward`` that is called inside is not the end, and is not told of.
    """

    @functools.wraps(backward)
    def told(module: Any, *args: Any, **options: Any) -> Any:
        listener: GradientListener | None = module._listener
        if listener is None:
            return backward(module, *args, **options)
        module._listener = None
        try:
            result = backward(module, *args, **options)
        finally:
            module._listener = listener
        listener.finished(list(module._own_grads.values()))
        return result

    return told
