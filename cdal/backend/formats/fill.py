"""Filling a polygon as a browser's canvas does: the pixels whose centres lie inside.

OpenCV and Pillow fill the outline too, which makes everything a pixel wider.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

EDGES_AT_ONCE = 256
"""Bounds the memory that a polygon of many long edges takes."""

CENTRE = 0.5


def fill(target: npt.NDArray[np.uint8], points: npt.NDArray[np.float64], value: int) -> None:
    """Set the pixels inside a closed polygon to a value, in place.

    Inside is where the polygon winds around (the non-zero rule, a canvas' default).

    Args:
        target: (H, W).
        points: x and y in pixels, where the first pixel goes from 0 to 1, (N, 2).
        value: to be set.
    """
    height, width = target.shape
    ends = np.roll(points, -1, axis=0)
    # Always downwards, so that both directions of a line round to the same pixels.
    turned = points[:, 1] > ends[:, 1]
    upper = np.where(turned[:, None], ends, points)
    lower = np.where(turned[:, None], points, ends)
    sign = np.where(turned, -1, 1).astype(np.int32)
    first = np.clip(np.ceil(upper[:, 1] - CENTRE), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(lower[:, 1] - CENTRE), 0, height).astype(np.int64)
    crossing = np.flatnonzero(stop > first)
    if not crossing.size:
        return
    top, bottom = int(first[crossing].min()), int(stop[crossing].max())
    left = int(np.clip(np.floor(points[:, 0].min()), 0, width))
    right = int(np.clip(np.ceil(points[:, 0].max()), 0, width))
    # One column more: whatever is crossed at the right edge is never entered.
    shape = bottom - top, right - left + 1
    turns = np.zeros(shape, np.int32)
    for start in range(0, crossing.size, EDGES_AT_ONCE):
        edges = crossing[start : start + EDGES_AT_ONCE]
        counts = stop[edges] - first[edges]
        edge = np.repeat(edges, counts)
        row = np.arange(edge.size) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
        x = x0 + (row + CENTRE - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(x - CENTRE), left, right).astype(np.int64)
        np.add.at(turns, (row - top, column - left), sign[edge])
    np.cumsum(turns, axis=1, out=turns)
    inside = turns[:, :-1] != 0
    target[top:bottom, left:right][inside] = value
