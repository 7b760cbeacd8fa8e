"""Everything that a training needs to go on to the same numbers, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np

from rnncore import io
from rnncore.checks import Array
from rnncore.errors import FormatError
from rnncore.nn.module import Trainable

KIND = "rnncore training 1"


def save_checkpoint(
    path: str | PathLike[str],
    model: Trainable,
    tensors: Mapping[str, Array] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a model with what it carries from call to call, atomically.

    Parameters
    ----------
    path : path
        Replaced at once when the new file is complete.
    model : module or layer
        Its parameters, the state of its stateful layers and the generators of its dropout.
    tensors : mapping of str to array, optional
        More arrays.
    notes : mapping of str to anything JSON holds, optional
        More facts.
    """
    out: dict[str, Array] = {f"more.{name}": value for name, value in (tensors or {}).items()}
    out |= {f"model.{name}": value for name, value in model.params.items()}
    generators = {}
    for name, part in walk(model):
        if hasattr(part, "rng_state"):
            generators[name] = part.rng_state
        for place, value in enumerate(_carried_state(part)):
            out[f"state.{name}.{place}"] = value
    texts = {"notes": notes or {}, "generators": generators}
    io.save_tensors(
        path, out, {"kind": KIND, **{name: json.dumps(value) for name, value in texts.items()}}
    )


def load_checkpoint(
    path: str | PathLike[str], model: Trainable
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Put a model back to where :func:`save_checkpoint` met it.

    Parameters
    ----------
    path : path
        The file.
    model : module or layer
        Of the same configuration.

    Returns
    -------
    tensors, notes
        What was saved beside the model.

    Raises
    ------
    FormatError
        If the file is damaged or no checkpoint.
    ValueError
        If the model has other parameters.
    """
    arrays, metadata = io.load_tensors(path)
    if metadata.get("kind") != KIND:
        raise FormatError(f"{path}: expected a file of kind {KIND!r}, got {metadata.get('kind')!r}")
    model.load_state_dict(_under("model.", arrays))
    generators = json.loads(metadata["generators"])
    for name, part in walk(model):
        if name in generators:
            part.rng_state = generators[name]
        if getattr(part, "stateful", False):
            state = list(_under(f"state.{name}.", arrays).values())
            part.reset_state()
            if state:
                part.set_state(tuple(state) if len(state) > 1 else state[0])
    return _under("more.", arrays), json.loads(metadata["notes"])


def read_notes(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the notes of a checkpoint alone, to build its model from.

    Raises
    ------
    FormatError
        If the file is damaged or no checkpoint.
    """
    _, metadata = io.load_tensors(path)
    if metadata.get("kind") != KIND:
        raise FormatError(f"{path}: expected a file of kind {KIND!r}, got {metadata.get('kind')!r}")
    notes: dict[str, Any] = json.loads(metadata["notes"])
    return notes


def walk(module: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a module and everything inside it with the path to it."""
    yield name, module
    if hasattr(module, "parts"):
        for part_name, part in module.parts():
            yield from walk(part, f"{name}.{part_name}".lstrip("."))


def _carried_state(part: Any) -> tuple[Array, ...]:
    state = part.state if getattr(part, "stateful", False) else None
    if state is None:
        return ()
    return tuple(np.asarray(value) for value in (state if isinstance(state, tuple) else (state,)))


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    chosen = {key: value for key, value in arrays.items() if key.startswith(prefix)}
    return {key[len(prefix) :]: chosen[key] for key in sorted(chosen)}
