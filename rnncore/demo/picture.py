"""The picture: loss over updates, and gradients over time steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rnncore.checks import Array
from rnncore.pictures import new_figure, save
from rnncore.train import History


def draw(path: Path, history: History, counted: float, reaches: dict[str, Array]) -> bool:
    """Draw what a training has shown into a PNG file.

    Parameters
    ----------
    path : Path
        The file.
    history : History
        Losses of updates and validations.
    counted : float
        Loss of the counted model, a line to compare with.
    reaches : dict of str to ndarray (T, L)
        Gradient norms by time step and layer of several moments.

    Returns
    -------
    bool
        False if matplotlib is not installed; then nothing is written.
    """
    figure = new_figure(11, 4.5)
    if figure is None:
        return False
    left, right = figure.subplots(1, 2)

    left.plot(np.arange(1, len(history.losses) + 1), history.losses, color="0.8", label="training")
    if history.validation:
        left.plot(*zip(*history.validation, strict=True), "o-", label="validation")
    left.axhline(counted, color="black", linestyle="--", label="counted 5-gram model")
    left.set(xlabel="updates", ylabel="loss, nats per character", title="Loss")
    left.set_ylim(bottom=0.9 * min(counted, *history.losses))
    left.legend()

    for style, (moment, norms) in zip(("-", "--", ":"), reaches.items(), strict=False):
        for layer, values in enumerate(norms.T):
            back = np.arange(len(values), 0, -1)
            label = f"layer {layer}, {moment}"
            right.semilogy(back, values, style, color=f"C{layer}", label=label)
    right.invert_xaxis()
    right.set(
        xlabel="time steps before the prediction",
        ylabel="norm of dL/dh",
        title="Gradient of one prediction by earlier states",
    )
    right.legend()
    save(figure, path, dpi=120)
    return True
