"""Logging, as a process of its own sets it up."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging
from cdal.backend.logs import set_up_logging
set_up_logging("{level}")
logging.getLogger("cdal.test").info("of ours")
logging.getLogger("httpx").info("HTTP Request: GET http://host/?secret")
logging.getLogger("httpx").warning("of httpx")
"""


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("INFO", ["INFO cdal.test: of ours", "WARNING httpx: of httpx"]),
        ("DEBUG", ["INFO cdal.test: of ours", "WARNING httpx: of httpx"]),
        ("ERROR", []),
    ],
)
def test_every_request_to_label_studio_is_not_worth_a_line(level: str, lines: list[str]) -> None:
    program = PROGRAM.format(level=level)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert [line.split(" ", 2)[2] for line in ended.stderr.splitlines()] == lines
