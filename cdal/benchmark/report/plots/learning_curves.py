"""Quality by number of labels (the paper's figures 3 to 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from cdal.benchmark.report.formatting import metric_name
from cdal.benchmark.report.plots.style import (
    GREY,
    Look,
    legend_label,
    looks,
    per_cent,
    selector_label,
    styled,
)
from cdal.benchmark.report.summary import BASELINE, Summary

MOST_TICKS = 8
"""Most budgets that each get a tick."""
LEAST_HEIGHT = 0.02
"""Least height of the plot, in the metric: curves that differ less are drawn flat."""


@styled
def learning_curves(summaries: Sequence[Summary], metric: str, pool: int) -> Figure:
    """Draw one curve per selector: mean over seeds, with its 95% confidence band.

    Args:
        summaries: of the selectors.
        metric: name of the metric.
        pool: number of images in the pool; a second axis shows labels as a share of it.
    """
    figure = Figure(figsize=(8.2, 4.6))
    _panel(figure.add_subplot(), summaries, metric, pool, _looks(summaries))
    return figure


@dataclass(frozen=True, slots=True)
class Panel:
    """The learning curves of one run, beside those of others.

    Attributes:
        title: above the plot.
        summaries: of the selectors.
        metric: name of the metric.
        pool: number of images in the pool.
    """

    title: str
    summaries: Sequence[Summary]
    metric: str
    pool: int


@styled
def curve_panels(panels: Sequence[Panel]) -> Figure:
    """Draw the learning curves of several runs side by side, two in a row."""
    columns = min(2, max(1, len(panels)))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(8.2 * columns, 4.8 * rows))
    look = _looks([summary for panel in panels for summary in panel.summaries])
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        _panel(axes, panel.summaries, panel.metric, panel.pool, look)
        axes.set_title(legend_label(panel.title))
    return figure


def _looks(summaries: Sequence[Summary]) -> dict[str, Look]:
    return looks([summary.selector for summary in summaries])


def _panel(
    axes: Axes, summaries: Sequence[Summary], metric: str, pool: int, look: Mapping[str, Look]
) -> None:
    for summary in summaries:
        _curve(axes, summary, look[summary.selector])
    _target(axes, summaries)
    _limit_height(axes, summaries)
    axes.set_xlabel("labelled images")
    axes.set_ylabel(f"{metric_name(metric)}, %")
    per_cent(axes)
    budgets = sorted({labelled for summary in summaries for labelled in summary.curve})
    few = len(budgets) <= MOST_TICKS
    axes.xaxis.set_major_locator(FixedLocator(budgets) if few else MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
    if pool > 0:
        share = axes.secondary_xaxis(
            "top",
            functions=(
                lambda labels: np.divide(labels, pool),
                lambda part: np.multiply(part, pool),
            ),
        )
        share.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{100 * value:g}%"))
        share.set_xlabel("share of the pool", color=GREY)
        share.tick_params(colors=GREY)
    _legend(axes, summaries)


def _curve(axes: Axes, summary: Summary, look: Look) -> None:
    labels = sorted(summary.curve)
    bands = [summary.curve[label] for label in labels]
    axes.fill_between(
        labels,
        [band.low for band in bands],
        [band.high for band in bands],
        color=look.colour,
        alpha=0.12,
        linewidth=0,
    )
    axes.plot(
        labels,
        [band.mean for band in bands],
        color=look.colour,
        marker=look.marker,
        markersize=8 if look.marker == "*" else 5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linestyle=look.line,
        linewidth=1.8,
        label=selector_label(summary.selector),
    )


def _target(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Draw a line at random's final value."""
    for summary in summaries:
        if summary.selector == BASELINE and summary.complete and len(summary.curve) > 1:
            height = summary.curve[max(summary.curve)].mean
            axes.axhline(height, color=GREY, linewidth=0.8, zorder=0.5)


def _limit_height(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Keep the very wide bands of few seeds from squeezing the curves."""
    bands = [band for summary in summaries for band in summary.curve.values()]
    if not bands:
        return
    means = [band.mean for band in bands]
    room = max(max(means) - min(means), LEAST_HEIGHT)
    bottom = max(min(band.low for band in bands), min(means) - room, 0.0)
    top = min(max(band.high for band in bands), max(means) + room, 1.0)
    margin = 0.05 * max(top - bottom, LEAST_HEIGHT)
    axes.set_ylim(bottom - margin, top + margin)


def _legend(axes: Axes, summaries: Sequence[Summary]) -> None:
    """Put the legend beside the plot, in the order in which the curves end."""
    if not summaries:
        return
    handles, names = axes.get_legend_handles_labels()
    heights = [summary.curve[max(summary.curve)].mean for summary in summaries]
    order = sorted(range(len(heights)), key=lambda place: -heights[place])
    axes.legend(
        [handles[place] for place in order],
        [names[place] for place in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        handlelength=3.4,
    )
