"""The house rules that a program can check: directions, sizes, versions, words."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rnncore
from rnncore import (
    _rnncore,
    cells,
    diagnose,
    distributed,
    functional,
    models,
    nn,
    reference,
    train,
)

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rnncore"
PYTHON = sorted(PACKAGE.rglob("*.py"))
CPP = sorted(
    path
    for folder in ("csrc", "src", "tests/emulation")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".h", ".inl", ".cpp", ".cu", ".cuh", ".pyx", ".pxi"}
)
TEXT = [*PYTHON, *CPP, *sorted(ROOT.glob("tests/**/*.py")), ROOT / "setup.py"]
TEXT += [*sorted(ROOT.glob("benchmarks/**/*.py")), *sorted(ROOT.glob("examples/**/*.py"))]

LINES_AT_MOST = 500
FUNCTION_LINES_AT_MOST = 50  # the body, without signature and docstring

pytestmark = pytest.mark.skipif(not CPP, reason="an installed package, not a checkout")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- Python's imports -----------------------------------------------------------------------------

# From the ground up. A module may import what stands on a lower floor, or its own neighbours.
FLOORS = [
    {"_version", "errors", "cells", "pictures"},
    {"checks", "_rnncore"},
    {"philox", "cuda"},
    {"devices"},
    {"threads", "openmp", "masks", "initializers", "layout", "_stream", "_inference"},
    {"reference"},
    {"backends"},
    {"sequences"},
    {"functional", "layers", "frozen", "streams", "config", "io", "threadpool"},
    {"nn", "train", "torch", "onnx", "keras", "distributed"},
    {"diagnose", "models"},
    {"bench", "demo", "selftest"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
# The compiled module has few doors; everything else goes through a backend.
ENGINE_DOORS = {
    "backends", "bench", "config", "cuda", "io", "nn", "openmp", "selftest", "threads", "train",
}  # fmt: skip


def part_of(module: str) -> str:
    """Name the part of the package that a dotted module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported_parts(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute"
            names = [node.module or ""]
            if node.module == "rnncore":
                names = [f"rnncore.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "rnncore":
                yield part_of(name), node.lineno


def own_part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_part_of_the_package_has_its_floor() -> None:
    assert {own_part(path) for path in PYTHON} - {"__init__"} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_imports_go_down_the_house(path: Path) -> None:
    here = own_part(path)
    if here == "__init__":
        return
    public_from = FLOOR_OF["nn"]  # from here up, the public names of rnncore may be used
    for part, line in imported_parts(path):
        place = f"{name_of(path)}:{line}: {here} imports {part}"
        if part not in FLOOR_OF:
            assert FLOOR_OF[here] >= public_from, place
            continue
        assert FLOOR_OF[part] <= FLOOR_OF[here], place
        if part == "_rnncore":
            assert here in ENGINE_DOORS, place
    if here == "reference":
        assert {part for part, _ in imported_parts(path)} <= {
            "reference",
            "cells",
            "checks",
            "masks",
        }


# Packages that only the files made for them may import, at rnncore/bench/peers.
PEER_PACKAGES = {"jax", "onnxruntime", "openvino"}


@pytest.mark.parametrize("path", [p for p in PYTHON if own_part(p) == "bench"], ids=name_of)
def test_packages_of_peers_stay_in_the_peers_files(path: Path) -> None:
    if path.parent == PACKAGE / "bench" / "peers":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            place = f"line {node.lineno}: {name}"
            assert name.split(".")[0] not in PEER_PACKAGES, place
            # A peer's file imports a package that may be absent: peers.make alone may load it.
            inside = name.removeprefix("rnncore.bench.peers.")
            assert inside == name or inside in {"interface", "ours", "ours_cuda"}, place


# --- C++ includes ---------------------------------------------------------------------------------

PLAIN_C = {"stddef.h", "stdint.h", "string.h", "immintrin.h", "arm_neon.h"}
# Folder: the folders whose headers it may include.
MAY_INCLUDE = {
    "csrc/include": {"rnncore"},
    "csrc/cells": {"cells"},
    "csrc/kernels": {"kernels", "cells"},
    "csrc/core": {"core", "rnncore", "cells"},
    "csrc/cuda": {"cuda", "cells"},
    "src": {"rnncore", "src"},
    "tests/emulation": {"emulation", "cuda", "core", "cells"},
}
# Beyond that, by folder, headers with these beginnings: where core and kernels meet, those of a CPU
# and those of a device, and the device's host side, which has no public header.
SEAMS = {"csrc/core": ("kernels/kernel_table.h", "cuda/arguments.h"), "src": ("core/cuda_",)}


def includes(path: Path) -> list[tuple[str, str]]:
    return re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def folder_of(path: Path) -> str:
    return next(folder for folder in MAY_INCLUDE if path.is_relative_to(ROOT / folder))


@pytest.mark.parametrize("path", CPP, ids=name_of)
def test_includes_go_one_way(path: Path) -> None:
    folder = folder_of(path)
    for quote, target in includes(path):
        place = f"{name_of(path)} includes {target}"
        if quote == "<":
            assert folder != "csrc/cells", place
            assert folder != "csrc/kernels" or target in PLAIN_C, place
            assert folder.startswith("src") or "pybind11" not in target, place
            assert folder.startswith("src") or target != "Python.h", place
        elif not target.startswith(SEAMS.get(folder, ())):
            first = target.split("/")[0] if "/" in target else "src"
            assert first in MAY_INCLUDE[folder], place


@pytest.mark.parametrize("path", [p for p in CPP if "csrc/include" in str(p)], ids=name_of)
def test_public_headers_need_no_private_ones(path: Path) -> None:
    quoted = [target for quote, target in includes(path) if quote == '"']
    assert all((ROOT / "csrc/include" / target).exists() for target in quoted)


# --- sizes, words, versions -----------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXT, ids=name_of)
def test_no_file_outgrows_the_hard_stop(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_AT_MOST, f"{lines} lines"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_functions_stay_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [statement for statement in node.body if not is_docstring(statement)]
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= FUNCTION_LINES_AT_MOST, f"{node.name}: {lines} lines"


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_the_library_neither_prints_nor_runs_text(path: Path) -> None:
    speaks = {"demo", "cli", "selftest", "__main__"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            place = f"line {node.lineno}: {node.func.id}()"
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}, place
            assert node.func.id != "print" or own_part(path) in speaks, place
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "marshal", "shelve", "dill"}, f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"line {node.lineno}"


@pytest.mark.parametrize("path", CPP, ids=name_of)
def test_cpp_sources_are_ascii_and_quiet(path: Path) -> None:
    text = path.read_text()
    assert text.isascii()
    code = re.sub(r"//[^\n]*|/\*.*?\*/|\"(\\.|[^\"\\])*\"", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(printf|puts|cout|cerr|exit|abort|_exit)\b", code)


def test_no_build_file_asks_for_fast_math() -> None:
    for name in ("setup.py", "pyproject.toml", "Makefile", ".ci/run"):
        text = re.sub(r"#[^\n]*", "", (ROOT / name).read_text())
        for flag in ("-ffast-math", "-Ofast", "-funsafe-math", "-march=native", "-fopenmp"):
            assert flag not in text, f"{name}: {flag}"


def test_the_version_is_the_same_everywhere() -> None:
    version = rnncore.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert "version" in project["project"]["dynamic"]
    assert attribute == "rnncore._version.__version__"
    assert re.search(rf"^version: {re.escape(version)}$", cff(), re.MULTILINE)
    for number in re.findall(r"RNNCORE_VERSION\s+\"([^\"]+)\"", headers()):
        assert number == version


def cff() -> str:
    return (ROOT / "CITATION.cff").read_text()


def headers() -> str:
    return "".join(path.read_text() for path in (ROOT / "csrc/include").rglob("*.h"))


def test_lint_tools_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        tool.split("==")[0] for tool in project["optional-dependencies"]["lint"] if "==" in tool
    }
    assert pinned >= {"ruff", "mypy", "clang-format", "codespell"}


# --- public names ---------------------------------------------------------------------------------

PUBLIC_MODULES = [rnncore, functional, reference, nn, train, diagnose, models, distributed]
OPTIONAL_MODULES = {"torch": "rnncore.torch"}  # package needed: module, with a page of its own


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_public_names_are_listed_and_documented(module: object) -> None:
    assert module.__doc__, module
    for name in module.__all__:
        public = getattr(module, name)
        if isinstance(public, type):
            methods = [(f"{name}.{key}", value) for key, value in vars(public).items()]
            undocumented = [
                key
                for key, value in methods
                if callable(value) and not key.split(".")[1].startswith("_") and not value.__doc__
            ]
            assert not undocumented
        if callable(public):
            assert public.__doc__, name


@pytest.mark.parametrize(("package", "name"), OPTIONAL_MODULES.items())
def test_public_names_of_optional_modules_are_documented(package: str, name: str) -> None:
    pytest.importorskip(package)
    test_public_names_are_listed_and_documented(importlib.import_module(name))


def test_the_api_page_names_every_public_name() -> None:
    listed = set(re.findall(r"^\s*([\w.]+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
    for module in PUBLIC_MODULES:
        for name in module.__all__:
            if callable(getattr(module, name)):
                path = f"{module.__name__}.{name}".removeprefix("rnncore.")
                assert path in listed, f"docs/api.md lacks {path}"


# --- one fact, two places -------------------------------------------------------------------------


def test_every_cell_of_the_table_has_its_equations_header() -> None:
    for cell in cells.GATES:
        assert (ROOT / "csrc/cells" / f"{cell}.h").exists(), cell


@pytest.mark.parametrize("cell", cells.GATES)
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 2, "num_directions": 2}])
def test_cpp_takes_exactly_the_parameters_of_the_python_table(
    cell: str, options: dict[str, int]
) -> None:
    spec = cells.CellSpec(cell, input_size=3, hidden_size=4, **options)
    native = _rnncore.Spec(cell, 3, 4, spec.num_layers, spec.num_directions, bias=spec.bias)
    arrays = [np.zeros(shape, "float32") for shape in spec.param_shapes().values()]
    _rnncore.Packed(native, arrays, 1)
    for wrong in (arrays[:-1], [*arrays, arrays[-1]], [np.zeros((1, 1), "float32"), *arrays[1:]]):
        with pytest.raises(ValueError, match=r"."):
            _rnncore.Packed(native, wrong, 1)
