"""Name the two errors that Python has no ready class for."""

from __future__ import annotations


class FormatError(ValueError):
    """Report that a file is not what its format promises."""


class DeviceError(RuntimeError):
    """Report a device that is not there or that failed."""
