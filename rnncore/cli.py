"""The command ``rnncore``.

Exit codes: 0 done, 1 failed, 2 used wrongly, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import rnncore
from rnncore.bench import program
from rnncore.bench.cases import SETS, Shapes, parse
from rnncore.bench.peers import PEERS
from rnncore.bench.program import DEVICES, DTYPES, MODES
from rnncore.config import show_config
from rnncore.threads import get_num_threads, threads

INTERRUPTED = 130
_REPORTED = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    rnncore.DeviceError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process when absent.
    """
    parser = make_parser()
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    if chosen.command is None:
        parser.print_help()
        return 2
    try:
        with threads(getattr(chosen, "threads", None) or get_num_threads()):
            return int(chosen.run(chosen))
    except KeyboardInterrupt:
        sys.stderr.write(f"rnncore {chosen.command}: interrupted\n")
        return INTERRUPTED
    except _REPORTED as error:
        reason = str(error) or type(error).__name__
        sys.stderr.write(f"rnncore {chosen.command}: error: {reason}\n")
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="rnncore", description="A recurrent-network engine for CPU and GPU."
    )
    parser.add_argument("--version", action="version", version=f"rnncore {rnncore.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    _add_demo(commands)
    _add_show_config(commands)
    _add_selftest(commands)
    _add_bench(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="train a character language model on a novel, in about two minutes",
        description="Train a character language model (embedding, two LSTM layers, softmax) on "
        "Persuasion by Jane Austen, or on any text. Writes the model, a checkpoint, sampled text, "
        "a picture and a report. The numbers are the same on every run and with any number of "
        "threads. Ctrl-C stops with a checkpoint.",
    )
    add = demo.add_argument
    add("--text", type=Path, metavar="FILE", help="train on this file (default: Persuasion)")
    add("--encoding", default="utf-8-sig", help="of the file (default: UTF-8)")
    add("--out", type=Path, default=Path("rnncore-demo"), metavar="DIR",
        help="where files go (default: %(default)s)")  # fmt: skip
    add("--long", action="store_true", help="a larger model, about fifteen minutes")
    add("--resume", action="store_true", help="go on from the checkpoint in DIR")
    add("--updates", type=positive, metavar="N", help="length of the training")
    add("--seed", type=natural, metavar="N", help="of everything random (default: 0)")
    add("--threads", type=positive, metavar="N", help="threads to use (default: all CPUs)")
    add("--sample-length", type=natural, default=600, metavar="N",
        help="characters to write (default: %(default)s)")  # fmt: skip
    add("--no-compare", action="store_true", help="skip the speed of NumPy and PyTorch")
    demo.set_defaults(run=_demo)


def _add_show_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "show-config",
        help="print version, instruction sets, threads and optional packages",
        description="Print what rnncore found on this machine. Writes no file.",
    )
    command.set_defaults(run=_show_config)


def _add_selftest(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "selftest",
        help="check the engine on this machine against the float64 reference, in seconds",
        description="Run every cell, direction and instruction set of this machine against the "
        "float64 reference and print a table. Writes no file; exit code 1 if anything is wrong.",
    )
    command.add_argument("--threads", type=positive, metavar="N", help="threads to use")
    command.set_defaults(run=_selftest)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure the engine beside PyTorch, ONNX Runtime, OpenVINO, JAX and NumPy",
        description="Run the same shapes and weights in rnncore and in whichever peers are "
        "installed (pip install 'rnncore[bench]'), interleaved, beside the machine's own limits. "
        "Every peer's results are compared before it is timed. Prints a table, rows where rnncore "
        "is behind first, and writes NAME.json and NAME.png. Ctrl-C keeps the rows measured so "
        "far.",
    )
    add = bench.add_argument
    add("--shapes", type=_shapes, nargs="+", metavar="SHAPES",
        help=f"{', '.join(SETS)}, or CELL:T,N,D,H[,layers[,directions[,lengths]]]; one or more "
        "(default: listed)")  # fmt: skip
    add("--modes", nargs="+", default=["inference", "training"], metavar="MODE", choices=MODES,
        help=f"some of {', '.join(MODES)} (default: the first two); the last two have shapes of "
        "their own, whatever --shapes says")  # fmt: skip
    add("--against", nargs="+", metavar="PEER", choices=PEERS["cpu"],
        help=f"some of {', '.join(PEERS['cpu'])} (default: all that are installed)")  # fmt: skip
    add("--threads", type=positive, metavar="N", help="of everyone (default: all CPUs)")
    add("--device", default="cpu", choices=DEVICES, help="default: %(default)s")
    add("--dtype", default="float32", choices=DTYPES,
        help="of the weights: float16 on a GPU alone, int8 on the CPU alone; there the last two "
        "are for inference (default: %(default)s)")  # fmt: skip
    add("--seconds", type=_seconds, default=3.0, metavar="S",
        help="for each row, without preparing it (default: %(default)s)")  # fmt: skip
    add("--out", type=Path, metavar="DIR",
        help="where files go (default: a checkout's benchmarks/results, "
        "else rnncore-bench)")  # fmt: skip
    add("--name", help="of the files (default: from the options, as cpu-inference-training)")
    bench.set_defaults(run=_bench)


def _demo(chosen: argparse.Namespace) -> int:
    from rnncore import demo
    from rnncore.demo.program import stored_settings
    from rnncore.demo.text import persuasion, read_text

    text = persuasion() if chosen.text is None else read_text(chosen.text, chosen.encoding)
    given = {
        name: value for name in ("updates", "seed") if (value := getattr(chosen, name)) is not None
    }
    settings = replace(demo.LONG if chosen.long else demo.SHORT, **given)
    if chosen.resume:
        stored = stored_settings(chosen.out, text)
        wanted = replace(settings if chosen.long else stored, **given)
        if wanted != stored:
            raise ValueError(
                f"--resume: the checkpoint in {chosen.out} goes on with its own settings, {stored}"
            )
        settings = stored
    finished = demo.run(
        text,
        chosen.out,
        settings,
        resume=chosen.resume,
        compared=not chosen.no_compare,
        sample_length=chosen.sample_length,
    )
    return 0 if finished else INTERRUPTED


def _show_config(chosen: argparse.Namespace) -> int:
    show_config()
    return 0


def _selftest(chosen: argparse.Namespace) -> int:
    from rnncore.selftest import selftest

    return 0 if selftest() else 1


def _bench(chosen: argparse.Namespace) -> int:
    names = [field.name for field in fields(program.Options)]
    given = {name: value for name in names if (value := getattr(chosen, name)) is not None}
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return 0 if program.run(program.Options(**{**given, **lists})) else INTERRUPTED


def _shapes(text: str) -> Shapes:
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return value


def positive(text: str) -> int:
    """Return an integer of at least 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """Return an integer of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}")
    return value
