"""Picked images with their class mixtures beside them (the paper's figures 1 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from cdal.benchmark.report.plots.style import GREY, HATCHES, class_colour, legend_label, styled

MIXTURES = 3
"""Mixtures drawn per image: the most uncertain."""
BARS = 5
"""Classes drawn per mixture: the most probable."""
IGNORED = 255


@dataclass(frozen=True, slots=True, eq=False)
class PickedImage:
    """A picked image with its regions and class mixtures.

    Attributes:
        title: written above it.
        image: (H, W, 3) uint8.
        mixtures: class mixtures, (R, C) float32; R is C, or 1 for one mixture per image.
        present: which mixtures exist, (R,) bool.
        mask: class index of each pixel, (H, W) uint8, 255 for none; or None.
        boxes: (K, 5) float32: left, top, right and bottom in pixels, class index; or None.
    """

    title: str
    image: NDArray[np.uint8]
    mixtures: NDArray[np.float32]
    present: NDArray[np.bool_]
    mask: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None


@styled
def mixture_bars(pictures: Sequence[PickedImage], classes: Sequence[str]) -> Figure:
    """Draw one row per image: the image with its regions, and its most uncertain mixtures.

    Args:
        pictures: the images.
        classes: names of the C classes.
    """
    figure = Figure(figsize=(10.4, 2.15 * max(len(pictures), 1)))
    if not pictures:
        return figure
    columns = max(min(MIXTURES, int(picture.present.sum())) for picture in pictures)
    grid = figure.add_gridspec(
        len(pictures), 1 + max(columns, 1), width_ratios=[1.5, *[1.0] * max(columns, 1)]
    )
    for row, picture in enumerate(pictures):
        shown = _most_uncertain(picture)
        _image(figure.add_subplot(grid[row, 0]), picture, shown)
        for column, region in enumerate(shown):
            axes = figure.add_subplot(grid[row, 1 + column])
            one = len(picture.mixtures) == 1
            title = "whole image" if one else f"where predicted as {classes[region]}"
            axes.set_title(legend_label(title), size=9)
            draw_mixture(axes, picture.mixtures[region], classes, None if one else region)
    return figure


def _most_uncertain(picture: PickedImage) -> list[int]:
    """Rows of the mixtures with the highest entropy."""
    clipped = np.clip(picture.mixtures, 1e-12, 1)
    entropy = -(picture.mixtures * np.log2(clipped)).sum(1)
    order = np.argsort(np.where(picture.present, -entropy, np.inf), kind="stable")
    return [int(row) for row in order[: min(MIXTURES, int(picture.present.sum()))]]


def _image(axes: Axes, picture: PickedImage, shown: Sequence[int]) -> None:
    axes.imshow(picture.image, interpolation="nearest")
    axes.set_title(legend_label(picture.title), size=9)
    axes.axis("off")
    if picture.mask is not None:
        for index in np.unique(picture.mask[picture.mask != IGNORED]):
            inside = (picture.mask == index).astype(float)
            axes.contourf(inside, levels=[0.5, 1.5], colors=[class_colour(int(index))], alpha=0.35)
            if 0 < inside.mean() < 1:
                axes.contour(inside, levels=[0.5], colors=[class_colour(int(index))], linewidths=1)
    if picture.boxes is not None:
        for left, top, right, bottom, index in picture.boxes.tolist():
            axes.add_patch(
                Rectangle(
                    (left - 0.5, top - 0.5),
                    right - left,
                    bottom - top,
                    fill=False,
                    edgecolor=class_colour(int(index)),
                    linewidth=2 if int(index) in shown else 1.2,
                )
            )


def draw_mixture(
    axes: Axes, mixture: NDArray[np.float32], classes: Sequence[str], own: int | None
) -> None:
    """Draw the most probable classes of a mixture, and the rest as one bar."""
    order = np.argsort(-mixture, kind="stable")[:BARS].tolist()
    names = [legend_label(classes[index]) for index in order]
    axes.barh(
        range(len(order)),
        mixture[order],
        color=[class_colour(index) for index in order],
        hatch=[HATCHES[1] if index == own else "" for index in order],
        edgecolor="white",
        linewidth=0,
    )
    rest = float(mixture.sum() - mixture[order].sum())
    if len(order) < len(mixture):
        axes.barh([len(order)], [max(rest, 0.0)], color=GREY)
        names.append("all others")
    axes.set_yticks(range(len(names)), names, size=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"], size=8)
    axes.grid(visible=False, axis="y")
