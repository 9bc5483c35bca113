"""Object detection in Label Studio's format: `RectangleLabels`.

A rectangle is given in percent of the image; a rotated one is turned clockwise about its top left
corner, and is read as its upright hull, the smallest upright box around it.

A detector learns that there is no object where an image has no box. So an image on which a box
cannot be read teaches nothing, however many others it has: the object would be learnt as
background.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, eq=False)
class BoxesTruth:
    """The boxes of an image; there may be none.

    Attributes:
        labels: the control's.
        boxes: as shares of the image's sides, (K, 4) float32.
        indices: among the labels, (K,) int64.
    """

    labels: tuple[str, ...]
    boxes: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
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
        """Boxes in pixels and their classes, (K, 5) float32."""
        scale = np.array([width, height, width, height], np.float32)
        rows = np.column_stack((self.boxes * scale, self.indices))
        return torch.from_numpy(rows.astype(np.float32))

    def fit(self, height: int, width: int) -> tuple[Tensor, tuple[str, ...]]:
        """The target; nothing is left out."""
        return self.target(height, width), ()

    def digest(self) -> str:
        """A hash of boxes and labels."""
        names = [self.labels[index] for index in self.indices]
        return hashlib.sha256(self.boxes.tobytes() + repr(names).encode()).hexdigest()[:32]


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
    rows = zip(
        finding.boxes.tolist(),
        finding.labels.tolist(),
        finding.confidences.tolist(),
        strict=True,
    )
    result: list[Region] = []
    for (left, top, right, bottom), index, confidence in rows:
        if confidence < threshold or classes[index] not in control.labels:
            continue
        if not _is_visible((left, top, right, bottom), size):
            continue
        value = {
            "x": round(left * 100, 4),
            "y": round(top * 100, 4),
            "width": round((right - left) * 100, 4),
            "height": round((bottom - top) * 100, 4),
            "rotation": 0,
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
    boxes: dict[tuple[Box, int], None] = {}
    left_out: list[str] = []
    turned = 0
    found = list(regions_of(control, result))
    for each in found:
        box = _box(each.value, original_size(each.region)) if each.label is not None else each.why
        if isinstance(box, str) or each.label is None:
            left_out.append(str(box))
            continue
        boxes[box, control.labels.index(each.label)] = None
        turned += bool((number(each.value.get("rotation")) or 0) % 90)
    sizes = sizes_of(found)
    if len(boxes) > MOST_BOXES:
        left_out += [f"among more than {MOST_BOXES:,} of one image"] * len(boxes)
    if set(left_out) - {TOO_SMALL} or (left_out and not boxes):
        return Reading(None, tuple(left_out), sizes)
    truth = BoxesTruth(
        labels=control.labels,
        boxes=np.array([box for box, _ in boxes], np.float32).reshape(-1, 4),
        indices=np.array([index for _, index in boxes], np.int64),
        warnings=(_turned(turned),) if turned else (),
    )
    return Reading(truth, tuple(left_out), sizes)


def _turned(count: int) -> str:
    if count == 1:
        return "A rotated box was taken as its upright hull."
    return f"{count} rotated boxes were taken as their upright hulls."


def _box(value: Mapping[str, Any], size: tuple[int, int] | None) -> Box | str:
    """The box, or its hull, clipped to the image; or what is wrong with it.

    A negative width or height is that of a box drawn towards the left or upwards.
    """
    x, y, width, height = (number(value.get(name)) for name in ("x", "y", "width", "height"))
    angle = number(value.get("rotation", 0) or 0)
    if x is None or y is None or width is None or height is None or angle is None:
        return DAMAGED
    if angle % 360 and size is None:
        return "that is rotated, without the image's size"
    ratio = 1.0 if size is None else size[0] / size[1]
    hull = _hull(x, y, width, height, math.radians(angle % 360), ratio)
    if not all(map(math.isfinite, hull)):
        return DAMAGED
    left, top, right, bottom = (min(max(side, 0.0), 100.0) / 100 for side in hull)
    clipped = left, top, right, bottom
    return clipped if _is_visible(clipped, size) else TOO_SMALL


def _hull(x: float, y: float, width: float, height: float, angle: float, ratio: float) -> Box:
    """The hull of a turned rectangle in percent; the ratio is the image's height by its width."""
    cosine, sine = math.cos(angle), math.sin(angle)
    across = (0.0, width * cosine, -height * ratio * sine)
    down = (0.0, width / ratio * sine, height * cosine)
    xs = (*across, across[1] + across[2])
    ys = (*down, down[1] + down[2])
    return x + min(xs), y + min(ys), x + max(xs), y + max(ys)


def _is_visible(box: Box, size: tuple[int, int] | None) -> bool:
    """Whether a box is at least a pixel wide and high, or not empty if the size is unknown."""
    left, top, right, bottom = box
    if size is None:
        return right > left and bottom > top
    tiny = SMALLEST_SIDE - 1e-3  # percentages are rounded
    return (right - left) * size[1] >= tiny and (bottom - top) * size[0] >= tiny
