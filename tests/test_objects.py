"""What the compiler put into the objects: an old processor must never meet a new instruction."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from rnncore import _rnncore

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "objects" / str(sysconfig.get_config_var("SOABI"))
# Left over from a source that is gone, an object says nothing.
OBJECTS = [
    path
    for path in sorted(FOLDER.rglob("*.o"))
    if (ROOT / path.relative_to(FOLDER)).with_suffix(".cpp").exists()
]
ISA_OBJECTS = [path for path in OBJECTS if path.name.startswith("isa_")]
WIDE = {"isa_avx2.o": "%ymm", "isa_avx512.o": "%zmm", "isa_avx512vnni.o": "%zmm"}
PLAIN_OBJECTS = [path for path in OBJECTS if path.name not in WIDE]

pytestmark = [
    pytest.mark.skipif(not OBJECTS, reason="not built in this checkout"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no binutils"),
]


def output_of(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(path: Path) -> list[tuple[str, str]]:
    """List (kind, name) of what an object defines."""
    lines = output_of("nm", "--demangle", "--defined-only", path).splitlines()
    return [(line.split()[1], line.split(None, 2)[2]) for line in lines if len(line.split()) > 2]


@pytest.mark.parametrize("path", ISA_OBJECTS, ids=lambda path: path.name)
def test_all_that_instruction_set_objects_share_bears_their_name(path: Path) -> None:
    # Of a weak symbol the linker keeps one copy for everyone: it must not be this object's.
    isa = path.stem.removeprefix("isa_")
    shared = [name for kind, name in symbols(path) if kind in "uvw" or kind.isupper()]
    assert shared
    assert [name for name in shared if f"rnncore::{isa}" not in name] == []


@pytest.mark.parametrize("path", ISA_OBJECTS, ids=lambda path: path.name)
def test_instruction_set_objects_take_nothing_of_the_cpp_library(path: Path) -> None:
    needed = output_of("nm", "--demangle", "--undefined-only", path)
    assert not re.search(r"\bstd::|operator (new|delete)|\b(expf?|tanhf?|fmaf?)$", needed, re.M)


@pytest.mark.parametrize("path", PLAIN_OBJECTS, ids=lambda path: path.name)
def test_plain_objects_hold_no_wide_instruction(path: Path) -> None:
    code = output_of("objdump", "--disassemble", "--no-show-raw-insn", path)
    assert not re.search(r"%[yz]mm\d", code)
    assert not re.search(r"^\s*[0-9a-f]+:\s+v[a-z0-9]+ ", code, re.MULTILINE)


def test_the_wide_objects_hold_wide_instructions() -> None:
    # Otherwise the two tests above would pass on empty objects.
    for path in ISA_OBJECTS:
        code = output_of("objdump", "--disassemble", "--no-show-raw-insn", path)
        assert ("%zmm" in code) == (WIDE.get(path.name) == "%zmm")
        assert ("%ymm" in code) >= (WIDE.get(path.name) == "%ymm")
        assert ("vpdpbusd" in code) == (path.stem == "isa_avx512vnni")


def test_the_module_does_not_change_how_the_process_rounds() -> None:
    assert "set_fast_math" not in output_of("nm", _rnncore.__file__)
