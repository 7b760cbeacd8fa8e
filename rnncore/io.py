"""Save layers and tensors as safetensors files, and load them again.

A file holds plain arrays and JSON, never code. What this module writes carries a digest of all its
other bytes, and replaces what was at its path in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore import _rnncore
from rnncore._version import __version__
from rnncore.devices import HOST
from rnncore.errors import FormatError
from rnncore.initializers import undrawn

if TYPE_CHECKING:
    from rnncore.layers.parameters import Parametrised

_OWN_KEYS = ("rnncore.format", "rnncore.digest")
_FORMAT = "1"
_VERSION_KEY = "rnncore.version"
_LAYER_KEY = "rnncore.layer"
# What a description that is JSON, but no layer's, makes a constructor raise.
_MISFITS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def save_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays to a safetensors file, atomically.

    Parameters
    ----------
    path : path-like
        Holds either its old file or the whole new one at every moment.
    tensors : mapping of str to array
        Any shape and strides; real numbers, integers, booleans, or bfloat16 of `ml_dtypes`.
    metadata : mapping of str to str, optional
        Words to keep with them.

    Raises
    ------
    ValueError
        If a name cannot stand in a file.
    TypeError
        If a dtype has no place in the format.
    OSError
        If the system refuses; the old file is then intact.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.safetensors")
    >>> save_tensors(path, {"w": np.eye(2, dtype="float32")}, {"step": "10"})
    >>> tensors, metadata = load_tensors(path)
    >>> tensors["w"].shape, metadata
    ((2, 2), {'step': '10'})
    """
    words = dict(metadata or {})
    taken = sorted(key for key in words if key in _OWN_KEYS)
    if taken:
        raise ValueError(f"metadata: the keys {', '.join(taken)} are written by rnncore itself")
    _rnncore.write_safetensors(os.fsencode(path), dict(tensors), words)


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all arrays of a safetensors file, written here or elsewhere.

    Parameters
    ----------
    path : path-like
        A regular file.

    Returns
    -------
    tensors : dict of str to array
        New arrays, in the order of their data in the file.
    metadata : dict of str to str
        The words kept with them, empty where the file has none.

    Raises
    ------
    FormatError
        If the file is truncated, damaged, or breaks the format anywhere.
    OSError
        If it cannot be read.
    """
    tensors, metadata = _rnncore.read_safetensors(os.fsencode(path))
    mark = metadata.get("rnncore.format", _FORMAT)
    if mark != _FORMAT:
        name = os.fsdecode(path)
        raise FormatError(f"{name}: written in format {mark!r}, this version reads {_FORMAT!r}")
    return tensors, {key: text for key, text in metadata.items() if key not in _OWN_KEYS}


def save(path: Path, layer: Parametrised) -> None:
    """Write a layer to a file: parameters, configuration and the state of its random masks.

    Parameters
    ----------
    path : path-like
        Holds either its old file or the whole new one at every moment.
    layer : layer
        Any layer or cell of rnncore, ``Bidirectional`` and ``Stack`` included, or one of your own
        over a recurrence, whose class must be defined where it is loaded.

    Raises
    ------
    TypeError
        If `layer` is none. Nothing is written.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : The way back.

    Examples
    --------
    >>> import os, tempfile
    >>> import rnncore as rc
    >>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
    >>> layer = rc.GRU(3, 4, seed=0)
    >>> rc.save(path, layer)
    >>> rc.load(path).params["weight_ih_l0"].shape
    (12, 3)
    """
    from rnncore.layers import placed

    if not hasattr(layer, "_config"):
        raise TypeError(f"layer: expected a layer or cell of rnncore, got {type(layer).__name__}")
    # A file does not tell where the layer was: who reads it may have no GPU.
    config = placed(layer._config(), "cpu")
    description = {"config": config, "rng_state": getattr(layer, "rng_state", None)}
    metadata = {_VERSION_KEY: __version__, _LAYER_KEY: json.dumps(description, sort_keys=True)}
    tensors = {name: HOST.brought(name, array) for name, array in layer.params.items()}
    save_tensors(path, tensors, metadata)


def load(path: Path, device: str = "cpu") -> Any:
    """Read a layer from a file that :func:`save` wrote.

    Parameters
    ----------
    path : path-like
        A regular file.
    device : {"cpu", "cuda", "cuda:0", ...}, optional
        Where the layer is to be, wherever the one was that was saved.

    Returns
    -------
    layer : layer
        Of the class, options, parameters and random state that were saved.

    Raises
    ------
    FormatError
        If the file is damaged, is not a layer's, or lacks, adds or misshapes a parameter.
    DeviceError
        If the device is not there.
    NotImplementedError
        If the layer's dtype is another device's.
    OSError
        If it cannot be read.
    """
    from rnncore.layers import from_config, options

    place = options.device(device)
    tensors, metadata = load_tensors(path)
    name = os.fsdecode(path)
    if _LAYER_KEY not in metadata:
        raise FormatError(f"{name}: no layer in it; load_tensors reads its {len(tensors)} arrays")
    description = _parse(name, metadata[_LAYER_KEY])
    try:
        _check_size(description["config"], sum(array.size for array in tensors.values()))
        with undrawn():
            layer = from_config(description["config"], place)
        layer.load_state_dict(tensors)
        if description["rng_state"] is not None:
            layer.rng_state = description["rng_state"]
    except _MISFITS as error:
        version = metadata.get(_VERSION_KEY, "unknown")
        raise FormatError(f"{name}: written by rnncore {version}: {error}") from error
    return layer


def _check_size(config: Any, numbers: int) -> None:
    """Refuse a description of a layer far larger than its file, before memory is taken for it."""
    if isinstance(config, list):
        for part in config:
            _check_size(part, numbers)
    elif isinstance(config, dict):
        _check_size(list(config.values()), numbers)
        if "hidden_size" in config:
            hidden, inputs = config["hidden_size"], config["input_size"]
            outputs = config.get("proj_size") or hidden
            if hidden * (inputs + config.get("num_layers", 1) * outputs) > numbers:
                raise ValueError(f"its {numbers} numbers are too few for {config}")
        wide = (
            config.get("features", 0),
            config.get("in_features", 0) * config.get("out_features", 0),
        )
        if max(wide) > numbers:
            raise ValueError(f"its {numbers} numbers are too few for {config}")


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: its layer's description is not JSON: {error}") from error
    if not isinstance(description, dict) or set(description) != {"config", "rng_state"}:
        raise FormatError(f"{name}: its layer's description needs config and rng_state")
    return description
