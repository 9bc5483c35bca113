"""Segmentation in Label Studio's format: `PolygonLabels`, one polygon per region, in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import WITHOUT_PIXEL, Labelled, Reading, Region, number
from cdal.backend.annotations.masks import LabelMap, read_shapes
from cdal.backend.annotations.outlines import outlines_of
from cdal.backend.annotations.parts import parts_of
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Segmentation

MOST_POINTS = 20_000
"""A polygon with more points is not read: filling it takes seconds."""

LEAST_POINTS = 3

ROW_COST = 25
"""An edge takes as long for a row that it crosses as an area takes for so many pixels."""

FARTHEST = 10_000.0
"""Percent; points farther outside the image are moved here, where lengths can be computed with."""


@dataclass(frozen=True, slots=True, eq=False)
class PolygonShape:
    """A polygon.

    Attributes:
        label: index of its label.
        points: x and y in percent of the image's width and height, (N, 2) float32.
    """

    label: int
    points: npt.NDArray[np.float32]

    def cost(self, height: int, width: int) -> int:
        """The pixels of its bounding box, and the rows that its edges cross."""
        inside = np.clip(self.points / 100, 0, 1) * np.array([width, height])
        sides = inside.max(0) - inside.min(0) + 1
        crossed = np.abs(np.diff(inside[:, 1], append=inside[:1, 1])).sum()
        return int(sides.prod() + ROW_COST * (crossed + len(inside)))

    def paint(self, target: LabelMap) -> str | None:
        """Set the pixels whose centres lie inside to its label; says what is wrong if none do."""
        height, width = target.shape
        scale = np.array([width / 100, height / 100])
        return None if fill(target, self.points * scale, self.label) else WITHOUT_PIXEL

    def content(self) -> bytes:
        """The points."""
        return self.points.tobytes()


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Segmentation,
    size: tuple[int, int],
    settings: ProjectSettings,
) -> list[Region]:
    """A polygon per part of a class; a part comes before those inside it."""
    shape = height, width = tuple(finding.labels.shape)
    parts = parts_of(finding, control, classes, settings)
    shown = [part for part in parts if part.confidence >= (control.score_threshold or 0)]
    result: list[Region] = []
    for part, points in outlines_of(shown, shape, settings.polygon_tolerance):
        percent = np.clip(points * (100 / width, 100 / height), 0, 100).round(4)
        result.append(
            {
                "id": f"polygon{len(result)}",
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": "polygonlabels",
                "original_width": size[1],
                "original_height": size[0],
                "image_rotation": 0,
                "value": {
                    "points": percent.tolist(),
                    "closed": True,
                    "polygonlabels": [classes[part.value]],
                },
                "score": round(part.confidence, 4),
            }
        )
    return result


def read(control: Control, result: Sequence[Any], settings: ProjectSettings) -> Reading:
    """The regions in their order; those that cannot be read are left out."""
    return read_shapes(control, result, settings, _shape)


def _shape(found: Labelled, label: int) -> PolygonShape | None:
    points = _points(found.value)
    return None if points is None else PolygonShape(label, points)


def _points(value: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """The points, which may lie outside the image; None if they are damaged."""
    given = value.get("points")
    if not isinstance(given, list) or not LEAST_POINTS <= len(given) <= MOST_POINTS:
        return None
    points: list[tuple[float, float]] = []
    for point in given:
        if not isinstance(point, list) or len(point) != 2:
            return None
        x, y = number(point[0]), number(point[1])
        if x is None or y is None:
            return None
        points.append((x, y))
    return np.clip(np.array(points), -FARTHEST, FARTHEST).astype(np.float32)


EDGES_AT_ONCE = 256
"""Bounds the memory that a polygon of many long edges takes."""

CENTRE = 0.5


def fill(target: npt.NDArray[np.uint8], points: npt.NDArray[np.float64], value: int) -> bool:
    """Set the pixels inside a closed polygon to a value, in place; returns whether there are any.

    Inside is where the polygon winds around (the non-zero rule, a canvas' default). The polygon
    may reach beyond the target.

    Args:
        target: (H, W).
        points: x and y in pixels, where the first pixel goes from 0 to 1, (N, 2).
        value: the value to set.
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
        return False
    top, bottom = int(first[crossing].min()), int(stop[crossing].max())
    left = int(np.clip(np.floor(points[:, 0].min()), 0, width))
    right = int(np.clip(np.ceil(points[:, 0].max()), 0, width))
    # One more column for crossings at the right edge, behind which nothing is inside.
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
    return bool(inside.any())
