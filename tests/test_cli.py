"""The command: help, exit codes and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rnncore as rc
from rnncore import selftest
from rnncore.cli import main


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for command in ("bench", "demo", "show-config", "selftest"):
        assert command in out


@pytest.mark.parametrize("command", ["bench", "demo", "show-config", "selftest"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    assert main([command, "--help"]) == 0
    assert "rite" in capsys.readouterr().out  # what it writes


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["demo", "--updates", "0"],
        ["demo", "--updates", "many"],
        ["demo", "--sample-length", "-1"],
        ["selftest", "--wings"],
    ],
)
def test_wrong_use_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert "usage: rnncore" in out + err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"rnncore {rc.__version__}"


def test_show_config_prints_the_configuration(capsys: pytest.CaptureFixture) -> None:
    assert main(["show-config"]) == 0
    assert rc.__version__ in capsys.readouterr().out


def test_selftest_covers_everything_and_passes(capsys: pytest.CaptureFixture) -> None:
    assert main(["selftest", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    isas = len(rc.show_config("dicts")["isa"]["supported"])
    assert len(lines) == 3 + isas * 5 * 2 * 2
    assert lines[-1] == "all within bounds"
    assert all(line.endswith("ok") for line in lines[2:-1])


def test_selftest_fails_when_the_engine_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real = selftest.functional.forward

    def wrong(spec: object, params: object, x: object, *rest: object) -> object:
        y, state, tape = real(spec, params, x, *rest)
        y[3, 1, 2] += 1e-3
        return y, state, tape

    monkeypatch.setattr(selftest.functional, "forward", wrong)
    assert main(["selftest"]) == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert "out of bounds" in out


def test_selftest_fails_on_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    real = selftest.functional.backward

    def wrong(*given: object) -> object:
        dx, state, grads = real(*given)
        dx[0, 0, 0] = float("nan")
        return dx, state, grads

    monkeypatch.setattr(selftest.functional, "backward", wrong)
    assert main(["selftest"]) == 1


def test_missing_files_are_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "--text", str(tmp_path / "none.txt")]) == 1
    assert main(["demo", "--resume", "--out", str(tmp_path)]) == 1
    assert main(["demo", "--text", str(tmp_path), "--out", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("rnncore demo: error: ") for line in errors)


def test_resume_refuses_other_settings_and_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    page, out = tmp_path / "page.txt", str(tmp_path / "out")
    page.write_text("It is a truth universally acknowledged. " * 60)
    common = ["demo", "--text", str(page), "--out", out, "--no-compare", "--sample-length", "5"]
    assert main([*common, "--updates", "2"]) == 0
    assert main([*common, "--updates", "2", "--resume"]) == 0
    capsys.readouterr()
    assert main([*common, "--updates", "3", "--resume"]) == 1
    assert "--resume" in capsys.readouterr().err
    assert main(["demo", "--out", out, "--resume"]) == 1
    assert "trained on" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["-m", "rnncore"]])
def test_the_module_is_the_command(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "rnncore")
    wrong = subprocess.run([sys.executable, *command, "fly"], capture_output=True, check=False)
    assert wrong.returncode == 2
