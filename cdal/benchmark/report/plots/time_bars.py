"""Where the time goes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from cdal.benchmark.report.formatting import duration
from cdal.benchmark.report.plots.style import COLOURS, GREY, HATCHES, selector_label, styled
from cdal.benchmark.report.seconds import PARTS, Seconds


@styled
def time_bars(timed: Sequence[Seconds]) -> Figure:
    """Draw the seconds per step of each selector, stacked by part."""
    figure = Figure(figsize=(8.2, 1.4 + 0.36 * len(timed)))
    axes = figure.add_subplot()
    begins = [0.0] * len(timed)
    for place, part in enumerate(PARTS):
        widths = [row.parts[part] for row in timed]
        axes.barh(
            range(len(timed)),
            widths,
            left=begins,
            height=0.66,
            color=GREY if part == "other" else COLOURS[place],
            edgecolor="white",
            linewidth=0.5,
            hatch=HATCHES[place],
            label=part,
        )
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    for row, end in enumerate(begins):
        axes.annotate(
            duration(end), (end, row), (4, 0), textcoords="offset points", va="center", size=8.5
        )
    axes.set_yticks(range(len(timed)), [selector_label(row.selector) for row in timed])
    axes.set_ylim(len(timed) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds per step")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handleheight=1.2)
    return figure
