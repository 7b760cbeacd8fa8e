"""Several modules and layers seen as one list of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rnncore import devices
from rnncore.checks import Array
from rnncore.nn.module import Trainable

Modules = Trainable | Sequence[Trainable] | Mapping[str, Trainable]
"""One module or layer, a sequence of them, or a mapping of names to them."""


def named_modules(modules: Modules) -> dict[str, Trainable]:
    """Return the modules by prefix: none for a single one, ``"0."``, ... or ``"name."``."""
    if isinstance(modules, Trainable):
        named = {"": modules}
    elif isinstance(modules, Mapping):
        named = {f"{name}.": module for name, module in modules.items()}
    else:
        named = {f"{place}.": module for place, module in enumerate(modules)}
    for prefix, module in named.items():
        if not isinstance(module, Trainable):
            raise TypeError(
                f"modules: expected a module or layer with params and grads{' at ' * bool(prefix)}"
                f"{prefix.rstrip('.')}, got {type(module).__name__}"
            )
    return named


def named_gradients(modules: Modules) -> Iterator[tuple[str, Array, Array]]:
    """Yield name, parameter and gradient of everything in the modules, in a fixed order.

    A parameter that is the same memory under several names, as tied weights are, comes once, under
    the first of them.

    Raises
    ------
    ValueError
        If two names share a parameter and not its gradient: neither gradient is the whole one.
    """
    seen: dict[tuple[int, int], tuple[str, Array]] = {}
    for prefix, module in named_modules(modules).items():
        grads = module.grads
        for name, param in module.params.items():
            grad = grads[name]
            first, its_grad = seen.setdefault(_memory(param), (prefix + name, grad))
            if param.size == 0 or first == prefix + name:
                yield prefix + name, param, grad
            elif _memory(its_grad) != _memory(grad):
                raise ValueError(
                    f"modules: expected {first} and {prefix + name}, one parameter, to share a "
                    "gradient too, got two"
                )


def _memory(array: Array) -> tuple[int, int]:
    """Tell an array's memory from that of others; views of all of it have the same, turned too."""
    return devices.address(array), array.nbytes
