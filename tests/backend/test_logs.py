"""Logging as each process sets it up, and the secrets that no line shows."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from cdal.backend import logs
from cdal.backend.logs import (
    LINE,
    JSONLines,
    Lines,
    _shorten_storage_errors,
    log_context,
    never_show,
    redact,
    set_log_context,
)

PROGRAM = """
import logging
import sqlite3
from cdal.backend.logs import set_up_logging
set_up_logging("{level}", "{style}")
logging.getLogger("cdal.test").info("our line")
logging.getLogger("httpx").info("HTTP Request: GET http://host/?secret")
logging.getLogger("httpx").warning("httpx's line")
"""


def run(level: str, style: str) -> list[str]:
    program = PROGRAM.format(level=level, style=style)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return ended.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("INFO", ["INFO cdal.test: our line", "WARNING httpx: httpx's line"]),
        ("DEBUG", ["INFO cdal.test: our line", "WARNING httpx: httpx's line"]),
        ("ERROR", []),
    ],
)
def test_requests_to_label_studio_are_not_logged(level: str, lines: list[str]) -> None:
    assert [line.split(" ", 2)[2] for line in run(level, "text")] == lines


def test_json_lines() -> None:
    first, second = map(json.loads, run("INFO", "json"))
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "cdal.test", "our line")
    assert first["time"].endswith("Z")
    assert (first["project"], first["round"], first["job"]) == (None, None, None)
    assert second["level"] == "WARNING"


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("cdal.test", logging.INFO, "file", 1, message, None, None)
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def entry(message: str, **extra: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JSONLines().format(record(message, **extra)))
    return found


def test_each_line_carries_its_project_round_and_job() -> None:
    set_log_context()  # whatever a request of an earlier test left in this thread
    with log_context(project=3, round=4, job=5):
        found = entry("inside")
        assert (found["project"], found["round"], found["job"]) == (3, 4, 5)
        with log_context(project=6):
            assert (entry("x")["project"], entry("x")["job"]) == (6, None)
        assert entry("x", project=9)["project"] == 9  # the line itself knows better
    assert entry("outside")["project"] is None
    set_log_context(project=7, job=None)
    assert (entry("x")["project"], entry("x")["job"]) == (7, None)
    set_log_context()


def test_a_message_of_many_lines_is_one_line_and_a_traceback_is_a_field() -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        line = JSONLines().format(record('odd\n"text"', exc_info=sys.exc_info()))
    assert "\n" not in line
    assert json.loads(line)["message"] == 'odd\n"text"'
    assert "ZeroDivisionError" in json.loads(line)["exception"]


SECRETS = [
    "Authorization: Token 0123456789abcdef0123456789abcdef01234567",
    "'Authorization': 'Bearer eyJhbGciOi.eyJzdWIiOi.sIgnature-_'",
    "Authorization: Basic YW5uOnBhc3M6d8O2cmQ=",
    "GET https://ann:the-pass@host/x",
    "postgresql://ann:the-pass@host/name",
    '{"access_token": "0123456789abcdef"}',
    "LABEL_STUDIO_API_KEY=0123456789abcdef",
    "webhook_secret: abcdefghijklmnop",
    "token eyJhbGciOi.eyJzdWIiOi.sIgnature",
]


@pytest.mark.parametrize("text", SECRETS)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    said = redact(text)
    for secret in ("0123456789abcdef", "eyJ", "YW5u", "the-pass", "abcdefghijklmnop"):
        assert secret not in said
    assert "***" in said


@pytest.mark.parametrize(
    "text",
    [
        "project 3: train (job 5) begins, Start training in Label Studio",
        "User name and password are required.",
        "There is no Label Studio token; set LABEL_STUDIO_API_KEY.",
        "http://host:8080/path",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_secrets_may_be_added_while_lines_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Adding(str):
        """A secret whose search takes so long that another thread adds one."""

        __slots__ = ()

        def replace(self, *_: object) -> Adding:
            never_show(f"secret-{len(logs._secrets)}")
            return self

    monkeypatch.setattr(logs, "_secrets", {"one-secret", "another"})
    monkeypatch.setattr(logs, "_PATTERNS", ())
    assert redact(Adding("a line")) == "a line"
    assert len(logs._secrets) == 4


def test_a_secret_that_begins_another_leaves_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", set())
    starts = [f"secret{number}" for number in range(20)]
    never_show(*starts, *(f"{start}-and-more" for start in starts))
    for start in starts:
        assert redact(f"x {start}-and-more y") == "x *** y"


def test_known_secrets_are_hidden_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", set())
    never_show("pass:wörd", None, "", "abc")
    try:
        int("says pass:wörd")
    except ValueError:
        made = record("x pass:wörd y abc", exc_info=sys.exc_info())
    for formatter in (Lines("%(message)s"), JSONLines()):
        line = formatter.format(made)
        assert "wörd" not in line
        assert "x *** y abc" in line  # too short to be hidden


def test_a_full_disk_in_huey_is_one_line_without_a_traceback() -> None:
    record = logging.LogRecord(
        "huey.consumer", logging.ERROR, "", 0, "Error reading %s", None, None
    )
    record.args = ("queue",)
    error = sqlite3.OperationalError("database or disk is full")
    record.exc_info = (type(error), error, None)
    assert _shorten_storage_errors(record)
    assert Lines(LINE).format(record).endswith("Error reading queue database or disk is full")
