"""A table of a report, as Markdown; the report's template writes it as HTML."""

from __future__ import annotations

from dataclasses import dataclass

ABSENT = "–"
"""Stands where there is no figure."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text.

    Attributes:
        title: what it shows.
        note: how to read it.
        header: names of the columns; the first column names the rows.
        rows: each as long as the header.
    """

    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """A heading, the note and the table, in GitHub's dialect; figures to the right."""
        lines = [
            f"### {plain(self.title)}",
            "",
            plain(self.note),
            "",
            _row(self.header),
            _row(("---", *("---:" for _ in self.header[1:])), escape=False),
            *(_row(row) for row in self.rows),
        ]
        return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...], *, escape: bool = True) -> str:
    return f"| {' | '.join(plain(cell) if escape else cell for cell in cells)} |"


def plain(text: str) -> str:
    """Text on one line of Markdown, of which nothing is markup."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|$~!#":
        text = text.replace(sign, "\\" + sign)
    return text
