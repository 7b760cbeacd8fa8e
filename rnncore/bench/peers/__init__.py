"""Those who run the same problems, each in a file of its own.

A peer's package is imported when the peer is made, never before.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from rnncore.bench.peers.interface import Arrays, Peer, Problem, Refused, Work

__all__ = ["PEERS", "Arrays", "Peer", "Problem", "Refused", "Work", "available", "make"]

PEERS: dict[str, dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "cpu": {
        "torch": ("pytorch", "Eager", ("torch",)),
        "compile": ("torch_compile", "Compiled", ("torch",)),
        "onnxruntime": ("onnxruntime", "OnnxRuntime", ("onnxruntime", "onnx")),
        "openvino": ("openvino", "OpenVino", ("openvino", "onnx")),
        "jax": ("jax", "Jax", ("jax",)),
        "numpy": ("numpy", "NumPy", ("numpy",)),
    },
    "cuda": {"torch": ("pytorch_cuda", "OnGpu", ("torch",))},
}
"""For each device the peers by their names on the command line: module, class, packages needed."""


def available(device: str) -> list[str]:
    """Return the names of the peers whose packages are installed."""
    return [
        name
        for name, (_, _, packages) in PEERS[device].items()
        if all(find_spec(package) for package in packages)
    ]


def make(name: str, device: str, threads: int) -> Peer:
    """Import a peer's package and set it up for a number of threads.

    Raises
    ------
    ValueError
        If its packages are not installed.
    """
    module, kind, packages = PEERS[device][name]
    missing = [package for package in packages if not find_spec(package)]
    if missing:
        raise ValueError(
            f"against: {name!r} needs {' and '.join(missing)}; pip install 'rnncore[bench]'"
        )
    peer: Peer = getattr(import_module(f"{__name__}.{module}"), kind)(threads)
    return peer
