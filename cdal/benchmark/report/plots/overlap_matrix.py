"""The overlap of every two selectors' picks, as a matrix."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from cdal.benchmark.report.overlap import Overlap
from cdal.benchmark.report.plots.style import selector_label, styled


@styled
def overlap_matrix(found: Overlap, labelled: int) -> Figure:
    """Draw the Jaccard index of every two selectors' picks up to a number of labels."""
    names = found.selectors
    shares = np.full((len(names), len(names)), np.nan)
    for row, first in enumerate(names):
        for column, second in enumerate(names):
            share = found.at(first, second, labelled)
            if share is not None and row != column:
                shares[row, column] = share
    size = 1.8 + 0.62 * len(names)
    figure = Figure(figsize=(size + 1.2, size))
    axes = figure.add_subplot()
    axes.set_facecolor("#f3f3f3")
    highest = max(float(np.nanmax(shares, initial=0.0)), 0.01)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=highest)
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            colour = "white" if share > 0.6 * highest else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    labels = [selector_label(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    axes.grid(visible=False)
    axes.set_title(f"picked by both, % ({labelled:,} labels)")
    return figure
