"""The docs' commands are understood: each `cdal …` and `python measurements/…` parses as shown."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cdal import cli

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ROOT / "measurements"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *MEASUREMENTS.glob("*.py")]

SCRIPT = r"python (?:-m measurements\.|measurements/)\w+"
LINE = re.compile(rf"^( *)(?:\w+=\S+ )*((?:cdal |{SCRIPT})(?:.*\\\n)*.*)$", re.MULTILINE)
"""A command on a line of its own, which goes on after a backslash; and its indent."""
WITHIN = re.compile(rf"`()({SCRIPT}[^`]*)`")
"""A measurement in a sentence. A `cdal …` there often lacks what its options are set to."""
PLACEHOLDERS = ("[", "--budget B")
"""What makes it a pattern, such as `[--side 8900]`, instead of a command."""


class ParsedError(Exception):
    """The arguments have been accepted, so that nothing needs to run."""


def documented() -> Iterator[tuple[Path, list[str]]]:
    """Each command's words, and the file that shows it; of several on a line, the first."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for indent, command in LINE.findall(text) + WITHIN.findall(text):
            if not any(mark in command for mark in PLACEHOLDERS):
                joined = command.replace(f"\\\n{indent}", "").partition(" &")[0]
                yield page, shlex.split(joined, comments=True)


def main_of(script: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Import a script as Python would: its imports are looked for where it lies, or by -m here."""
    for name, module in list(sys.modules.items()):
        if str(module.__dict__.get("__file__")).startswith(str(MEASUREMENTS)):
            monkeypatch.delitem(sys.modules, name)
    by_path = script.endswith(".py")
    monkeypatch.setattr(sys, "path", [str(MEASUREMENTS if by_path else ROOT), *sys.path[1:]])
    main: Callable[[], object] = import_module(Path(script).stem if by_path else script).main
    return main


@pytest.mark.slow
def test_each_has_the_options_it_is_shown_with(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def accepted(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", accepted)
    refused = []
    mains: dict[str, Callable[[], object]] = {}
    for page, (program, *words) in documented():
        script, *arguments = words[1:] if words[0] == "-m" else words
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        try:
            if program == "cdal":
                cli.main(words)
            if script not in mains:
                mains[script] = main_of(script, monkeypatch)
            mains[script]()
        except ParsedError:
            continue
        except (SystemExit, ImportError, AttributeError) as error:
            refused.append(f"{page.name}: {program} {shlex.join(words)}: {error!r}")
    assert not refused, "\n".join(refused)
    assert len(mains) > 40
