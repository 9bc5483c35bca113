"""Texts for people: names cut short, durations in words, one line that a terminal can show."""

from __future__ import annotations

LONGEST_NAME = 80


def _name(by: str) -> str:
    """Who asked, as it may stand in a record: one line, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in by).split())
    return line[:LONGEST_NAME] or "somebody"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(text: str, most: int) -> str:
    """One line that holds nothing a terminal would obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def duration(seconds: float) -> str:
    """Seconds in the largest unit that says enough: "40 seconds", "2 minutes", "3 hours"."""
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * unit or (unit == 60 and seconds >= 57.5):
            count = max(1, round(seconds / unit))
            return f"{count} {name}{'' if count == 1 else 's'}"
    count = max(1, round(seconds))
    if count > 10:
        count = 5 * round(count / 5)
    return f"{count} second{'' if count == 1 else 's'}"


def about(seconds: float) -> str:
    """A time that is only foretold."""
    return "a few seconds" if seconds < 7.5 else f"about {duration(seconds)}"
