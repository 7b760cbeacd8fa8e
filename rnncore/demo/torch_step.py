"""The demonstration's training step in PyTorch, where it is installed: what users have today."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rnncore as rc
from rnncore.checks import Array
from rnncore.demo.settings import Settings
from rnncore.demo.text import Indices


def torch_step(
    params: dict[str, Array], settings: Settings
) -> tuple[str, Callable[[Indices, Indices], float]]:
    """Return PyTorch's version and a function that does one update of a copy of the model.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    """
    import torch

    torch.set_num_threads(rc.get_num_threads())
    symbols, embedding = params["embedding.weight"].shape
    parts: Any = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(symbols, embedding),
            "lstm": torch.nn.LSTM(embedding, settings.hidden, 2),
            "output": torch.nn.Linear(settings.hidden, symbols),
        }
    )
    parts.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
    optimizer = torch.optim.Adam(parts.parameters(), settings.rate, (0.9, settings.beta2))

    def step(inputs: Indices, targets: Indices) -> float:
        y, _ = parts["lstm"](parts["embedding"](torch.from_numpy(inputs)))
        logits = parts["output"](y).reshape(-1, symbols)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets).reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), settings.max_norm)
        optimizer.step()
        return float(loss.item())

    return torch.__version__, step
