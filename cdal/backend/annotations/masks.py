"""What brushes and polygons have in common: masks, their parts, and painting them over another.

Where regions overlap, the later one wins, as it lies on top on Label Studio's page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import IGNORED, Segmentation

LabelMap = npt.NDArray[np.uint8]
"""The class of each pixel, (H, W)."""

Mask = npt.NDArray[np.uint8]
"""1 where something is, else 0, (H, W)."""


Pixel = TypeVar("Pixel", np.uint8, np.float32)


class Shape(Protocol):
    """One region of an annotation.

    Attributes:
        label: index of its label among the control's.
    """

    @property
    def label(self) -> int: ...

    def paint(self, target: LabelMap) -> bool:
        """Set what it covers to its label; False if it turns out to be damaged."""

    def content(self) -> bytes:
        """What makes it different from others."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskTruth:
    """The class of every pixel of an image.

    Attributes:
        labels: the control's.
        shapes: the regions, from the bottom to the top.
        uncovered: stands for pixels that no region covers: the index of background, or `IGNORED`.
    """

    labels: tuple[str, ...]
    shapes: tuple[Shape, ...]
    uncovered: int
    dropped: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> frozenset[str]:
        """The labels of the regions."""
        return frozenset(self.labels[shape.label] for shape in self.shapes)

    def unseen(self, side: int) -> int:  # noqa: ARG002
        """Not known without painting them."""
        return 0

    def target(self, height: int, width: int) -> Tensor:
        """The label map, (H, W) uint8.

        Where a region was damaged, what no other covers is ignored, since it may be that region's.
        """
        painted = np.full((height, width), self.uncovered, np.uint8)
        sound = [shape.paint(painted) for shape in self.shapes]
        if self.dropped or not all(sound):
            painted[painted == self.uncovered] = IGNORED
        return torch.from_numpy(painted)

    def digest(self) -> str:
        """A hash of all regions and of what lies between them."""
        text = hashlib.sha256(f"{self.uncovered} {self.dropped}".encode())
        for shape in self.shapes:
            text.update(f"\n{self.labels[shape.label]}\n".encode())
            text.update(hashlib.sha256(shape.content()).digest())
        return text.hexdigest()[:32]


def truth_of_shapes(
    control: Control, shapes: Sequence[Shape], dropped: int, settings: ProjectSettings
) -> MaskTruth | None:
    """What the regions say together; None where that is nothing."""
    ignoring = settings.unlabelled == "ignore"
    if not shapes and (ignoring or dropped):
        return None
    uncovered = IGNORED if ignoring else len(control.labels)
    return MaskTruth(control.labels, tuple(shapes), uncovered, dropped)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected part of one class in a label map.

    Attributes:
        value: its class.
        area: its pixels.
        left: its leftmost column.
        top: its topmost row.
        mask: its pixels in its bounding box, (h, w).
        confidence: the mean over its pixels.
    """

    value: int
    area: int
    left: int
    top: int
    mask: Mask
    confidence: float

    @property
    def window(self) -> tuple[slice, slice]:
        """Where its bounding box lies in the label map."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def parts_of(
    finding: Segmentation,
    control: Control,
    classes: Sequence[str],
    settings: ProjectSettings,
) -> Iterator[Part]:
    """The 4-connected parts of the control's labels, without those that are too small.

    Args:
        finding: the label map and its confidences.
        control: the control that they are shown in.
        classes: what the label map's values stand for.
        settings: say what is too small.
    """
    labels: LabelMap = finding.labels.numpy()
    confidences: npt.NDArray[np.float32] = resize(finding.confidences.numpy(), labels.shape)
    smallest = settings.smallest_region * labels.size
    for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=len(classes))).tolist():
        if value < len(classes) and classes[value] in control.labels:
            yield from _parts_of_class(labels, confidences, value, smallest)


def _parts_of_class(
    labels: LabelMap, confidences: npt.NDArray[np.float32], value: int, smallest: float
) -> Iterator[Part]:
    mask = (labels == value).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(
        mask[y : y + height, x : x + width], connectivity=4, ltype=cv2.CV_32S
    )
    for number in range(1, count):
        left, top, wide, high, area = stats[number].tolist()
        if area < smallest:
            continue
        own = (numbers[top : top + high, left : left + wide] == number).view(np.uint8)
        left, top = left + x, top + y
        window = confidences[top : top + high, left : left + wide]
        confidence = min(float(np.vdot(window, own)) / area, 1.0)
        yield Part(value, area, left, top, own, confidence)


def enlarge(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """A label map at another size: each pixel is of the class that has most of what is around it.

    Taking the nearest pixel instead would give every edge the steps of the smaller map.
    """
    if labels.shape == size:
        return labels
    enlarged = np.zeros(size, np.uint8)
    most = np.zeros(size, np.uint8)
    for value in np.flatnonzero(np.bincount(labels.ravel())).tolist():
        share = shares((labels == value).view(np.uint8), size)
        np.copyto(enlarged, value, where=share > most)
        np.maximum(most, share, out=most)
    return enlarged


def shares(mask: Mask, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """How much of what is around each pixel a mask has, up to 255, (H, W)."""
    found = cv2.resize(mask * np.uint8(255), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return found.astype(np.uint8, copy=False)


def resize(image: npt.NDArray[Pixel], size: tuple[int, ...]) -> npt.NDArray[Pixel]:
    """Each pixel is the one in which its centre lies, (H, W)."""
    if image.shape == size:
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(image.dtype, copy=False)
