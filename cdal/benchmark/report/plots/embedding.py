"""Where in the pool selectors pick (the paper's figure 7a)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from cdal.benchmark.report.plots.style import looks, selector_label, styled

_ROUNDING = 1e-6
"""Of float32, as a share of what is rounded."""


def embed(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Lay out images in the plane by their features, with t-SNE.

    Args:
        features: (N, D) float32, N at least 4.
        seed: of the layout; the same features and seed give the same layout.

    Returns:
        (N, 2) float32.
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    scale = centred.std()
    # The images differ only by rounding: scikit-learn's Barnes-Hut tree crashes on what its PCA
    # makes of that.
    if scale <= _ROUNDING * np.abs(features).max():
        return np.zeros((len(features), 2), dtype=np.float32)
    layout = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca" if features.shape[1] > 1 else "random",
        random_state=seed,
    )
    points: NDArray[np.float32] = layout.fit_transform((centred / scale).astype(np.float32))
    return points


@styled
def embedding_picks(
    points: NDArray[np.float32], picks: Mapping[str, Sequence[int]], labelled: Sequence[int] = ()
) -> Figure:
    """Draw the pool once per selector, with its picks.

    Args:
        points: places of all N images, (N, 2).
        picks: rows of the picked images by selector.
        labelled: rows of the images that were already labelled.
    """
    figure = Figure(figsize=(4.1 * max(len(picks), 1), 4.3))
    look = looks(list(picks))
    for place, (selector, rows) in enumerate(picks.items()):
        axes = figure.add_subplot(1, len(picks), place + 1)
        rest = np.ones(len(points), dtype=bool)
        rest[[*rows, *labelled]] = False
        small = 30 if len(points) < 300 else 9
        axes.scatter(
            points[rest, 0], points[rest, 1], s=small, color="#c4c4c4", linewidths=0, label="pool"
        )
        _mark_labelled(axes, points[list(labelled)], small)
        axes.scatter(
            points[list(rows), 0],
            points[list(rows), 1],
            s=small * (8 if look[selector].marker == "*" else 3),
            marker=look[selector].marker,
            color=look[selector].colour,
            edgecolors="white",
            linewidths=0.5,
            label="picked",
        )
        axes.set_title(f"{selector_label(selector)}\n{len(rows):,} picks")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, columnspacing=1.2)
    return figure


@styled
def picks_together(
    points: NDArray[np.float32], picks: Mapping[str, Sequence[int]], labelled: Sequence[int] = ()
) -> Figure:
    """Draw the pool once, with the picks of all selectors; see ``embedding_picks``."""
    figure = Figure(figsize=(7.4, 6.0))
    axes = figure.add_subplot()
    small = 30 if len(points) < 300 else 9
    axes.scatter(points[:, 0], points[:, 1], s=small, color="#d4d4d4", linewidths=0, label="pool")
    _mark_labelled(axes, points[list(labelled)], small)
    look = looks(list(picks))
    for place, (selector, rows) in enumerate(picks.items()):
        axes.scatter(
            points[list(rows), 0],
            points[list(rows), 1],
            # Rings of growing size, so that an image that several picked shows it.
            s=small * (3 + 3 * place),
            marker="o",
            facecolors="none",
            edgecolors=look[selector].colour,
            linewidths=1.4,
            label=f"{selector_label(selector)}, {len(rows):,} picks",
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _mark_labelled(axes: Axes, points: NDArray[np.float32], small: float) -> None:
    """Mark the images that were labelled before, (L, 2)."""
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=small * 1.8,
        marker="+",
        color="black",
        linewidths=0.8,
        label="already labelled",
    )
