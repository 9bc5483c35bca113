"""Texts for people: who requested something, and times in words."""

from __future__ import annotations

import re

from cdal.text import one_line

LONGEST_NAME = 80


def is_token(text: str) -> bool:
    """Whether a text can be sent as an access token: RFC 7235's "token68", so without quotes."""
    return re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text) is not None


def requester(name: str) -> str:
    """Who requested something, as records and messages show it."""
    return one_line(name, LONGEST_NAME) or "somebody"


def duration(seconds: float) -> str:
    """A time in the largest unit that says enough: "40 seconds", "2 minutes", "3 hours"."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * unit or (unit == 60 and seconds >= 57.5):
            count = max(1, round(seconds / unit))
            return f"{count} {name}{'' if count == 1 else 's'}"
    count = max(1, round(seconds))
    if count > 10:
        count = 5 * round(count / 5)
    return f"{count} second{'' if count == 1 else 's'}"


def estimate(seconds: float) -> str:
    """A time that is only predicted: "a few seconds", "about 2 minutes"."""
    return "a few seconds" if seconds < 7.5 else f"about {duration(seconds)}"
