"""Compute on the threads of an OpenMP runtime that a host has anyway.

The workers of OpenMP spin for milliseconds after each of their regions, in case another follows.
Threads of the engine's own, which do the same for some microseconds, would have to wait for those
CPUs at every call that alternates with a host's. So the host's threads are borrowed: both then take
turns on one set of them. ``rnncore.torch`` borrows PyTorch's when it is imported.
"""

from __future__ import annotations

import ctypes

from rnncore import _rnncore

_FUNCTIONS = {
    "parallel": "GOMP_parallel",
    "thread_num": "omp_get_thread_num",
    "num_threads": "omp_get_num_threads",
    "max_threads": "omp_get_max_threads",
    "in_parallel": "omp_in_parallel",
    "dynamic": "omp_get_dynamic",
}


def borrow(library: str) -> bool:
    """Run later calls of this process on the threads of a library's OpenMP runtime.

    How many, decides the engine as before, and results have the same bits. A process forked later
    computes on threads of its own, since no OpenMP runtime has any there.

    Parameters
    ----------
    library : str
        The path of a shared library that is loaded already and uses OpenMP, or of the runtime
        itself: GCC's, LLVM's or Intel's.

    Returns
    -------
    bool
        False where the library has no such runtime: nothing has changed then.

    Raises
    ------
    OSError
        If there is no such library.

    Examples
    --------
    >>> import torch
    >>> from rnncore import openmp
    >>> openmp.borrow(torch._C.__file__)
    True
    >>> openmp.give_back()
    """
    handle = ctypes.CDLL(library)
    addresses = {}
    for name, symbol in _FUNCTIONS.items():
        function = getattr(handle, symbol, None)
        if function is None:
            return False
        addresses[name] = ctypes.cast(function, ctypes.c_void_p).value or 0
    _rnncore.borrow_threads(**addresses)
    return True


def give_back() -> None:
    """Run later calls on threads of the engine's own."""
    _rnncore.return_threads()
