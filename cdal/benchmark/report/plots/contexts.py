"""Regions in their context, with the mixtures of their classes (the paper's figures 1 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cdal.benchmark.report.plots.mixture_bars import IGNORED, draw_mixture
from cdal.benchmark.report.plots.style import class_colour, legend_label, selector_label, styled

SHADE = 0.55
"""How much of a region's colour covers its pixels."""
INSET = 0.34
"""The width of an inset, as a share of its image's."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """An image, and how some classes are confused in it.

    Attributes:
        title: above it.
        image: (H, W, 3) uint8.
        truth: class index of each pixel, (H, W) uint8, 255 for none.
        mixtures: class mixtures, (C, C) float32.
        present: which of them exist, (C,) bool.
        predicted: class index of each pixel, (h, w) uint8, of any size; or None.
    """

    title: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    mixtures: NDArray[np.float32]
    present: NDArray[np.bool_]
    predicted: NDArray[np.uint8] | None = None


@styled
def one_region(contexts: Sequence[Context], classes: Sequence[str], label: int) -> Figure:
    """Draw images with their region of one class, and its mixture beside each (figure 1).

    Args:
        contexts: the images, two in a row.
        classes: names of the C classes.
        label: index of the class.
    """
    rows = max(1, -(-len(contexts) // 2))
    figure = Figure(figsize=(12.4, 2.5 * rows))
    grid = figure.add_gridspec(rows, 4, width_ratios=[1.3, 1, 1.3, 1])
    for place, context in enumerate(contexts):
        left = figure.add_subplot(grid[place // 2, 2 * (place % 2)])
        _picture(left, context, [label])
        left.set_title(legend_label(context.title), size=9)
        right = figure.add_subplot(grid[place // 2, 2 * (place % 2) + 1])
        right.set_title(legend_label(f"where predicted as {classes[label]}"), size=9)
        if context.present[label]:
            draw_mixture(right, context.mixtures[label], classes, label)
        else:
            right.set_axis_off()
    return figure


@styled
def runs_side_by_side(
    runs: Sequence[tuple[str, Sequence[Context]]], classes: Sequence[str], labels: Sequence[int]
) -> Figure:
    """Draw the first picks of several runs, one column per run (figure 8).

    Each pick has insets of its truth (above) and its prediction (below), and under it the mixtures
    of the classes.

    Args:
        runs: label and picks of each run.
        classes: names of the C classes.
        labels: indices of the classes whose regions and mixtures are drawn.
    """
    count = max((len(contexts) for _, contexts in runs), default=0)
    wide = len(labels)
    figure = Figure(figsize=(2.0 * wide * max(1, len(runs)), 3.6 * max(1, count)))
    heights = [1.6, 1.0] * max(1, count)
    grid = figure.add_gridspec(2 * max(1, count), wide * max(1, len(runs)), height_ratios=heights)
    for column, (name, contexts) in enumerate(runs):
        for row, context in enumerate(contexts):
            span = slice(wide * column, wide * (column + 1))
            axes = figure.add_subplot(grid[2 * row, span])
            _picture(axes, context, labels)
            _insets(axes, context, labels)
            axes.set_title(selector_label(name) if row == 0 else "", size=9)
            for number, label in enumerate(labels):
                below = figure.add_subplot(grid[2 * row + 1, wide * column + number])
                below.set_title(legend_label(classes[label]), size=8)
                if context.present[label]:
                    draw_mixture(below, context.mixtures[label], classes, label)
                else:
                    below.set_axis_off()
    return figure


def _picture(axes: Axes, context: Context, labels: Sequence[int]) -> None:
    axes.imshow(_shaded(context.image, context.truth, labels))
    axes.set_axis_off()


def _insets(axes: Axes, context: Context, labels: Sequence[int]) -> None:
    masks = [context.truth, *([] if context.predicted is None else [context.predicted])]
    for place, mask in enumerate(masks):
        inset = axes.inset_axes((0.64, 0.64 - INSET * 1.05 * place, INSET, INSET))
        blank = np.full((*mask.shape, 3), 235, dtype=np.uint8)
        inset.imshow(_shaded(blank, mask, labels, shade=1.0))
        inset.set_xticks([])
        inset.set_yticks([])


def _shaded(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], labels: Sequence[int], shade: float = SHADE
) -> NDArray[np.uint8]:
    """The image with the pixels of these classes in their colours."""
    shown = image.astype(np.float64)
    for label in labels:
        colour = 255 * np.array(class_colour(label))
        where = (mask == label) & (mask != IGNORED)
        shown[where] += shade * (colour - shown[where])
    return shown.round().astype(np.uint8)
