"""The examples in README and docs, and in the docstrings: they run, and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import rnncore

ROOT = Path(__file__).parents[1]
PAGES = [path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if path.exists()]
SKIPPED = {"rnncore.__main__", "rnncore.demo.torch_step"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(rnncore.__path__, "rnncore.")
    if module.name not in SKIPPED
)
OPTIONAL = {"jax", "onnx", "onnxruntime", "openvino", "torch"}
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples_in(page: Path) -> str:
    """Blank out all but the fenced Python blocks that hold a prompt, keeping line numbers."""
    kept, inside = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line.strip() == "```python"
            line = ""
        kept.append(line if inside else "")
    return "\n".join(kept) + "\n"


def skip_without_its_packages(text: str) -> None:
    for package in sorted(OPTIONAL):
        if f"import {package}\n" in text and find_spec(package) is None:
            pytest.skip(f"no {package}")


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_the_page_run(page: Path) -> None:
    text = examples_in(page)
    skip_without_its_packages(text)
    run(doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0))


def test_readme_and_quick_start_have_examples() -> None:
    for name in ("README.md", "docs/quickstart.md"):
        assert examples_in(ROOT / name).count(">>>") >= 5


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name not in OPTIONAL:
            raise
        pytest.skip(f"no {missing.name}")
    tests = doctest.DocTestFinder(exclude_empty=True).find(module)
    skip_without_its_packages("".join(step.source for test in tests for step in test.examples))
    for test in tests:
        run(test)
