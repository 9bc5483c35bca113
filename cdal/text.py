"""Texts from others as one line that any terminal, page or plot can show."""

from __future__ import annotations

LONGEST_QUOTE = 40


def one_line(text: str, most: int = LONGEST_QUOTE) -> str:
    """The text as one line of at most `most` characters, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 3] + "..."
