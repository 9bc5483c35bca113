"""Object detection in Label Studio's format: `RectangleLabels`.

A rectangle is given in percent of the image; a rotated one is turned clockwise about its top left
corner. It is read as its hull, the smallest upright box around it, and how it lies in it: its turn,
see cdal/models/detection/turned.py. Only some networks learn the latter.

A detector learns that there is no object where an image has no box. So an image on which a box
cannot be read teaches nothing, however many others it has: the object would be learnt as
background.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import (
    DAMAGED,
    TOO_SMALL,
    Reading,
    Region,
    number,
    original_size,
    regions_of,
    sizes_of,
)
from cdal.backend.settings import ProjectSettings
from cdal.models.detection.boxes import MIN_SIDE
from cdal.models.predictions import Detections

SCORE_THRESHOLD = 0.3
"""Boxes with a lower confidence are not shown, unless the control says otherwise: a detector
predicts hundreds of improbable ones."""

MOST_BOXES = 2000
"""An image with more boxes is not read: a detector compares each box with thousands of places,
which for so many takes half a second and 160 MB per training step."""

SMALLEST_SIDE = 1.0
"""Pixels; a smaller box shows nothing."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the image's sides."""

Turn = tuple[float, float]
"""How a box lies in its hull; (0, 0) if it is upright."""

