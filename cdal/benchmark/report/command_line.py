"""The command that reproduces a simulation."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cdal.benchmark.protocol import PROTOCOLS, PUBLISHED

# Derived from the other settings, or given in another form.
_NOT_TYPED = (
    "images", "budgets", "pretrained", "options", "selectors", "protocol", "unlabelled",
    "first_round",
)  # fmt: skip


def command_line(settings: Mapping[str, Any], folder: Path) -> str:
    """The ``cdal benchmark`` command for these settings, given as JSON data.

    Returns:
        One line for a shell; empty if the settings name no data set.
    """
    if not settings.get("dataset"):
        return ""
    return shlex.join(["cdal", "benchmark", *_options(settings), "--out", str(folder)])


def _options(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings.get("selectors"):
        yield from ("--selectors", ",".join(settings["selectors"]))
    if settings.get("protocol"):
        yield from ("--protocol", f"paper:{settings['protocol']}")
    if settings.get("unlabelled", "ignore") != "ignore":
        yield from ("--unlabelled", settings["unlabelled"])
    if settings.get("first_round", "random") != "random":
        yield from ("--first-round", settings["first_round"])
    typed = {name: value for name, value in settings.items() if name not in _NOT_TYPED}
    implied = _implied(settings)
    for name, value in {**typed, **settings.get("options", {})}.items():
        if implied.get(name) == value:
            continue
        if value is True:
            yield _option(name)
        elif value is not None and value is not False and value != 0:
            yield from (_option(name), str(value))


def _implied(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a protocol implies, and what might have no effect if it were typed."""
    protocol = PROTOCOLS.get(settings.get("protocol") or "")
    if protocol is None:
        return {}
    method = {} if settings.get("repaired") else PUBLISHED[protocol.task]
    return {**method, "epochs": protocol.epochs}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
