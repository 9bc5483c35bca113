"""Scores of some classes, curve by curve (the paper's figure 7b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from cdal.benchmark.report.plots.style import (
    HATCHES,
    class_colour,
    legend_label,
    per_cent,
    selector_label,
    styled,
)
from cdal.benchmark.report.statistics import Band


@styled
def class_groups(
    curves: Sequence[str], scores: Mapping[str, Sequence[Band | None]], label: str
) -> Figure:
    """Draw a group of bars per curve, one bar per class, with its 95% confidence interval.

    Args:
        curves: labels of the curves.
        scores: of each curve, by class.
        label: of the axis.
    """
    figure = Figure(figsize=(2.4 + 2.5 * len(curves), 4.0))
    axes = figure.add_subplot()
    wide = 0.84 / max(1, len(scores))
    for number, (name, bands) in enumerate(scores.items()):
        known = [(place, band) for place, band in enumerate(bands) if band is not None]
        axes.bar(
            [place - 0.42 + wide * (number + 0.5) for place, _ in known],
            [band.mean for _, band in known],
            width=wide * 0.9,
            color=class_colour(number),
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="white",
            linewidth=0,
            yerr=[band.margin or 0.0 for _, band in known],
            error_kw={"elinewidth": 0.8, "ecolor": "#222222"},
            label=legend_label(name),
        )
    axes.set_xticks(range(len(curves)), [selector_label(curve) for curve in curves], size=8)
    axes.set_ylim(0, min(axes.get_ylim()[1], 1.0))
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(f"{label}, %")
    per_cent(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handleheight=1.2)
    return figure
