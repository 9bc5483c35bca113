"""How any command ends when the system refuses something, or somebody stops it."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.offline import make_services

from cdal import cli

Ends = Callable[[BaseException], int]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Runs a command that ends with an error."""

    def run(error: BaseException) -> int:
        def fail(_: argparse.Namespace) -> int:
            raise error

        def add_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
            add_parser("status").set_defaults(run=fail)

        monkeypatch.setattr(cli, "GROUPS", [SimpleNamespace(add_commands=add_commands)])
        return cli.main(["status"])

    return run


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError("odd"), "odd"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    ends: Ends, error: OSError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(error) == 1
    assert capsys.readouterr().err == f"cdal status: {said}.\n"


def test_a_library_that_is_not_installed_is_named(
    ends: Ends, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(ModuleNotFoundError("No module named 'flask'", name="flask")) == 1
    said = capsys.readouterr().err
    assert "flask" in said
    assert "label-studio-cdal[backend]" in said
    with pytest.raises(ModuleNotFoundError):  # a mistake of ours
        ends(ModuleNotFoundError("No module named 'cdal.x'", name="cdal.x"))


def test_ctrl_c_ends_without_a_traceback(ends: Ends) -> None:
    assert ends(KeyboardInterrupt()) == 130


def test_a_reader_that_wants_no_more_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `cdal projects | head`; the data folder is not to blame."""
    make_services(tmp_path)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert cli.main(["projects"]) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "given",
    [
        ["backup", "NAME"],
        ["demo", "--images", "NAME"],
        ["benchmark", "--dataset", "NAME", "--out", "out"],
        ["predict", "NAME", ".", "--out", "out"],
    ],
)
def test_a_name_that_is_too_long_is_a_sentence(
    given: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    assert cli.main([text.replace("NAME", "a" * 300) for text in given]) > 0
    out, err = capsys.readouterr()
    (line,) = (out + err).splitlines()
    assert "File name too long" in line
