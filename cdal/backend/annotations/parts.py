"""The regions in a predicted label map: connected parts of a class, or the objects in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.masks import LabelMap, Mask, resize
from cdal.backend.annotations.touching import objects_in
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import Segmentation


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected part of one class in a label map, or one object in it.

    Attributes:
        value: its class.
        area: its pixels.
        left: its leftmost column.
        top: its topmost row.
        mask: its pixels in its bounding box, (h, w).
        confidence: the mean over its pixels.
        number: of the object that it belongs to; 0 if the network tells no objects apart.
    """

    value: int
    area: int
    left: int
    top: int
    mask: Mask
    confidence: float
    number: int = 0

    @property
    def window(self) -> tuple[slice, slice]:
        """Its bounding box in the label map."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def parts_of(
    finding: Segmentation,
    control: Control,
    classes: Sequence[str],
    settings: ProjectSettings,
) -> Iterator[Part]:
    """The 4-connected parts of the control's labels, without those that are too small.

    With the setting `split_regions` "touching", a part is one of the touching objects in it. Where
    the network itself tells objects apart, a part is one of its object.

    Args:
        finding: the label map and its confidences.
        control: the control that they are shown in.
        classes: what the label map's values stand for.
        settings: say what is too small, and what is split.
    """
    labels: LabelMap = finding.labels.numpy()
    confidences: npt.NDArray[np.float32] = resize(finding.confidences.numpy(), labels.shape)
    smallest = settings.smallest_region * labels.size
    told_apart = finding.objects is not None
    for value, number, pixels in _pixels_of(finding):
        if value >= len(classes) or classes[value] not in control.labels:
            continue
        for left, top, mask in _connected(pixels, smallest):
            if settings.split_regions == "touching" and not told_apart:
                pieces = [_cut(piece, left, top) for piece in objects_in(mask, smallest)]
            else:
                pieces = [(left, top, mask)]
            yield from (_part(value, number, *piece, confidences) for piece in pieces)


def _pixels_of(finding: Segmentation) -> Iterator[tuple[int, int, Mask]]:
    """The class, the number and the pixels of each object; without objects, of each class."""
    labels: LabelMap = finding.labels.numpy()
    if finding.objects is None:
        for value in np.flatnonzero(np.bincount(labels.ravel())).tolist():
            yield value, 0, (labels == value).view(np.uint8)
        return
    objects: LabelMap = finding.objects.numpy()
    for number in np.flatnonzero(np.bincount(objects.ravel())).tolist():
        if number > 0:
            pixels = objects == number
            yield int(labels[pixels][0]), number, pixels.view(np.uint8)


def _connected(mask: Mask, smallest: float) -> Iterator[tuple[int, int, Mask]]:
    """The left, the top and the mask of each connected part that is large enough."""
    x, y, width, height = cv2.boundingRect(mask)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(
        mask[y : y + height, x : x + width], connectivity=4, ltype=cv2.CV_32S
    )
    for number in range(1, count):
        left, top, wide, high, area = stats[number].tolist()
        if area >= smallest:
            own = (numbers[top : top + high, left : left + wide] == number).view(np.uint8)
            yield left + x, top + y, own


def _cut(mask: Mask, left: int, top: int) -> tuple[int, int, Mask]:
    """A mask without its empty margins, whose upper left pixel is at this place."""
    x, y, width, height = cv2.boundingRect(mask)
    return left + x, top + y, mask[y : y + height, x : x + width]


def _part(
    value: int,
    number: int,
    left: int,
    top: int,
    mask: Mask,
    confidences: npt.NDArray[np.float32],
) -> Part:
    height, width = mask.shape
    area = int(mask.sum(dtype=np.int64))
    window = np.ascontiguousarray(confidences[top : top + height, left : left + width])
    confidence = min(float(np.vdot(window, mask)) / area, 1.0)
    return Part(value, area, left, top, mask, confidence, number)
