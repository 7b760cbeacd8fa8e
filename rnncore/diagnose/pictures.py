"""Pictures of vanishing and exploding gradients, and of what gates and clipping do to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncore.checks import Array
from rnncore.pictures import new_figure, save
from rnncore.train import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_gradient_flow(path: str | Path, flows: Mapping[str, Array]) -> bool:
    """Draw how far back gradients reach into a PNG file.

    Parameters
    ----------
    path : path
        The file.
    flows : mapping of str to ndarray (T,) or (T, L*K)
        Norms by time, as :func:`gradient_flow` gives them for ``"h"``, by what they are of.

    Returns
    -------
    bool
        False if matplotlib is not installed; then nothing is written.
    """
    figure = new_figure(6, 4.5)
    if figure is None:
        return False
    _draw_flows(figure.subplots(), flows)
    save(figure, Path(path), dpi=120)
    return True


def draw_remedies(
    path: str | Path, flows: Mapping[str, Array], runs: Mapping[str, History]
) -> bool:
    """Draw gradients by time in several cells beside trainings with and without clipping.

    Parameters
    ----------
    path : path
        The PNG file.
    flows : mapping of str to ndarray (T,)
        What :func:`cell_flows` returns.
    runs : mapping of str to History
        What :func:`clipping_runs` returns.

    Returns
    -------
    bool
        False if matplotlib is not installed; then nothing is written.
    """
    figure = new_figure(15, 4.5)
    if figure is None:
        return False
    left, middle, right = figure.subplots(1, 3)
    _draw_flows(left, flows)
    for axes, what in ((middle, "norms"), (right, "losses")):
        for place, (name, history) in enumerate(runs.items()):
            axes.semilogy(getattr(history, what), color=f"C{place}", label=name)
        axes.legend()
    middle.set(xlabel="updates", ylabel="norm before clipping", title="Gradient while training")
    right.set(xlabel="updates", ylabel="mean squared error", title="Loss while training")
    save(figure, Path(path), dpi=120)
    return True


def _draw_flows(axes: Axes | Any, flows: Mapping[str, Array]) -> None:
    for place, (name, norms) in enumerate(flows.items()):
        columns = np.asarray(norms).reshape(len(norms), -1).T
        for column, values in enumerate(columns):
            label = name if len(columns) == 1 else f"{name}, {column}"
            back = np.arange(len(values), 0, -1)
            style = ("-", "--", ":", "-.")[column % 4]
            axes.semilogy(back, values, style, color=f"C{place}", label=label)
    axes.invert_xaxis()
    axes.set(
        xlabel="time steps before the loss",
        ylabel="norm of what crosses into the step",
        title="Gradient by time",
    )
    axes.legend(fontsize="small")
