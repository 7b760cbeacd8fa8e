"""The order of events of ``rnncore bench``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rnncore.bench import beside_plain, gpu, machine, modes, peers, products, results, variants
from rnncore.bench.cases import SETS, Shapes
from rnncore.bench.contest import Contest, hold
from rnncore.bench.peers.interface import Peer
from rnncore.bench.picture import draw
from rnncore.bench.results import Row
from rnncore.bench.table import tables
from rnncore.threads import get_num_threads
from rnncore.train.progress import Progress

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8")
DEVICES = ("cpu", "cuda")
MODES = (*modes.MODES, "products", "variants")


@dataclass(frozen=True)
class Options:
    """What is measured, and where the files go.

    Parameters
    ----------
    shapes : tuple of Shapes
        Sets of cases.
    modes : tuple of str
        Some of ``MODES``.
    against : tuple of str, optional
        Names of peers; all that are installed if None.
    device, dtype : str
        One of ``DEVICES`` and of ``DTYPES``.
    seconds : float
        For each row, without what preparing it takes.
    out : Path, optional
        A folder; in a checkout its ``benchmarks/results``, elsewhere ``rnncore-bench``.
    name : str, optional
        Of the files; made from the other options if None.
    """

    shapes: tuple[Shapes, ...] = field(default_factory=lambda: (Shapes("listed", SETS["listed"]),))
    modes: tuple[str, ...] = ("inference", "training")
    against: tuple[str, ...] | None = None
    device: str = "cpu"
    dtype: str = "float32"
    seconds: float = 3.0
    out: Path | None = None
    name: str | None = None

    @property
    def folder(self) -> Path:
        """Where the files go."""
        root = machine.checkout()
        if self.out is not None:
            return self.out
        return Path("rnncore-bench") if root is None else root / "benchmarks" / "results"

    @property
    def stem(self) -> str:
        """The files' name: device, which GPU, what is unusual, modes."""
        names = dict.fromkeys(shapes.name for shapes in self.shapes if shapes.name != "listed")
        dtype = [] if self.dtype == "float32" else [self.dtype]
        which = [gpu.file_name()] if self.device == "cuda" and self.name is None else []
        return self.name or "-".join([self.device, *which, *names, *self.modes, *dtype])

    def command(self, threads: int) -> str:
        """Return the command that measures the same again."""
        words = ["rnncore bench"]
        if texts := [shapes.text for shapes in self.shapes if shapes.text != "listed"]:
            words += ["--shapes", *(["listed"] if len(texts) < len(self.shapes) else []), *texts]
        if self.modes != Options.modes:
            words += ["--modes", *self.modes]
        if self.against is not None:
            words += ["--against", *self.against]
        words += ["--threads", str(threads)]
        for name in ("device", "dtype", "seconds"):
            if (value := getattr(self, name)) != getattr(Options, name):
                words += [f"--{name}", f"{value:g}" if name == "seconds" else value]
        return " ".join(words)


class Item(NamedTuple):
    """One row to come."""

    title: str
    contest: Callable[[], Contest]


def say(text: str = "") -> None:
    """Write a line to standard output now."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(options: Options) -> bool:
    """Measure everything, show it and write the files.

    Returns
    -------
    bool
        False if Ctrl-C ended it; the rows until then are shown and written.

    Raises
    ------
    ValueError
        If a name is not known or there is nothing to measure.
    rnncore.DeviceError
        If the device is not there.
    """
    threads = get_num_threads()
    if options.device == "cuda":
        gpu.check(options.modes, options.dtype)
    with machine.only_cpus(threads):
        contenders = make_peers(options, threads)
        items = plan(options, threads, contenders)
        found = machine.conditions(threads, contenders)
        found |= {"device": options.device, "dtype": options.dtype, "seconds": options.seconds}
        where = f"{found['cpu']}, {threads} threads, {found['isa']}"
        if options.device == "cuda":
            found |= gpu.conditions()
            where = f"{found['gpu']}, driver {found['driver']}, CUDA {found['cuda']}"
        found["command"] = options.command(threads)
        options.folder.mkdir(parents=True, exist_ok=True)
        say(f"{where}; about {options.seconds:g} s a row")
        say("against " + (", ".join(f"{p.name} {p.version}" for p in contenders) or "nobody"))
        rows: list[Row] = []
        try:
            measure(rows, items, threads, options.seconds)
        except KeyboardInterrupt:
            say()
        finally:  # whatever ended it, the rows until then are kept
            finished = len(rows) == len(items)
            show(rows, len(items))
            if rows:
                write(options, rows, found, finished)
    return finished


def make_peers(options: Options, threads: int) -> list[Peer]:
    """Import those who take part."""
    known = peers.PEERS[options.device]
    names = peers.available(options.device) if options.against is None else options.against
    for name in names:
        if name not in known:
            raise ValueError(f"against: expected some of {', '.join(known)}, got {name!r}")
    return [peers.make(name, options.device, threads) for name in names]


def plan(options: Options, threads: int, contenders: list[Peer]) -> list[Item]:
    """Return the rows to come, in the order in which they were asked for."""
    items = []
    device = options.device
    for mode in options.modes:
        if mode in ("products", "variants"):
            items += _own_shapes(mode, options.dtype, threads, contenders)
            continue
        for shapes in options.shapes:
            scaling = shapes.name == "threads"
            if scaling and device != "cpu":
                raise ValueError(f"shapes: 'threads' is for 'cpu', got device {device!r}")
            if scaling and threads == 1:
                raise ValueError("shapes: 'threads' compares with 1 thread, expected --threads > 1")
            for case in shapes.cases:
                if modes.fits(case, mode, options.dtype, device):
                    question = partial(modes.contest, case, mode, options.dtype, threads)
                    against = [] if scaling else contenders
                    asked = partial(question, against, scaling, device)
                    items.append(Item(f"{case}, {mode}", asked))
    if not items:
        raise ValueError(
            f"modes: nothing to run in {', '.join(options.modes)} with {options.dtype}: "
            "training, products and variants take float32 and float64, streaming one direction; "
            "float16 is for 'cuda'"
        )
    return items


def _own_shapes(mode: str, dtype: str, threads: int, contenders: list[Peer]) -> list[Item]:
    if dtype not in ("float32", "float64"):
        return []
    if mode == "products":
        return [
            Item(str(product), partial(products.contest, product, dtype, contenders))
            for product in products.PRODUCTS
        ]
    return [
        Item(str(variant), partial(beside_plain.contest, variant, dtype, threads, contenders))
        for variant in variants.variants()
    ]


def measure(rows: list[Row], items: list[Item], threads: int, seconds: float) -> None:
    """Measure row by row and add each to `rows`."""
    with Progress(len(items), label="bench", unit="rows") as progress:
        for item in items:
            rows.append(hold(item.contest(), threads, seconds))
            progress.advance(item.title)


def show(rows: list[Row], asked: int) -> None:
    """Print the tables."""
    if rows:
        say(f"\n{tables(rows)}\n")
    if len(rows) < asked:
        say(f"stopped after {len(rows)} of {asked} rows")


def write(options: Options, rows: list[Row], found: dict[str, object], finished: bool) -> None:
    """Write the result file and the picture, and say so."""
    path = options.folder / f"{options.stem}.json"
    results.write(path, rows, found, finished)
    say(f"wrote {path}")
    if draw(path.with_suffix(".png"), rows):
        say(f"wrote {path.with_suffix('.png')}")
    else:
        say("no picture: matplotlib is not installed")
