"""Scores by class."""

from __future__ import annotations

from matplotlib.figure import Figure

from cdal.benchmark.report.classes import PerClass
from cdal.benchmark.report.formatting import class_metric_name
from cdal.benchmark.report.plots.style import legend_label, looks, per_cent, selector_label, styled

MOST = 20
"""Most classes drawn; of more, those on which the selectors differ most."""


@styled
def class_bars(found: PerClass, metric: str) -> Figure:
    """Draw one bar per class and selector, with the 95% confidence interval of its mean."""
    classes = _most_different(found)
    count = max(len(found.selectors), 1)
    thick = 0.84 / count
    figure = Figure(figsize=(8.2, max(2.2, 0.9 + len(classes) * (0.2 + 0.115 * count))))
    axes = figure.add_subplot()
    look = looks(found.selectors)
    for place, selector in enumerate(found.selectors):
        rows = [row for row, name in enumerate(classes) if (name, selector) in found.scores]
        bands = [found.scores[classes[row], selector] for row in rows]
        axes.barh(
            [row - 0.42 + thick * (place + 0.5) for row in rows],
            [band.mean for band in bands],
            height=thick * 0.9,
            color=look[selector].colour,
            edgecolor="white",
            linewidth=0,
            hatch=look[selector].hatch,
            xerr=[band.margin or 0.0 for band in bands],
            error_kw={"elinewidth": 0.8, "ecolor": "#222222"},
            label=selector_label(selector),
        )
    axes.set_yticks(range(len(classes)), [legend_label(name) for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    # With few seeds, intervals extend beyond what is possible.
    axes.set_xlim(0, min(axes.get_xlim()[1], 1.0))
    axes.grid(visible=False, axis="y")
    per_cent(axes, "x")
    axes.set_xlabel(f"{class_metric_name(metric)}, %")
    if len(classes) < len(found.classes):
        axes.set_title(f"the {len(classes)} of {len(found.classes)} classes that differ most")
    if found.selectors:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handleheight=1.2)
    return figure


def _most_different(found: PerClass) -> list[str]:
    """All classes, or if there are many, those with the widest range of means; in order."""
    if len(found.classes) <= MOST:
        return list(found.classes)

    def width(name: str) -> float:
        means = [
            found.scores[name, selector].mean
            for selector in found.selectors
            if (name, selector) in found.scores
        ]
        return max(means) - min(means)

    widest = set(sorted(found.classes, key=width, reverse=True)[:MOST])
    return [name for name in found.classes if name in widest]
