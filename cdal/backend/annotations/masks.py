"""What brushes, bitmasks and polygons share: masks, and painting regions.

Where regions overlap, the later one wins, because Label Studio shows it on top.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cdal.backend.annotations.control import Control
from cdal.backend.annotations.format import DAMAGED, Labelled, Reading, regions_of, sizes_of
from cdal.backend.settings import ProjectSettings
from cdal.models.predictions import IGNORED

LabelMap = npt.NDArray[np.uint8]
"""The class of each pixel, (H, W)."""

Mask = npt.NDArray[np.uint8]
"""1 inside and 0 outside, (H, W)."""


Pixel = TypeVar("Pixel", np.uint8, np.float32)


MOST_WORK = 10_000_000_000
"""Pixels, see `Shape.cost`: regions that would take longer to paint are not read. A short
annotation may contain thousands of regions, each as large as the largest image."""

NOT_COVERED = IGNORED - 1
"""Of pixels outside of the shape that is being painted; the most labels that a control has are
fewer."""

TOO_MUCH = "in an annotation with too many large regions"

MOST_OBJECTS = 1000
"""Regions that a network learns as objects, of an annotation: each takes a mask as large as the
image that the network sees, several times over."""

TOO_MANY = "in an annotation with too many objects"


class Shape(Protocol):
    """One region of an annotation.

    Attributes:
        label: index of its label among the control's; `IGNORED` if that is not known.
    """

    @property
    def label(self) -> int: ...

    def cost(self, height: int, width: int) -> int:
        """The work of painting it on an image of this size, in pixels of 1 to 5 ns each."""

    def paint(self, target: LabelMap) -> str | None:
        """Set the covered pixels to its label; returns what is wrong if none can be set."""

    def content(self) -> bytes:
        """Bytes that differ between different shapes."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskTruth:
    """The class of every pixel of an image.

    Attributes:
        labels: the control's.
        shapes: the regions, from the bottom to the top.
        uncovered: value of pixels that no region covers: the index of background, or `IGNORED`.
        lacking: whether a region is missing of which it is not known what it covers.
        numbered: whether targets also say to which object each pixel belongs, that is to which
            region.
    """

    labels: tuple[str, ...]
    shapes: tuple[Shape, ...]
    uncovered: int
    lacking: bool = False
    warnings: tuple[str, ...] = ()
    numbered: bool = False

    @property
    def classes(self) -> frozenset[str]:
        """The labels of the regions."""
        return frozenset(self.labels[shape.label] for shape in self.known())

    def known(self) -> list[Shape]:
        """The regions whose label is known."""
        return [shape for shape in self.shapes if shape.label != IGNORED]

    def unseen(self, height: int, width: int) -> int:  # noqa: ARG002
        """Unknown without painting the regions, so 0."""
        return 0

    def target(self, height: int, width: int) -> Tensor:
        """The label map, (H, W) uint8; (2, H, W) int16 with the numbers of objects."""
        return self._paint(height, width)[0]

    def fit(self, height: int, width: int) -> tuple[Tensor | None, tuple[str, ...]]:
        """The label map unless all of it is ignored, and what is wrong with regions it lacks."""
        target, wrong = self._paint(height, width)
        return (None if _is_ignored(target) else target), wrong

    def with_objects(self, numbered: bool) -> Self:
        """The same, with or without the numbers of objects in its targets."""
        return replace(self, numbered=numbered)

    def _paint(self, height: int, width: int) -> tuple[Tensor, tuple[str, ...]]:
        """If a region is missing, uncovered pixels are ignored, since they may belong to it."""
        painted = np.full((height, width), self.uncovered, np.uint8)
        objects = np.zeros((height, width), np.int16)
        tried: list[str | None] = []
        left = MOST_WORK
        for number, shape in enumerate(self.shapes, start=1):
            left -= shape.cost(height, width) + (height * width if self.numbered else 0)
            if left < 0:
                tried.append(TOO_MUCH)
            elif self.numbered and number > MOST_OBJECTS:
                tried.append(TOO_MANY)
            elif self.numbered:
                own = np.full((height, width), NOT_COVERED, np.uint8)
                tried.append(shape.paint(own))
                covered = own != NOT_COVERED
                np.copyto(painted, own, where=covered)
                objects[covered] = 0 if shape.label == IGNORED else number
            else:
                tried.append(shape.paint(painted))
        wrong = tuple(why for why in tried if why is not None)
        if self.lacking or wrong:
            painted[painted == self.uncovered] = IGNORED
        if not self.numbered:
            return torch.from_numpy(painted), wrong
        return torch.from_numpy(np.stack((painted.astype(np.int16), objects))), wrong

    def digest(self) -> str:
        """A hash of all regions and of the value of uncovered pixels."""
        text = hashlib.sha256(f"{self.uncovered} {int(self.lacking)}".encode())
        for shape in self.shapes:
            name = "" if shape.label == IGNORED else self.labels[shape.label]
            text.update(f"\n{name}\n".encode())
            text.update(hashlib.sha256(shape.content()).digest())
        return text.hexdigest()[:32]


