"""Scores of single classes by number of labels."""

from __future__ import annotations

from math import ceil

from matplotlib.figure import Figure

from cdal.benchmark.report.classes import RareClasses
from cdal.benchmark.report.formatting import class_metric_name
from cdal.benchmark.report.plots.style import legend_label, looks, per_cent, selector_label, styled

MOST = 12
"""Most classes drawn."""
COLUMNS = 3


@styled
def class_curves(found: RareClasses, metric: str) -> Figure:
    """Draw a plot for each rare class, with one curve per selector: the mean over the seeds."""
    classes = found.classes[:MOST]
    columns = min(COLUMNS, len(classes))
    rows = ceil(len(classes) / columns)
    figure = Figure(figsize=(1.6 + 2.5 * columns, 0.7 + 2.1 * rows))
    look = looks(found.selectors)
    lines = {}
    for place, name in enumerate(classes):
        axes = figure.add_subplot(rows, columns, place + 1)
        for selector in found.selectors:
            curve = found.curves.get((name, selector), {})
            (lines[selector],) = axes.plot(
                sorted(curve),
                [curve[labelled] for labelled in sorted(curve)],
                color=look[selector].colour,
                linestyle=look[selector].line,
                marker=look[selector].marker,
                markersize=3.5,
                linewidth=1.4,
            )
        axes.set_title(legend_label(name))
        axes.set_ylim(bottom=0)
        per_cent(axes)
        if place % columns == 0:
            axes.set_ylabel(f"{class_metric_name(metric)}, %")
        if place + columns >= len(classes):
            axes.set_xlabel("labelled images")
    figure.legend(
        list(lines.values()),
        [selector_label(selector) for selector in lines],
        loc="outside right center",
        handlelength=3.4,
    )
    return figure
