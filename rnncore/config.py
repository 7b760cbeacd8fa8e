"""Say how rnncore was built and what it found on this machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rnncore import _rnncore, threads
from rnncore._version import __version__
from rnncore.cuda import tf32_allowed
from rnncore.devices.cuda import state as cuda_state

_PACKAGES = [
    *("torch", "onnx", "onnxruntime", "openvino", "keras", "jax", "mpi4py"),
    *("ml_dtypes", "safetensors", "threadpoolctl", "matplotlib", "tqdm"),
]
_VARIABLES = ("RNNCORE_ISA", "RNNCORE_NUM_THREADS", "OMP_NUM_THREADS")


def get_include() -> str:
    """Return the folder of rnncore's C++ headers, for a compiler's ``-I``.

    Examples
    --------
    >>> import os
    >>> import rnncore as rc
    >>> os.path.isdir(os.path.join(rc.get_include(), "rnncore"))
    True
    """
    return str(Path(__file__).parent / "include")


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Show version, compiler, instruction sets, threads, CUDA and optional packages.

    CuPy is imported for it where it is installed, and asked for its devices; what fails is told.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        Print the configuration, or return it.

    Returns
    -------
    configuration : dict or None
        With ``mode="dicts"``; the values are strings, numbers, lists and dictionaries.

    Raises
    ------
    ValueError
        If `mode` is neither.

    Examples
    --------
    >>> import rnncore as rc
    >>> sorted(rc.show_config("dicts"))
    ['build', 'cuda', 'environment', 'isa', 'packages', 'python', 'threads', 'version']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode: expected 'stdout' or 'dicts', got {mode!r}")
    configuration: dict[str, Any] = {
        "version": __version__,
        "python": f"{platform.python_version()}, NumPy {np.__version__}",
        "build": {"compiler": _rnncore.compiler(), "machine": platform.machine()},
        "isa": {
            "compiled": _rnncore.compiled_isas(),
            "supported": _rnncore.supported_isas(),
            "chosen": _rnncore.isa(),
        },
        "threads": {"number": threads.get_num_threads(), "source": threads.source()},
        "cuda": {**cuda_state(), "tf32": tf32_allowed()},
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
        "packages": {name: _version_of(name) for name in _PACKAGES},
    }
    if mode == "dicts":
        return configuration
    sys.stdout.write("\n".join(_lines(configuration)) + "\n")
    return None


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lines(configuration: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in configuration.items():
        if isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {name:14} {_text(item)}" for name, item in value.items()]
        else:
            lines.append(f"{key + ':':16} {_text(value)}")
    return lines


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
