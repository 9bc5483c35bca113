"""A figure as a file or as part of a page, the same bytes every time."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass

from matplotlib.figure import Figure

from cdal.benchmark.report.plots.style import settings

LARGEST_SVG = 256 * 2**10
"""In bytes; a larger picture becomes a PNG."""
DOTS = 144
"""Dots per inch of a PNG."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file and its description."""

    data: bytes
    media_type: str
    text: str

    @property
    def url(self) -> str:
        """The whole picture as a ``data:`` URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"


def picture(figure: Figure, text: str) -> Picture:
    """Render a figure as SVG, or as PNG if the SVG would be large."""
    svg = as_svg(figure)
    if len(svg) <= LARGEST_SVG:
        return Picture(svg, "image/svg+xml", text)
    return Picture(as_png(figure), "image/png", text)


def as_svg(figure: Figure) -> bytes:
    """Render a figure as SVG, with text as outlines and without a date."""
    return _saved(figure, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type")))


def as_png(figure: Figure) -> bytes:
    """Render a figure as PNG, at 144 dots per inch."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    with settings(), warnings.catch_warnings():
        # A character missing from the font is drawn as an empty box.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(file, format=kind, dpi=DOTS, metadata=metadata)
    return file.getvalue()