UPRIGHT = 0.0, 0.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class BoxesTruth:
    """The boxes of an image; there may be none.

    Attributes:
        labels: the control's.
        boxes: their hulls as shares of the image's sides, (K, 4) float32.
        indices: among the labels, (K,) int64.
        turns: how they lie in their hulls, (K, 2) float32; None if none is rotated.
    """

    labels: tuple[str, ...]
    boxes: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    turns: npt.NDArray[np.float32] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The labels of the boxes."""
        return frozenset(self.labels[index] for index in self.indices)

    def unseen(self, height: int, width: int) -> int:
        """Number of boxes that are less than a pixel wide or high in an image of this size."""
        sides = (self.boxes[:, 2:] - self.boxes[:, :2]) * np.array([width, height])
        return int((sides < MIN_SIDE).any(1).sum())

    def target(self, height: int, width: int) -> Tensor:
        """Boxes in pixels and their classes, (K, 5) float32; also turns if any is rotated."""
        scale = np.array([width, height, width, height], np.float32)
        columns = [self.boxes * scale, self.indices]
        rows = np.column_stack(columns if self.turns is None else [*columns, self.turns])
        return torch.from_numpy(rows.astype(np.float32))

    def fit(self, height: int, width: int) -> tuple[Tensor, tuple[str, ...]]:
        """The target; nothing is left out."""
        return self.target(height, width), ()

    def digest(self) -> str:
        """A hash of boxes and labels."""
        names = [self.labels[index] for index in self.indices]
        turns = b"" if self.turns is None else self.turns.tobytes()
        said = self.boxes.tobytes() + turns + repr(names).encode()
        return hashlib.sha256(said).hexdigest()[:32]


def to_result(
    control: Control,
    classes: Sequence[str],
    finding: Detections,
    size: tuple[int, int],
    settings: ProjectSettings,  # noqa: ARG001 — none concerns boxes
) -> list[Region]:
    """A rectangle for each box that is confident enough."""
    threshold = SCORE_THRESHOLD if control.score_threshold is None else control.score_threshold
    height, width = size
    turns = [UPRIGHT] * len(finding.boxes) if finding.turns is None else finding.turns.tolist()
    rows = zip(
        finding.boxes.tolist(),
        turns,
        finding.labels.tolist(),
        finding.confidences.tolist(),
        strict=True,
    )
    result: list[Region] = []
    for (left, top, right, bottom), turn, index, confidence in rows:
        if confidence < threshold or classes[index] not in control.labels:
            continue
        if not _is_visible((left, top, right, bottom), size):
            continue
        value = {
            **_rectangle((left, top, right, bottom), turn, height / width),
            "rectanglelabels": [classes[index]],
        }
        result.append(
            {
                "id": f"box{len(result)}",
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                "score": round(confidence, 4),
            }
        )
    return result


def read(
    control: Control,
    result: Sequence[Any],
    settings: ProjectSettings,  # noqa: ARG001 — none concerns boxes
) -> Reading:
    """The boxes, clipped to the image; those without an extent on it are left out.

    The image teaches nothing if a box could not be read, or if none is left of those drawn. A box
    that is there twice, as after copying and pasting, is one object.
    """
    boxes: dict[tuple[Box, Turn, int], None] = {}
    left_out: list[str] = []
    turned = 0
    found = list(regions_of(control, result))
    for each in found:
        box = _box(each.value, original_size(each.region)) if each.label is not None else each.why
        if isinstance(box, str) or each.label is None:
            left_out.append(str(box))
            continue
        boxes[(*box, control.labels.index(each.label))] = None
        turned += box[1] != UPRIGHT
    sizes = sizes_of(found)
    if len(boxes) > MOST_BOXES:
        left_out += [f"among more than {MOST_BOXES:,} of one image"] * len(boxes)
    if set(left_out) - {TOO_SMALL} or (left_out and not boxes):
        return Reading(None, tuple(left_out), sizes)
    truth = BoxesTruth(
        labels=control.labels,
        boxes=np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        indices=np.array([index for _, _, index in boxes], np.int64),
        turns=np.array([turn for _, turn, _ in boxes], np.float32) if turned else None,
        warnings=(_turned(turned),) if turned else (),
    )
    return Reading(truth, tuple(left_out), sizes)


def _turned(count: int) -> str:
    if count == 1:
        return "A rotated box was taken as its upright hull."
    return f"{count} rotated boxes were taken as their upright hulls."


def _box(value: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[Box, Turn] | str:
    """The hull, clipped to the image, and the turn; or what is wrong with the box.

    A negative width or height is that of a box drawn towards the left or upwards.
    """
    x, y, width, height = (number(value.get(name)) for name in ("x", "y", "width", "height"))
    angle = number(value.get("rotation", 0) or 0)
    if x is None or y is None or width is None or height is None or angle is None:
        return DAMAGED
    if angle % 360 and size is None:
        return "that is rotated, without the image's size"
    corners = corners_of(value, 1.0 if size is None else size[0] / size[1])
    if not all(math.isfinite(side) for point in corners for side in point):
        return DAMAGED
    inside = [(min(max(x, 0.0), 100.0) / 100, min(max(y, 0.0), 100.0) / 100) for x, y in corners]
    left, right = (which(x for x, _ in inside) for which in (min, max))
    top, bottom = (which(y for _, y in inside) for which in (min, max))
    hull = left, top, right, bottom
    if not _is_visible(hull, size):
        return TOO_SMALL
    if angle % 90 == 0:
        return hull, UPRIGHT
    across, _ = min(inside, key=itemgetter(1))
    _, down = max(inside, key=itemgetter(0))
    return hull, ((across - left) / (right - left), (down - top) / (bottom - top))


def corners_of(value: Mapping[str, Any], ratio: float) -> tuple[Point, Point, Point, Point]:
    """The corners of a rectangle in percent, around it from the one that it is turned about.

    Args:
        value: has numbers as "x", "y", "width" and "height", and degrees as "rotation", if any.
        ratio: the image's height, divided by its width.
    """
    x, y, width, height = (float(value[name]) for name in ("x", "y", "width", "height"))
    angle = math.radians(float(value.get("rotation", 0) or 0) % 360)
    cosine, sine = math.cos(angle), math.sin(angle)
    along = width * cosine, width / ratio * sine
    beside = -height * ratio * sine, height * cosine
    return (
        (x, y),
        (x + along[0], y + along[1]),
        (x + along[0] + beside[0], y + along[1] + beside[1]),
        (x + beside[0], y + beside[1]),
    )


def _rectangle(hull: Box, turn: Turn, ratio: float) -> dict[str, float]:
    """A rectangle as Label Studio has it, given its hull and turn; see `corners_of`.

    It is turned by -45 to 45 degrees, so that an upright one has its usual corner and sides.
    """
    left, top, right, bottom = (100 * side for side in hull)
    wide, high = right - left, (bottom - top) * ratio
    across, down = turn[0] * wide, turn[1] * high
    # In percent of the width: from the topmost corner to the rightmost, and to the leftmost.
    along, beside = math.hypot(wide - across, down), math.hypot(across, high - down)
    angle = math.degrees(math.atan2(down, wide - across))
    if angle <= 45:
        x, y, width, height = left + across, top, along, beside
    else:
        x, y, width, height, angle = left, bottom - down / ratio, beside, along, angle - 90
    return {
        "x": round(x, 4),
        "y": round(y, 4),
        "width": round(width, 4),
        "height": round(height / ratio, 4),
        "rotation": round(angle % 360, 4) % 360,
    }


def _is_visible(box: Box, size: tuple[int, int] | None) -> bool:
    """Whether a box is at least a pixel wide and high, or not empty if the size is unknown."""
    left, top, right, bottom = box
    if size is None:
        return right > left and bottom > top
    tiny = SMALLEST_SIDE - 1e-3  # percentages are rounded
    return (right - left) * size[1] >= tiny and (bottom - top) * size[0] >= tiny
