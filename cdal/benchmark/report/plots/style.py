"""The style of all plots: readable without colour, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cdal.text import one_line

# Okabe and Ito's colours, which colour-blind people can tell apart; without the pale yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++", "oo")
LINES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (9, 2)))
GREY = "#555555"
LONGEST = 32
"""Most characters in a label."""

SETTINGS: dict[str, Any] = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    # Included in matplotlib.
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "cdal",
    # Names of classes and selectors are plain text, whatever characters they contain.
    "text.parse_math": False,
    "text.usetex": False,
}


@dataclass(frozen=True, slots=True)
class Look:
    """How a selector is drawn in every plot of a report."""

    colour: str
    marker: str
    line: Any
    hatch: str


P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function draw with ``SETTINGS``."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with settings():
            return draw(*args, **kwargs)

    return drawn


def settings() -> AbstractContextManager[None]:
    """Draw with ``SETTINGS`` on top of matplotlib's defaults, not the user's, while open."""
    return style.context(["default", SETTINGS])


def looks(selectors: Sequence[str]) -> dict[str, Look]:
    """A look for each selector, by its position; random is always dotted grey."""
    others = [name for name in dict.fromkeys(selectors) if name != "random"]
    found = {
        name: Look(
            colour=COLOURS[place % len(COLOURS)],
            marker=MARKERS[place % len(MARKERS)],
            line=LINES[place % len(LINES)],
            hatch=HATCHES[(place + 1) % len(HATCHES)],
        )
        for place, name in enumerate(others)
    }
    return {"random": Look(GREY, "*", (0, (1, 1.2)), ""), **found}


def legend_label(text: str) -> str:
    """A name that fits into a plot: on one line, not too long.

    Matplotlib omits labels that begin with an underscore from legends.
    """
    text = one_line(text, LONGEST)
    return f" {text}" if text.startswith("_") else text


def selector_label(text: str) -> str:
    """A selector's name as a label, with each option on its own line."""
    name, colon, options = text.partition(":")
    if not colon:
        return legend_label(name)
    return "\n".join([legend_label(name), *(f"  {legend_label(o)}" for o in options.split(","))])


def class_colour(index: int) -> tuple[float, float, float]:
    """The colour of a class: ``COLOURS``, then paler, then darker ones, and so on."""
    red, green, blue = to_rgb(COLOURS[index % len(COLOURS)])
    shade, share = ((0.0, 0.0), (1.0, 0.5), (0.0, 0.5))[index // len(COLOURS) % 3]
    mixed = [value + (shade - value) * share for value in (red, green, blue)]
    return mixed[0], mixed[1], mixed[2]


def per_cent(axes: Axes, which: str = "y") -> None:
    """Label an axis of shares in per cent."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(lambda value, _position: f"{100 * value:g}")
