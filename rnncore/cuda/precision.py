"""Say how exact float32 products on a GPU are."""

from __future__ import annotations

from rnncore import checks

_tf32 = False


def allow_tf32(enabled: bool) -> None:
    """Let float32 layers on a GPU multiply in TF32, or forbid it; forbidden at first.

    TF32 products have 11 significant bits instead of 24 and run on tensor cores, several times
    faster. Sums stay float32. The choice holds for the whole process, from the next call on; layers
    of other types and layers on the CPU are not affected.

    Parameters
    ----------
    enabled : bool
        Whether TF32 may be used.

    Raises
    ------
    TypeError
        If `enabled` is no bool.

    Examples
    --------
    >>> import rnncore as rc
    >>> rc.allow_tf32(True)
    >>> rc.tf32_allowed()
    True
    >>> rc.allow_tf32(False)
    """
    global _tf32
    _tf32 = checks.flag("enabled", enabled)


def tf32_allowed() -> bool:
    """Return whether float32 layers on a GPU may multiply in TF32; see :func:`allow_tf32`."""
    return _tf32
