"""Everything that a training needs to go on to the same numbers, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from rnncore import devices, io
from rnncore.checks import Array
from rnncore.devices import HOST
from rnncore.errors import FormatError
from rnncore.nn.module import Trainable

KIND = "rnncore training 2"


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
        On any device. Its parameters, the state of its stateful layers and the generators of its
        dropout.
    tensors : mapping of str to array, optional
        More arrays.
    notes : mapping of str to anything JSON holds, optional
        More facts.
    """
    out: dict[str, Array] = {f"more.{name}": value for name, value in (tensors or {}).items()}
    out |= {f"model.{name}": value for name, value in model.params.items()}
    out = {name: HOST.brought(name, value) for name, value in out.items()}
    generators, states = {}, {}
    for name, part in walk(model):
        if hasattr(part, "rng_state"):
            generators[name] = part.rng_state
        if getattr(part, "stateful", False):
            arrays: list[Array] = []
            states[name] = _taken_apart(part.state, arrays)
            out |= {f"state.{name}.{place}": value for place, value in enumerate(arrays)}
    texts = {"notes": notes or {}, "generators": generators, "states": states}
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
        Of the same configuration, on the device where it is to be.

    Returns
    -------
    tensors, notes
        What was saved beside the model.

    Raises
    ------
    FormatError
        If the file is damaged or no checkpoint.
    ValueError
        If the model has other parameters, or its dropout is in other places.
    """
    arrays, texts = _read(path)
    generators, states = texts["generators"], texts["states"]
    drawing = [name for name, part in walk(model) if hasattr(part, "rng_state")]
    params = under("model.", arrays)
    if set(drawing) != set(generators):
        if set(params) != set(model.params):
            model.load_state_dict(params)  # says more, if it refuses them
        raise ValueError(
            f"model: expected generators in {sorted(generators)}, as {path} has them, got "
            f"{sorted(drawing)}"
        )
    model.load_state_dict(params)
    for name, part in walk(model):
        if hasattr(part, "rng_state"):
            part.rng_state = generators[name]
        if getattr(part, "stateful", False):
            part.reset_state()
            if states.get(name) is not None:
                place = devices.get(part.device)
                saved = under(f"state.{name}.", arrays)
                held = {key: place.upload(value) for key, value in saved.items()}
                with place.entered():
                    part.set_state(_put_together(states[name], held))
    return under("more.", arrays), texts["notes"]


def read_notes(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the notes of a checkpoint alone, to build its model from.

    Raises
    ------
    FormatError
        If the file is damaged or no checkpoint.
    """
    notes: dict[str, Any] = _read(path)[1]["notes"]
    return notes


def _read(path: str | PathLike[str]) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Return the arrays of a checkpoint, and its notes, generators and states by these names."""
    arrays, metadata = io.load_tensors(path)
    if metadata.get("kind") != KIND:
        raise FormatError(f"{path}: expected a file of kind {KIND!r}, got {metadata.get('kind')!r}")
    texts: dict[str, dict[str, Any]] = {}
    for name in ("notes", "generators", "states"):
        try:
            texts[name] = json.loads(metadata.get(name, "null"))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: {name}: expected JSON: {error}") from error
        if not isinstance(texts[name], dict):
            raise FormatError(f"{path}: {name}: expected an object, got {texts[name]!r}")
    return arrays, texts


def walk(module: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a module and everything inside it with the path to it."""
    yield name, module
    if hasattr(module, "parts"):
        for part_name, part in module.parts():
            yield from walk(part, f"{name}.{part_name}".strip("."))


def _taken_apart(state: Any, arrays: list[Array]) -> Any:
    """Move a state's arrays into a list; return the state with their places in it, for JSON."""
    if state is None:
        return None
    if isinstance(state, tuple | list):
        kind = "tuple" if isinstance(state, tuple) else "list"
        return {kind: [_taken_apart(part, arrays) for part in state]}
    arrays.append(HOST.brought("state", state))
    return len(arrays) - 1


def _put_together(form: Any, arrays: Mapping[str, Array]) -> Any:
    """Return the state that :func:`_taken_apart` took apart."""
    if isinstance(form, dict):
        ((kind, parts),) = form.items()
        made = [_put_together(part, arrays) for part in parts]
        return tuple(made) if kind == "tuple" else made
    return None if form is None else arrays[str(form)]


def under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names begin with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in sorted(arrays.items())
        if name.startswith(prefix)
    }
