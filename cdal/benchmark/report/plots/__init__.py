"""The plots of a benchmark: functions from data to a matplotlib figure.

Figures are not registered with pyplot, so none needs closing, and no display is needed.
"""

from cdal.benchmark.report.plots.by_value import by_value
from cdal.benchmark.report.plots.class_bars import class_bars
from cdal.benchmark.report.plots.class_curves import class_curves
from cdal.benchmark.report.plots.class_groups import class_groups
from cdal.benchmark.report.plots.contexts import Context, one_region, runs_side_by_side
from cdal.benchmark.report.plots.embedding import embed, embedding_picks, picks_together
from cdal.benchmark.report.plots.learning_curves import Panel, curve_panels, learning_curves
from cdal.benchmark.report.plots.mixture_bars import PickedImage, mixture_bars
from cdal.benchmark.report.plots.overlap_matrix import overlap_matrix
from cdal.benchmark.report.plots.picture import Picture, as_png, as_svg, picture
from cdal.benchmark.report.plots.time_bars import time_bars

__all__ = [
    "Context",
    "Panel",
    "PickedImage",
    "Picture",
    "as_png",
    "as_svg",
    "by_value",
    "class_bars",
    "class_curves",
    "class_groups",
    "curve_panels",
    "embed",
    "embedding_picks",
    "learning_curves",
    "mixture_bars",
    "one_region",
    "overlap_matrix",
    "picks_together",
    "picture",
    "runs_side_by_side",
    "time_bars",
]
