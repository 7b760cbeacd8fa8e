"""What is said of GPUs apart from layers: earlier failures, and how exact products are.

Importing this imports no CuPy and touches no device.
"""

from __future__ import annotations

import sys

from rnncore.cuda import errors
from rnncore.cuda.precision import allow_tf32, tf32_allowed
from rnncore.errors import DeviceError

__all__ = ["allow_tf32", "check", "tf32_allowed"]


def check() -> None:
    """Wait for the current GPU, and raise what earlier calls left behind.

    Calls return before their work is done, so a failure on the device (a length out of range in an
    array on the device, a kernel that gave up) is raised by the next call or by this one. Where no
    program of this process has used a GPU there is nothing to wait for.

    Raises
    ------
    DeviceError
        If an earlier call failed, or the device itself does.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.cuda.check()
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None:
        try:
            cupy.cuda.runtime.deviceSynchronize()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status not in _ABSENT:
                raise DeviceError(f"the device failed: {error}") from error
    errors.raise_pending()


_ABSENT = (35, 100)  # cudaErrorInsufficientDriver, cudaErrorNoDevice: nothing can have run
