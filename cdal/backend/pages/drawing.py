"""Drawings: what the model said of an image, as shapes that are laid over its thumbnail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2

from cdal.backend.findings import unpack
from cdal.backend.formats import to_result
from cdal.backend.formats.masks import Part, parts_of
from cdal.backend.labeling import Control
from cdal.backend.predictions import FINDINGS
from cdal.backend.settings import ProjectSettings
from cdal.models import Segmentation

MOST_SHAPES = 60
"""Of an image; the largest."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A box or an area.

    Attributes:
        name: of its class.
        index: of its class, which gives its colour.
        confidence: the model's, in [0, 1].
        path: its outline as SVG has it.
        left: where its name is written.
        top: likewise.
        area: in pixels.
    """

    name: str
    index: int
    confidence: float
    path: str
    left: float
    top: float
    area: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the model said of one image.

    Attributes:
        width: of the picture that the shapes lie on.
        height: likewise.
        label: of the whole image, with its confidence; None where there are shapes.
        shapes: the largest first.
        words: all of it, for those who cannot see it.
    """

    width: int
    height: int
    label: str | None
    confidence: float | None
    shapes: tuple[Shape, ...]
    words: str


def drawing_of(
    control: Control, settings: ProjectSettings, classes: Sequence[str], packed: dict[str, Any]
) -> Drawing | None:
    """What was said of an image; None where it was said by a model of another task."""
    finding, (height, width) = unpack(packed)
    if not isinstance(finding, FINDINGS[control.task]):
        return None
    if isinstance(finding, Segmentation):
        size = tuple(finding.labels.shape)
        parts = sorted(parts_of(finding, control, classes, settings), key=lambda part: -part.area)
        shapes = [_of_part(part, classes, width / size[1], height / size[0]) for part in parts]
        return _of_shapes(width, height, shapes)
    result = to_result(control, classes, finding, (height, width), settings)
    if control.task == "classification":
        if not result:
            return Drawing(width, height, None, None, (), "nothing it is sure enough of")
        label, confidence = result[0]["value"]["choices"][0], result[0]["score"]
        return Drawing(width, height, label, confidence, (), f"{label}, {confidence:.0%} sure")
    return _of_shapes(width, height, [_of_box(region, classes, width, height) for region in result])


def _of_shapes(width: int, height: int, shapes: Sequence[Shape]) -> Drawing:
    names = list(dict.fromkeys(shape.name for shape in shapes))
    counts = [f"{sum(s.name == name for s in shapes)} {name}" for name in names]
    largest = sorted(shapes, key=lambda shape: -shape.area)[:MOST_SHAPES]
    words = ", ".join(counts) or "nothing it is sure enough of"
    return Drawing(width, height, None, None, tuple(largest), words)


def _of_box(region: dict[str, Any], classes: Sequence[str], width: int, height: int) -> Shape:
    value = region["value"]
    left, top = value["x"] * width / 100, value["y"] * height / 100
    wide, high = value["width"] * width / 100, value["height"] * height / 100
    name = value["rectanglelabels"][0]
    path = f"M{left:.1f} {top:.1f}h{wide:.1f}v{high:.1f}h{-wide:.1f}z"
    return Shape(name, classes.index(name), region["score"], path, left, top, wide * high)


def _of_part(part: Part, classes: Sequence[str], across: float, down: float) -> Shape:
    outlines, _ = cv2.findContours(part.mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    path = "".join(
        "M"
        + "L".join(
            f"{(part.left + x + 0.5) * across:.1f} {(part.top + y + 0.5) * down:.1f}"
            for x, y in outline[:, 0].tolist()
        )
        + "z"
        for outline in (cv2.approxPolyDP(outline, 0.7, closed=True) for outline in outlines)
    )
    return Shape(
        name=classes[part.value],
        index=part.value,
        confidence=part.confidence,
        path=path,
        left=part.left * across,
        top=part.top * down,
        area=part.area * across * down,
    )