@dataclass(frozen=True, slots=True, eq=False)
class MajorityTruth:
    """The class of every pixel that most annotators give it.

    Attributes:
        truths: what each of them says.
    """

    truths: tuple[MaskTruth, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The control's."""
        return self.truths[-1].labels

    @property
    def uncovered(self) -> int:
        """See `MaskTruth`."""
        return self.truths[-1].uncovered

    @property
    def numbered(self) -> bool:
        """See `MaskTruth`."""
        return self.truths[-1].numbered

    @property
    def classes(self) -> frozenset[str]:
        """The labels that somebody has used."""
        return frozenset[str]().union(*(truth.classes for truth in self.truths))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of all annotators, each once."""
        return tuple(dict.fromkeys(text for truth in self.truths for text in truth.warnings))

    def unseen(self, height: int, width: int) -> int:  # noqa: ARG002
        """Unknown without painting the regions, so 0."""
        return 0

    def target(self, height: int, width: int) -> Tensor:
        """The label map, (H, W) uint8; (2, H, W) int16 with the numbers of objects."""
        return self._agreed([truth.target(height, width).numpy() for truth in self.truths])

    def fit(self, height: int, width: int) -> tuple[Tensor | None, tuple[str, ...]]:
        """The label map unless all of it is ignored, and what is wrong with regions it lacks."""
        fitted = [truth.fit(height, width) for truth in self.truths]
        maps = [found.numpy() for found, _ in fitted if found is not None]
        wrong = tuple(why for _, said in fitted for why in said)
        target = self._agreed(maps) if maps else None
        return (None if target is None or _is_ignored(target) else target), wrong

    def with_objects(self, numbered: bool) -> Self:
        """The same, with or without the numbers of objects in its targets."""
        return replace(self, truths=tuple(one.with_objects(numbered) for one in self.truths))

    def digest(self) -> str:
        """A hash of what each annotator says."""
        said = "\n".join(truth.digest() for truth in self.truths)
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def _agreed(self, maps: Sequence[npt.NDArray[Any]]) -> Tensor:
        """The class that most annotators give each pixel.

        Objects are those of the latest annotator. What most of the others call an object where this
        one has none, or one of another class, is ignored: nobody says which object it belongs to.
        """
        if maps[0].ndim == 2:
            return torch.from_numpy(_majority(maps))
        winner = _majority([of_pixels[0].astype(np.uint8) for of_pixels in maps])
        latest, numbers = maps[-1]
        objects = np.where(winner == latest, numbers, 0)
        winner[(objects == 0) & (winner != self.uncovered)] = IGNORED
        return torch.from_numpy(np.stack((winner.astype(np.int16), objects)))


def _is_ignored(target: Tensor) -> bool:
    """Whether a target says nothing about any pixel."""
    return bool(((target[0] if target.ndim == 3 else target) == IGNORED).all())


def _majority(maps: Sequence[LabelMap]) -> LabelMap:
    """Of each pixel, the value that more maps have than any other; `IGNORED` does not count."""
    winner = np.full(maps[0].shape, IGNORED, np.uint8)
    most = np.zeros(maps[0].shape, np.uint16)
    for value in np.unique(np.concatenate([np.unique(one) for one in maps])).tolist():
        if value == IGNORED:
            continue
        votes = np.zeros(most.shape, np.uint16)
        for one in maps:
            votes += one == value
        winner[votes > most] = value
        winner[(votes == most) & (votes > 0)] = IGNORED
        np.maximum(most, votes, out=most)
    return winner


def read_shapes(
    control: Control,
    result: Sequence[Any],
    settings: ProjectSettings,
    shape_of: Callable[[Labelled, int], Shape | None],
) -> Reading:
    """The regions in their order; those that cannot be read are left out.

    Args:
        control: the control that is served.
        result: of the annotation.
        settings: say what uncovered pixels are.
        shape_of: makes a shape of a region, given the index of its label; None if it is damaged.
    """
    shapes: list[Shape] = []
    left_out: list[str] = []
    lacking = False
    found = list(regions_of(control, result))
    for each in found:
        label = IGNORED if each.label is None else control.labels.index(each.label)
        shape = shape_of(each, label)
        if each.label is None or shape is None:
            left_out.append(each.why or DAMAGED)
        if shape is None:
            lacking = True
        else:
            shapes.append(shape)
    ignoring = settings.unlabelled == "ignore"
    uncovered = IGNORED if ignoring else len(control.labels)
    truth = MaskTruth(control.labels, tuple(shapes), uncovered, lacking)
    nothing = not truth.known() and (ignoring or bool(left_out))
    return Reading(None if nothing else truth, tuple(left_out), sizes_of(found))


def covered_by(alpha: npt.NDArray[np.uint8]) -> Mask | None:
    """1 from half of the largest alpha on, 0 below it, in the same shape; None if every alpha is 0.

    Brushes have soft edges. Label Studio's page writes up to 255, the SDK's `contour2rle` 100.
    """
    most = int(alpha.max(initial=0))
    return None if most == 0 else (alpha >= (most + 1) // 2).view(np.uint8)


def enlarge(labels: LabelMap, size: tuple[int, int]) -> LabelMap:
    """A label map at another size: each pixel gets the class that covers most of its surroundings.

    With the nearest pixel, edges would show the steps of the smaller map.
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
    """How much of each pixel's surroundings the mask covers, up to 255, (H, W)."""
    found = cv2.resize(mask * np.uint8(255), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return found.astype(np.uint8, copy=False)


def resize(image: npt.NDArray[Pixel], size: tuple[int, ...]) -> npt.NDArray[Pixel]:
    """The image at another size: each pixel is the one that contains its centre, (H, W)."""
    if image.shape == size:
        return image
    resized = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(image.dtype, copy=False)
