"""The picture: bars for each shape, the engine's, the best peer's, and the machine's limit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnncore.bench.aims import PLAIN
from rnncore.bench.peers.ours import NAME
from rnncore.bench.results import Row, behind_first
from rnncore.bench.table import title, unit
from rnncore.pictures import new_figure, save

BAR = 0.38


def draw(path: Path, rows: Sequence[Row]) -> bool:
    """Draw one panel for each mode into a PNG file.

    Parameters
    ----------
    path : Path
        The file.
    rows : sequence of Row
        What was measured.

    Returns
    -------
    bool
        False if matplotlib is not installed; then nothing is written.
    """
    modes = list(dict.fromkeys(row.mode for row in rows))
    counts = [sum(row.mode == mode for row in rows) for mode in modes]
    height = sum(1.2 + 0.42 * count for count in counts)
    figure = new_figure(11, height)
    if figure is None:
        return False
    panels = figure.subplots(len(modes), 1, squeeze=False, height_ratios=[1 + n for n in counts])
    for (panel,), mode in zip(panels, modes, strict=True):
        _panel(panel, behind_first(row for row in rows if row.mode == mode))
    save(figure, path, dpi=110)
    return True


def _panel(panel: Any, rows: list[Row]) -> None:
    limited = any(row.limit for row in rows)
    places = range(len(rows))
    ours = [_length(row, NAME, limited) for row in rows]
    best = [_length(row, row.best.name if row.best else "", limited) for row in rows]
    panel.barh([place - BAR / 2 for place in places], ours, BAR, color="C0", label=NAME)
    panel.barh([place + BAR / 2 for place in places], best, BAR, color="0.75", label="best peer")
    for place, row, length in zip(places, rows, best, strict=True):
        if row.best is not None:
            panel.text(length, place + BAR / 2, f" {row.best.name}", va="center", fontsize=7)
    limits = [(place, row.limit.rate / 1e9) for place, row in enumerate(rows) if row.limit]
    for place, rate in limits:
        label = "the machine's limit" if place == limits[0][0] else None
        panel.plot([rate, rate], [place - 0.45, place + 0.45], color="black", label=label)
    _allowed(panel, rows)
    if not limited:
        panel.set_xscale("log")
    panel.set_yticks(places, [row.case for row in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    mode = rows[0].mode
    name = "GFLOP/s, more is better" if limited else f"{unit(mode)[0]}, less is better"
    panel.set(title=f"{title(mode)}, {rows[0].dtype}", xlabel=name)
    panel.legend(fontsize=8)


def _allowed(panel: Any, rows: list[Row]) -> None:
    """Mark the time that an option may take, beside the plain layer's."""
    label = "allowed"
    for place, row in enumerate(rows):
        plain = row.of(PLAIN)
        if row.aims is not None and plain is not None:
            most = row.aims.factor * plain.median_s * unit(row.mode)[1]
            panel.plot([most, most], [place - 0.45, place + 0.45], color="C3", label=label)
            label = "_"  # one entry in the legend


def _length(row: Row, name: str, limited: bool) -> float:
    times = row.of(name)
    if times is None:
        return 0.0
    return row.operations / times.median_s / 1e9 if limited else times.median_s * unit(row.mode)[1]
