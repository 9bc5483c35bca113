"""One line for any text, and times in words."""

from __future__ import annotations

import pytest

from cdal.backend.text import LONGEST_NAME, duration, estimate, requester
from cdal.text import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a  b\n\tc ", "a b c"),
        ("red\x1b[31m, \u202eright to left", "red [31m, right to left"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 37 + "..."),
        ("\n\0", ""),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_a_requester_always_has_a_name() -> None:
    assert requester("ann\nb") == "ann b"
    assert requester(" \n") == "somebody"
    assert len(requester("x" * 1000)) == LONGEST_NAME


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (8, "8 seconds"),
        (43, "45 seconds"),
        (58, "1 minute"),
        (89, "1 minute"),
        (91, "2 minutes"),
        (3600, "60 minutes"),
        (5400, "2 hours"),
        (36 * 3600, "2 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_estimates_are_rough() -> None:
    assert (estimate(3), estimate(20)) == ("a few seconds", "about 20 seconds")
