"""Rows on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rnncore.bench import products, variants
from rnncore.bench.aims import PLAIN
from rnncore.bench.measure import Times
from rnncore.bench.modes import MODES
from rnncore.bench.peers.ours import NAME
from rnncore.bench.results import CAP, Row, behind_first, geometric_mean

MICROSECONDS = {"streaming"}
TITLES = {name: mode.title for name, mode in MODES.items()}
TITLES |= {"products": products.TITLE, "variants": variants.TITLE}


def title(mode: str) -> str:
    """Return what a mode's rows are about."""
    return TITLES[mode]


def unit(mode: str) -> tuple[str, float]:
    """Return a mode's unit of time and how many there are in a second."""
    return ("us", 1e6) if mode in MICROSECONDS else ("ms", 1e3)


def tables(rows: Sequence[Row]) -> str:
    """Return a table for each mode, the rows where the engine is behind first, and what to know."""
    modes = dict.fromkeys(row.mode for row in rows)
    return "\n\n".join(
        "\n".join(_table(behind_first(row for row in rows if row.mode == mode))) for mode in modes
    )


def _table(rows: list[Row]) -> Iterator[str]:
    mode = rows[0].mode
    yield f"{title(mode)}, {rows[0].dtype}; times in {unit(mode)[0]}, medians"
    columns = _columns(rows)
    lines = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])
    mean = geometric_mean(rows)
    if mean is not None:
        yield f"geometric mean of times as fast, each capped at {CAP:.0f}: {mean:.2f}"
    yield from _beside_itself(rows)
    yield from _memory(rows)
    yield from _remarks(rows)


def _columns(rows: list[Row]) -> dict[str, Callable[[Row], str]]:
    """Return the headings and what to write under them; nobody's column is left empty."""
    columns: dict[str, Callable[[Row], str]] = {
        "case": lambda row: row.case,
        NAME: lambda row: time_text(row.ours, row.mode),
        "spread": lambda row: f"{row.ours.spread:.0%}" if row.ours else "-",
    }
    if any(row.limit for row in rows):
        columns["GFLOP/s"] = lambda row: f"{row.rate / 1e9:.1f}" if row.rate else "-"
        columns["of limit"] = lambda row: f"{row.share:.0%}" if row.share else "-"
    if any(row.tape_bytes is not None for row in rows):
        columns["tape MB"] = lambda row: (
            "-" if row.tape_bytes is None else f"{row.tape_bytes / 1e6:.1f}"
        )
    if any(row.aims for row in rows):
        columns["plain"] = lambda row: time_text(row.of(PLAIN), row.mode)
        columns["of plain"] = lambda row: f"{row.factor:.2f}" if row.factor else "-"
        columns["allowed"] = lambda row: f"{row.aims.factor:.2f}" if row.aims else "-"
    if any(row.best for row in rows):
        columns["times as fast"] = lambda row: (
            f"{row.times_as_fast:.2f}" if row.times_as_fast else "-"
        )
        columns["as"] = lambda row: row.best.name if row.best else "-"
    for name in dict.fromkeys(one.name for row in rows for one in row.contenders if one.peer):
        if any(row.of(name) for row in rows):
            columns[name] = partial(_peer_time, name)
    if any(row.aims for row in rows):
        columns["missed"] = lambda row: " ".join(row.missed)
    return columns


def _peer_time(name: str, row: Row) -> str:
    return time_text(row.of(name), row.mode)


def time_text(times: Times | None, mode: str) -> str:
    """Return a median in the mode's unit."""
    if times is None:
        return "-"
    value = times.median_s * unit(mode)[1]
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _beside_itself(rows: list[Row]) -> Iterator[str]:
    """Yield the engine's times in other circumstances, but for what has columns."""
    for row in rows:
        if row.aims:
            continue
        for name, relative in row.compared().items():
            time = f"{time_text(row.of(name), row.mode)} {unit(row.mode)[0]}"
            share = (
                f" x {row.live_share:.0%}, the share of live steps" if row.live_share < 1 else ""
            )
            yield f"  {row.case}: {name}: {time}; {NAME} takes {relative:.2f} of that{share}"


def _memory(rows: list[Row]) -> Iterator[str]:
    """Yield what a step needs with and without recomputing."""
    for row in rows:
        if (memory := row.memory) is None or row.aims is None:
            continue
        plain, recomputed = memory.plain, memory.recomputed
        yield (
            f"  {row.case}: peak {recomputed.peak_bytes / 1e6:.1f} of "
            f"{plain.peak_bytes / 1e6:.1f} MB, tape {recomputed.tape_bytes / 1e6:.1f} of "
            f"{plain.tape_bytes / 1e6:.1f} MB; saves {memory.saved:.0%}, to be "
            f"{row.aims.saved:.0%}"
        )


def _remarks(rows: list[Row]) -> Iterator[str]:
    """Yield who did not run and why, or ran under a condition; what is wrong comes first."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for one in row.contenders:
            if word := one.problem or one.note:
                said.setdefault((one.name, word), []).append(row.case)
    for name, word in sorted(said, key=lambda key: not key[1].startswith(("WRONG", "failed"))):
        cases = said[name, word]
        where = "" if len(cases) == len(rows) else f" ({'; '.join(cases)})"
        yield f"  {name}: {word}{where}"
