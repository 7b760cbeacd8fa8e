"""Exchange the recurrent modules of a model for this engine's, in place, and back.

A module stays the object that it is and changes its class: its parameters, hooks, training flag and
whoever refers to it know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType

import torch
from torch.nn import Module

from rnncore.torch import cells, layers
from rnncore.torch.devices import KERNELS
from rnncore.torch.recurrent import Recurrent

_LAYERS: dict[type, type] = {
    torch.nn.RNN: layers.RNN,
    torch.nn.LSTM: layers.LSTM,
    torch.nn.GRU: layers.GRU,
}
_CELLS: dict[type, type] = {
    torch.nn.RNNCell: cells.RNNCell,
    torch.nn.LSTMCell: cells.LSTMCell,
    torch.nn.GRUCell: cells.GRUCell,
}
_OURS = _LAYERS | _CELLS
_TORCHS = {ours: theirs for theirs, ours in _OURS.items()}


class Accelerated:
    """Say what :func:`accelerate` or :func:`restore` did; a context manager that undoes it.

    Attributes
    ----------
    swapped : tuple of str
        Names of the modules that were exchanged, as ``model.named_modules()`` has them; the model
        itself is ``""``.
    left : mapping of str to str
        Names of the recurrent modules that were left alone, and why.
    """

    def __init__(self, done: dict[str, Module], left: dict[str, str]) -> None:
        self.swapped = tuple(done)
        self.left = MappingProxyType(left)
        self._before = [(module, type(module)) for module in done.values()]

    def restore(self) -> None:
        """Undo the exchange; a second call does nothing."""
        for module, before in self._before:
            if _OURS.get(before, _TORCHS.get(before)) is type(module):
                module.__class__ = before
        self._before = []

    def __enter__(self) -> Accelerated:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def __repr__(self) -> str:
        left = "".join(f"\n  left {name or 'the model'}: {why}" for name, why in self.left.items())
        return f"<{len(self.swapped)} modules exchanged: {', '.join(self.swapped)}>{left}"


def accelerate(model: Module, *, cells: bool = False) -> Accelerated:
    """Let this engine run the recurrent modules of a model, in place.

    Every ``torch.nn.RNN``, ``LSTM`` and ``GRU`` in it becomes the class of that name here. It keeps
    its identity, parameters, hooks and training flag, wherever else it is used. Left alone are

    - subclasses, and so modules with parametrizations, whose class is made for them;
    - modules whose weights are no parameters of their own, as ``weight_norm`` and pruning leave
      them, and those with a ``forward`` of their own;
    - modules on other devices than the CPU and CUDA devices, in other types than float32 and
      float64 (on CUDA devices float16 and bfloat16, too), or on CUDA devices without CuPy.

    Parameters
    ----------
    model : torch.nn.Module
        What is changed; it may be a recurrent module itself.
    cells : bool, optional
        Whether to exchange ``RNNCell``, ``LSTMCell`` and ``GRUCell``, too. They pack their weights
        at every step and gain nothing by it but inside :func:`rnncore.torch.hold`.

    Returns
    -------
    Accelerated
        Which modules were exchanged and which were not, and why. Its ``restore`` or the end of a
        ``with`` block undoes it.

    Examples
    --------
    >>> import torch
    >>> import rnncore.torch
    >>> model = torch.nn.ModuleList([torch.nn.LSTM(3, 4), torch.nn.GRUCell(3, 4)])
    >>> accelerated = rnncore.torch.accelerate(model)
    >>> accelerated.swapped, dict(accelerated.left)
    (('0',), {'1': 'a cell, and cells=False'})
    >>> accelerated.restore()
    >>> type(model[0]) is torch.nn.LSTM
    True
    """

    def objection(module: Module) -> str | None:
        if type(module) in _CELLS and not cells:
            return "a cell, and cells=False"
        return _why_not(module)

    return _exchange(model, _OURS, objection)


def restore(model: Module) -> Accelerated:
    """Let PyTorch run the recurrent modules of a model again.

    What :meth:`Accelerated.restore` does, for a model of whatever origin: a copy, or one that was
    loaded or built with this package's classes. Modules with options that torch lacks are left.

    Parameters
    ----------
    model : torch.nn.Module
        What is changed.

    Returns
    -------
    Accelerated
        Which modules were exchanged, and which were not and why.
    """

    def objection(module: Module) -> str | None:
        options = module.options if isinstance(module, Recurrent) else {}
        named = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"torch.nn has no {named}" if named else None

    return _exchange(model, _TORCHS, objection)


def _exchange(
    model: Module, classes: dict[type, type], objection: Callable[[Module], str | None]
) -> Accelerated:
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    done, left = {}, {}
    for name, module in _recurrent(model, set(classes.values())):
        why = objection(module)
        if why is None:
            done[name] = module
        else:
            left[name] = why
    accelerated = Accelerated(done, left)
    for module in done.values():
        module.__class__ = classes[type(module)]
    return accelerated


def _recurrent(model: Module, aims: set[type]) -> Iterator[tuple[str, Module]]:
    """Yield each recurrent module once that is none of the aims already."""
    for name, module in model.named_modules():
        known = isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase)
        if known and type(module) not in aims:
            yield name, module


def _why_not(module: Module) -> str | None:
    """Return why a module is to be left alone, if it is."""
    kind = type(module)
    if hasattr(module, "parametrizations"):
        return f"parametrized: {', '.join(module.parametrizations)}"
    if kind not in _OURS:
        return f"a class of its own, {kind.__module__}.{kind.__qualname__}"
    if "forward" in vars(module):
        return "a forward of its own"
    names = getattr(module, "_flat_weights_names", None) or _cell_weights(module)
    absent = [name for name in names if module._parameters.get(name) is None]
    if absent:
        return f"{absent[0]} is no parameter of its own (weight_norm, spectral_norm or pruning?)"
    for name in names:
        parameter = module._parameters[name]
        kernels = KERNELS.get(parameter.device.type)
        where = f"{name} is on {parameter.device}"
        if kernels is None:
            return f"{where}; this version runs on the CPU and on CUDA devices"
        if parameter.dtype not in kernels.DTYPES:
            taken = " and ".join(str(dtype).removeprefix("torch.") for dtype in kernels.DTYPES)
            return f"{name} is {parameter.dtype}; this version computes in {taken}"
        obstacle = kernels.obstacle()
        if obstacle:
            return f"{where}; {obstacle}"
    return None


def _cell_weights(module: Module) -> list[str]:
    return [name for name in cells.NAMES if module.bias or not name.startswith("bias")]
