"""Quality by the value of an option (the paper's figure 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from cdal.benchmark.report.formatting import metric_name
from cdal.benchmark.report.plots.style import legend_label, looks, per_cent, selector_label, styled
from cdal.benchmark.report.statistics import Band


@styled
def by_value(
    option: str, values: Sequence[str], bands: Mapping[str, Sequence[Band | None]], metric: str
) -> Figure:
    """Draw one line per selector: mean over seeds with its 95% confidence interval.

    Args:
        option: the option that differs between the runs.
        values: of the option, one per run.
        bands: by selector, one per run; None if it has none.
        metric: name of the metric.
    """
    figure = Figure(figsize=(8.2, 4.2))
    axes = figure.add_subplot()
    look = looks(list(bands))
    for number, (selector, row) in enumerate(bands.items()):
        known = [(place, band) for place, band in enumerate(row) if band is not None]
        # Side by side, so that no interval hides another.
        aside = 0.24 * ((number + 0.5) / len(bands) - 0.5)
        axes.errorbar(
            [place + aside for place, _ in known],
            [band.mean for _, band in known],
            yerr=[band.margin or 0.0 for _, band in known],
            color=look[selector].colour,
            marker=look[selector].marker,
            linestyle=look[selector].line,
            elinewidth=0.8,
            capsize=2,
            label=selector_label(selector),
        )
    axes.set_xticks(range(len(values)), [legend_label(value) for value in values])
    axes.set_xlabel(legend_label(option))
    axes.set_ylabel(f"{metric_name(metric)}, %")
    per_cent(axes)
    if bands:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3.4)
    return figure
