"""Logging, as a process of its own sets it up; and what no line shows."""

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
    _in_a_sentence,
    about,
    never_show,
    now_about,
    redact,
)

PROGRAM = """
import logging
import sqlite3
from cdal.backend.logs import set_up_logging
set_up_logging("{level}", "{style}")
logging.getLogger("cdal.test").info("of ours")
logging.getLogger("httpx").info("HTTP Request: GET http://host/?secret")
logging.getLogger("httpx").warning("of httpx")
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
        ("INFO", ["INFO cdal.test: of ours", "WARNING httpx: of httpx"]),
        ("DEBUG", ["INFO cdal.test: of ours", "WARNING httpx: of httpx"]),
        ("ERROR", []),
    ],
)
def test_every_request_to_label_studio_is_not_worth_a_line(level: str, lines: list[str]) -> None:
    assert [line.split(" ", 2)[2] for line in run(level, "text")] == lines


def test_json_lines() -> None:
    first, second = map(json.loads, run("INFO", "json"))
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "cdal.test", "of ours")
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


def test_each_line_says_what_it_is_about() -> None:
    with about(project=3, round=4, job=5):
        found = entry("inside")
        assert (found["project"], found["round"], found["job"]) == (3, 4, 5)
        with about(project=6):
            assert (entry("x")["project"], entry("x")["job"]) == (6, None)
        assert entry("x", project=9)["project"] == 9  # the line itself knows better
    assert entry("outside")["project"] is None
    now_about(project=7, job=None)
    assert (entry("x")["project"], entry("x")["job"]) == (7, None)
    now_about()


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
def test_what_is_none_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_hidden_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", set())
    never_show("pass:wörd", None, "", "abc")
    try:
        int("of pass:wörd")
    except ValueError:
        made = record("x pass:wörd y abc", exc_info=sys.exc_info())
    for formatter in (Lines("%(message)s"), JSONLines()):
        line = formatter.format(made)
        assert "wörd" not in line
        assert "x *** y abc" in line  # what is so short would be found everywhere


def test_a_full_disk_that_huey_met_is_a_line() -> None:
    record = logging.LogRecord(
        "huey.consumer", logging.ERROR, "", 0, "Error reading %s", None, None
    )
    record.args = ("queue",)
    error = sqlite3.OperationalError("database or disk is full")
    record.exc_info = (type(error), error, None)
    assert _in_a_sentence(record)
    assert Lines(LINE).format(record).endswith("Error reading queue database or disk is full")
