"""The plots of a benchmark: functions from data to a matplotlib figure.

Figures are not registered with pyplot, so none needs closing, and no display is needed.
"""

from cdal.benchmark.report.plots.by_value import by_value
from cdal.benchmark.report.plots.class_bars import class_bars
from cdal.benchmark.report.plots.class_curves import class_curves
from cdal.benchmark.report.plots.embedding import embed, embedding_picks
from cdal.benchmark.report.plots.learning_curves import learning_curves
from cdal.benchmark.report.plots.mixture_bars import PickedImage, mixture_bars
from cdal.benchmark.report.plots.overlap_matrix import overlap_matrix
from cdal.benchmark.report.plots.picture import Picture, as_png, as_svg, picture
from cdal.benchmark.report.plots.time_bars import time_bars

__all__ = [
    "PickedImage",
    "Picture",
    "as_png",
    "as_svg",
    "by_value",
    "class_bars",
    "class_curves",
    "embed",
    "embedding_picks",
    "learning_curves",
    "mixture_bars",
    "overlap_matrix",
    "picture",
    "time_bars",
]
