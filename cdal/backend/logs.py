"""Logging, the same in every process: lines for people or JSON for programs, without secrets."""

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
"""Characters; anything shorter would be found inside ordinary words."""

CONTEXT = ("project", "round", "job")
"""The numbers that each JSON line carries, null where they are not known."""

# What secrets look like that nobody has named.
_PATTERNS = (
    re.compile(r"(?i)(\b(?:token|bearer|basic)\s+)[\w.+/=-]{16,}"),
    re.compile(r"(://[^/\s:@]*:)[^/\s@]+(?=@)"),
    re.compile(r"()\beyJ[\w-]+\.[\w-]+\.[\w-]*"),
    re.compile(
        r"(?i)(\b\w*(?:token|api_key|password|secret)\w*[\"']?\s*[=:]\s*[\"']?)[\w.+/=-]{8,}"
    ),
)
_secrets: set[str] = set()
_context: ContextVar[Mapping[str, int]] = ContextVar("log", default={})  # noqa: B039 — not mutated


def set_up_logging(level: str, style: str = "text") -> None:
    """Log to standard error; a request to Label Studio is not worth a line.

    Args:
        level: a level's name in `logging`.
        style: "text" or "json".
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines() if style == "json" else Lines(LINE))
    handler.addFilter(_shorten_storage_errors)
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("alembic", "httpx", "huey"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _shorten_storage_errors(record: logging.LogRecord) -> bool:
    """Drop huey's traceback where its file cannot be read or written: the code is not at fault."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, sqlite3.Error):
        record.msg, record.args = f"{record.getMessage()} {error}", ()
        record.exc_info = None
    return True


def never_show(*secrets: str | None) -> None:
    """Hide these secrets in every line from now on."""
    _secrets.update(s for s in secrets if s is not None and len(s) >= LEAST_SECRET)


def redact(text: str) -> str:
    """The text without known secrets and without anything that looks like one."""
    # A copy, since other threads add to them; the longest first, since one may begin another.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def set_log_context(**numbers: int | None) -> None:
    """Say which project, round and job this thread's lines are about from now on."""
    _context.set({name: value for name, value in numbers.items() if value is not None})


@contextmanager
def log_context(**numbers: int | None) -> Iterator[None]:
    """Say which project, round and job this thread's lines are about inside a `with` block."""
    before = _context.get()
    set_log_context(**numbers)
    try:
        yield
    finally:
        _context.set(before)


class Lines(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class JSONLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the numbers in `CONTEXT`.

    `exception` holds the traceback, if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        known = _context.get()
        entry: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
            **{name: getattr(record, name, known.get(name)) for name in CONTEXT},
        }
        if record.exc_info:
            entry["exception"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)
