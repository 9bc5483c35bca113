"""Drawings: a prediction as shapes over the thumbnail of its image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from cdal.backend.annotations import to_result
from cdal.backend.annotations.control import Control
from cdal.backend.annotations.packing import unpack
from cdal.backend.annotations.parts import Part, parts_of
from cdal.backend.annotations.rectangles import corners_of
from cdal.backend.loop.predictions import FINDINGS
from cdal.backend.settings import ProjectSettings
from cdal.models import Multilabel, Segmentation

MOST_SHAPES = 60
"""Shapes drawn per image; the largest."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A box or an area.

    Attributes:
        name: of its class.
        index: of its class, which gives its colour.
        confidence: of the model, in [0, 1].
        path: its outline as an SVG path.
        x: horizontal position of its name, in pixels.
        y: vertical position of its name, in pixels.
        area: in pixels.
    """

    name: str
    index: int
    confidence: float
    path: str
    x: float
    y: float
    area: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """The prediction of one image.

    Attributes:
        width: of the image, in pixels.
        height: of the image, in pixels.
        label: of the whole image; None where there are shapes.
        confidence: of the label, in [0, 1].
        shapes: the largest first.
        words: all of it, for screen readers.
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
    """The drawing of a prediction; None where a model of another task made it."""
    finding, (height, width) = unpack(packed)
    classes = control.names_of(classes)
    if not isinstance(finding, FINDINGS[control.task]):
        return None
    if isinstance(finding, Segmentation):
        size = tuple(finding.labels.shape)
        parts = sorted(parts_of(finding, control, classes, settings), key=lambda part: -part.area)
        shapes = [_of_part(part, classes, width / size[1], height / size[0]) for part in parts]
        return _of_shapes(width, height, shapes, _shares(shapes, width * height))
    result = to_result(control, classes, finding, (height, width), settings)
    if isinstance(finding, Multilabel):
        likely = result[0]["value"]["choices"] if result else []
        sure = dict(zip(classes, finding.probabilities.tolist(), strict=True))
        said = ", ".join(f"{name} {sure[name]:.0%}" for name in likely)
        label = ", ".join(likely) or None
        return Drawing(width, height, label, None, (), said or "nothing with enough confidence")
    if control.task == "classification":
        if not result:
            return Drawing(width, height, None, None, (), "nothing with enough confidence")
        label, confidence = result[0]["value"]["choices"][0], result[0]["score"]
        return Drawing(width, height, label, confidence, (), f"{label}, {confidence:.0%} sure")
    shapes = [_of_box(region, classes, width, height) for region in result]
    counts = Counter(shape.name for shape in shapes)
    return _of_shapes(width, height, shapes, [f"{n} {name}" for name, n in counts.items()])


def together(drawings: Sequence[Drawing]) -> Drawing | None:
    """The predictions of several controls as one drawing; None without any."""
    if not drawings:
        return None
    first = next((drawing for drawing in drawings if drawing.label is not None), drawings[0])
    shapes = sorted((s for d in drawings for s in d.shapes), key=lambda shape: -shape.area)
    return replace(
        first,
        shapes=tuple(shapes[:MOST_SHAPES]),
        words="; ".join(drawing.words for drawing in drawings),
    )


def _of_shapes(width: int, height: int, shapes: Sequence[Shape], words: Sequence[str]) -> Drawing:
    largest = sorted(shapes, key=lambda shape: -shape.area)[:MOST_SHAPES]
    said = ", ".join(words) or "nothing with enough confidence"
    return Drawing(width, height, None, None, tuple(largest), said)


def _shares(shapes: Sequence[Shape], area: float) -> list[str]:
    """How much of the image each class covers, the largest first."""
    covered: Counter[str] = Counter()
    for shape in shapes:
        covered[shape.name] += round(shape.area)
    return [f"{name} {pixels / area:.0%}" for name, pixels in covered.most_common()]


def _of_box(region: dict[str, Any], classes: Sequence[str], width: int, height: int) -> Shape:
    value = region["value"]
    corners = [(x * width / 100, y * height / 100) for x, y in corners_of(value, height / width)]
    name = value["rectanglelabels"][0]
    path = f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in corners)}z"
    return Shape(
        name=name,
        index=classes.index(name),
        confidence=region["score"],
        path=path,
        x=(min(x for x, _ in corners) + max(x for x, _ in corners)) / 2,
        y=min(y for _, y in corners),
        area=value["width"] * width / 100 * value["height"] * height / 100,
    )


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
    # Its name goes where the part is widest, which may not be its middle.
    inside = cv2.distanceTransform(np.pad(part.mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = divmod(int(inside.argmax()), inside.shape[1])
    return Shape(
        name=classes[part.value],
        index=part.value,
        confidence=part.confidence,
        path=path,
        x=(part.left + column + 0.5) * across,
        y=(part.top + row + 0.5) * down,
        area=part.area * across * down,
    )
