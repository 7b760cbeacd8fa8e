"""Pictures: a figure that needs no screen, and the PNG file that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure | None:
    """Make an empty figure.

    Parameters
    ----------
    width, height : float
        Its size in inches.

    Returns
    -------
    Figure or None
        None if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure into a PNG file, whose bytes follow from what is drawn.

    Parameters
    ----------
    figure : Figure
        The figure.
    path : Path
        The file.
    dpi : int
        Pixels an inch.
    """
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
