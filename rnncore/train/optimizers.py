"""Rules that turn gradients into steps: stochastic gradient descent and Adam."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnncore import devices
from rnncore.checks import Array, flag, real
from rnncore.devices import Device
from rnncore.layers.parameters import checked_entries
from rnncore.train import updates
from rnncore.train.groups import Modules, named_gradients, named_modules


class Optimizer(ABC):
    """Own the memory of an update rule and apply it to modules and layers.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        Whose ``params`` each ``step`` changes by their ``grads``.
    lr : float
        Learning rate; a plain attribute that may be set between steps.
    weight_decay : float
        Times the parameter, added to its gradient.

    Notes
    -----
    A parameter that several names share, as tied weights are, is changed once a step. Memory is on
    the device of its parameter, and follows it where a model has moved between two steps.
    """

    memory_names: tuple[str, ...] = ()

    def __init__(self, modules: Modules, lr: float, weight_decay: float = 0.0) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not real(name, value) >= 0:
                raise ValueError(f"{name}: expected at least 0, got {value}")
        self.modules = named_modules(modules)
        self.lr = float(lr)
        self.weight_decay = float(weight_decay)
        self.steps = 0
        self._source = modules
        named = {name: param for name, param, _ in named_gradients(modules)}
        self._memory = {
            f"{kind}.{name}": devices.of(param).zeros(param.shape, param.dtype)
            for kind in self.memory_names
            for name, param in named.items()
        }

    def step(self) -> None:
        """Change every parameter once by its gradient."""
        parameters = list(named_gradients(self._source))
        self.steps += 1
        for name, param, grad in parameters:
            device = devices.of(param)
            with device.entered():
                self._update(param, grad, self._memory_on(device, name))

    def _memory_on(self, device: Device, name: str) -> list[Array]:
        """Return a parameter's memory on the device where the parameter is."""
        held = []
        for kind in self.memory_names:
            key = f"{kind}.{name}"
            if devices.of(self._memory[key]) is not device:
                self._memory[key] = device.brought(key, self._memory[key])
            held.append(self._memory[key])
        return held

    @abstractmethod
    def _update(self, param: Array, grad: Array, memory: list[Array]) -> None:
        """Change one parameter and its memory in place."""

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for module in self.modules.values():
            module.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the memory by name, and the number of steps."""
        state = {}
        for name, value in self._memory.items():
            with devices.of(value).entered():
                state[name] = value.copy()
        return {"steps": np.array([self.steps], dtype=np.int64), **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            If entries are missing, unexpected or misshapen: all are named, and nothing changes.
        """
        expected = {**self._memory, "steps": np.zeros(1, dtype=np.float64)}
        steps = np.asarray(state.get("steps", 0), dtype=np.float64)
        values = checked_entries(expected, {**state, "steps": steps})
        for name, value in self._memory.items():
            with devices.of(value).entered():
                value[...] = values[name]
        self.steps = int(values["steps"][0])


class SGD(Optimizer):
    """Step against the gradient, with momentum if wanted.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        What is trained.
    lr : float
        Learning rate.
    momentum : float
        Share of the last step that is kept: ``u = momentum * u + g``, ``p -= lr * u``.
    nesterov : bool
        Whether to look ahead: ``p -= lr * (g + momentum * u)``; needs a momentum.
    weight_decay : float
        Times the parameter, added to its gradient (as in ``torch.optim.SGD``).

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum in deep
    learning, 2013.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(2, 1, seed=0)
    >>> layer.params["bias"][...] = 1
    >>> layer.grads["bias"][...] = 2
    >>> SGD(layer, lr=0.25).step()
    >>> float(layer.params["bias"][0])
    0.5
    """

    def __init__(
        self,
        modules: Modules,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = False,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected 0 <= momentum < 1, got {momentum}")
        if flag("nesterov", nesterov) and not momentum:
            raise ValueError("nesterov: expected a momentum above 0 beside it, got 0")
        self.momentum = float(momentum)
        self.nesterov = nesterov
        self.memory_names = ("velocity",) if momentum else ()
        super().__init__(modules, lr, weight_decay)

    def _update(self, param: Array, grad: Array, memory: list[Array]) -> None:
        velocity = memory[0] if memory else None
        updates.sgd_step(
            param, grad, velocity, self.lr, self.momentum, self.nesterov, self.weight_decay
        )

    def __repr__(self) -> str:
        return (
            f"SGD(lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}, "
            f"nesterov={self.nesterov})"
        )


class Adam(Optimizer):
    """Step by the gradient's running mean over the root of its running square.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        What is trained.
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the running mean and of the running square.
    eps : float
        Added to the root.
    weight_decay : float
        Times the parameter, added to its gradient (as in ``torch.optim.Adam``).

    References
    ----------
    Kingma and Ba, Adam: a method for stochastic optimization, 2015.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(2, 1, seed=0)
    >>> layer.params["bias"][...] = 1
    >>> layer.grads["bias"][...] = 7
    >>> Adam(layer, lr=0.25).step()
    >>> round(float(layer.params["bias"][0]), 6)
    0.75
    """

    memory_names = ("m", "v")

    def __init__(
        self,
        modules: Modules,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: expected two numbers, each 0 <= beta < 1, got {betas}")
        if not eps >= 0:
            raise ValueError(f"eps: expected at least 0, got {eps}")
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = float(eps)
        super().__init__(modules, lr, weight_decay)

    def _update(self, param: Array, grad: Array, memory: list[Array]) -> None:
        self._step(param, grad, memory, penalty=self.weight_decay)

    def _step(
        self,
        param: Array,
        grad: Array,
        memory: list[Array],
        penalty: float = 0.0,
        decay: float = 0.0,
    ) -> None:
        m, v = memory
        rule = (self.lr, *self.betas, self.eps, self.steps)
        updates.adam_step(param, grad, m, v, *rule, penalty, decay)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(lr={self.lr}, betas={self.betas}, eps={self.eps}, "
            f"weight_decay={self.weight_decay})"
        )


class AdamW(Adam):
    """Step as Adam does, with the decay of weights apart from their gradients.

    Parameters
    ----------
    modules : module, layer, sequence or mapping of them
        What is trained.
    lr : float
        Learning rate.
    betas : (float, float)
        Decay of the running mean and of the running square.
    eps : float
        Added to the root.
    weight_decay : float
        Times learning rate and parameter, taken from the parameter at each step (as in
        ``torch.optim.AdamW``).

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, 2019.

    Examples
    --------
    >>> import rnncore.nn as nn
    >>> layer = nn.Linear(2, 1, seed=0)
    >>> layer.params["bias"][...] = 1
    >>> AdamW(layer, lr=0.25, weight_decay=0.5).step()
    >>> float(layer.params["bias"][0])
    0.875
    """

    def __init__(
        self,
        modules: Modules,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(modules, lr, betas, eps, weight_decay)

    def _update(self, param: Array, grad: Array, memory: list[Array]) -> None:
        self._step(param, grad, memory, decay=self.weight_decay)
