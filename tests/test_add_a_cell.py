"""The guide in docs/add_a_cell.md, followed to the letter: what it adds is built and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/add_a_cell.md").read_text()
BUILT_FROM = ("csrc", "src", "rnncore", "setup.py", "pyproject.toml", "README.md", "LICENSE")
LIMIT_S = 1200.0

# `path`, after `line`:  or  `path`, a new file:  or  `path`, anywhere:  and then a fenced block.
BLOCK = re.compile(
    r"^`(?P<path>[\w/.]+)`, (?:(?P<where>a new file|anywhere)|after `(?P<line>[^`\n]+)`):\n\n"
    r"```(?:python|cpp)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
BLOCKS = list(BLOCK.finditer(GUIDE))


def apply(blocks: list[re.Match[str]], root: Path) -> None:
    """Put the guide's blocks where it says."""
    for block in blocks:
        path, line = root / block["path"], block["line"]
        if line is None:
            assert not path.exists(), path
            path.write_text(block["text"])
            continue
        lines = path.read_text().splitlines(keepends=True)
        (at,) = (i for i, text in enumerate(lines) if text.strip() == line.strip())
        path.write_text("".join([*lines[: at + 1], block["text"], *lines[at + 1 :]]))


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=os.environ | environment,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def checkout(folder: Path) -> Path:
    """Copy what the package is built from, without anything built."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "build")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def in_package() -> list[re.Match[str]]:
    return [block for block in BLOCKS if block["where"] != "anywhere"]


def test_every_block_of_the_guide_says_where_it_goes() -> None:
    assert len(BLOCKS) == len(re.findall(r"^```\w", GUIDE, re.MULTILINE))
    assert [block["path"] for block in BLOCKS if block["where"] == "anywhere"] == ["minimal.py"]


def test_the_guide_changes_four_files(tmp_path: Path) -> None:
    copy = checkout(tmp_path / "copy")
    before = contents(copy)
    apply(in_package(), copy)
    after = contents(copy)
    assert {name for name in before if before[name] != after[name]} == {
        "csrc/cells/list.h", "rnncore/cells.py", "rnncore/reference/steps.py",
    }  # fmt: skip
    assert set(after) - set(before) == {"csrc/cells/minimal.h"}


@pytest.mark.nightly
def test_the_cell_of_the_guide_works(tmp_path: Path) -> None:
    copy = checkout(tmp_path / "copy")
    apply(in_package(), copy)
    run(sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", cwd=copy)
    apply([block for block in BLOCKS if block["where"] == "anywhere"], tmp_path)
    path = os.pathsep.join(map(str, (copy, tmp_path)))
    tests = ROOT / "tests/added_cell.py"
    options = ("-q", "-p", "no:cacheprovider", "-W", "error")
    done = run(sys.executable, "-m", "pytest", *options, tests, cwd=copy, PYTHONPATH=path)
    assert re.search(r"^\d{3,} passed", done, re.MULTILINE), done[-3000:]
