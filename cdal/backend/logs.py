"""One way of logging for every process: lines for people or JSON for programs, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HIDDEN = "***"
LEAST_SECRET = 4
"""Anything shorter would be found in every other word."""

ABOUT = ("project", "round", "job")

# Secrets that nobody has named, by how they are written.
_PATTERNS = (
    re.compile(r"(?i)(\b(?:token|bearer|basic)\s+)[\w.+/=-]{16,}"),
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),
    re.compile(r"()\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(
        r"(?i)(\b\w*(?:token|api_key|password|secret)\w*[\"']?\s*[=:]\s*[\"']?)[\w.+/=-]{8,}"
    ),
)
_secrets: set[str] = set()
_about: ContextVar[Mapping[str, int]] = ContextVar("about", default={})  # noqa: B039 — never changed


def set_up_logging(level: str, style: str = "text") -> None:
    """Log to standard error; requests to Label Studio are not worth a line each.

    Args:
        level: as `logging` names it.
        style: "text" or "json".
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if style == "json" else Lines(LINE))
    handler.addFilter(_in_a_sentence)
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("httpx", "huey"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _in_a_sentence(record: logging.LogRecord) -> bool:
    """What huey cannot read or write, such as on a full disk, is no fault of the code's."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, sqlite3.Error):
        record.msg, record.args = f"{record.getMessage()} {error}", ()
        record.exc_info = None
    return True


def never_show(*secrets: str | None) -> None:
    """Keep these out of every line from now on."""
    _secrets.update(s for s in secrets if s is not None and len(s) >= LEAST_SECRET)


def redact(text: str) -> str:
    """A text without the secrets that are known, or that look like some."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def now_about(**numbers: int | None) -> None:
    """Say what this thread's lines are about from now on: of project, round and job."""
    _about.set({name: value for name, value in numbers.items() if value is not None})


@contextmanager
def about(**numbers: int | None) -> Iterator[None]:
    """Say what this thread's lines are about for a while."""
    before = _about.get()
    now_about(**numbers)
    try:
        yield
    finally:
        _about.set(before)


class Lines(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JSONLines(logging.Formatter):
    """An object a line: time, level, logger and message, and what it is about where that is known.

    `exception` holds a traceback, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        known = _about.get()
        entry: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **{name: getattr(record, name, known.get(name)) for name in ABOUT},
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)
