"""Metrics of detections: average precision by COCO's rules, and confusion between classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cdal.models.errors import ModelError, Stopped

OVERLAP = 0.5
"""A found box belongs to an object from this intersection over union."""

MOST_BOXES = 100
"""So many boxes per image and class count, as in COCO."""

RECALLS = torch.linspace(0, 1, 101).tolist()
"""At these, precision is averaged; those of torchmetrics."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """The average precision of each of C classes; None for a class without boxes.

    Attributes:
        at_50: a box counts as found at an intersection over union of at least 0.5.
        at_all: the mean over the thresholds 0.5, 0.55, …, 0.95.
    """

    at_50: tuple[float | None, ...]
    at_all: tuple[float | None, ...]


class PrecisionMeter:
    """Computes the average precision of found boxes, image by image.

    Args:
        classes: C.
        thresholds: of the intersection over union, ascending from 0.5; None: COCO's ten.

    Raises:
        ModelError: pycocotools is not installed.
    """

    def __init__(self, classes: int, thresholds: list[float] | None = None) -> None:
        try:
            # Imported here, because only detection needs pycocotools.
            from torchmetrics.detection import MeanAveragePrecision

            self._metric = MeanAveragePrecision(iou_thresholds=thresholds, extended_summary=True)
        except ImportError as error:
            raise ModelError(
                "Measuring detectors needs pycocotools, which is not installed. Run: "
                "pip install pycocotools"
            ) from error
        self._classes = classes

    def update(self, found: Sequence[dict[str, Tensor]], targets: Sequence[Tensor]) -> None:
        """Add images.

        Args:
            found: "boxes" (K, 4), "scores" (K,) and "labels" (K,) of each image, on the CPU.
            targets: the target (M, 5) of each image.
        """
        true = [{"boxes": rows[:, :4], "labels": rows[:, 4].long()} for rows in targets]
        self._metric.update(list(found), true)

    def compute(self) -> AveragePrecision:
        """The average precision over all images added so far."""
        summary = self._metric.compute()
        # Thresholds × 101 recalls × seen classes, for all areas and at most 100 boxes per image.
        precision = summary["precision"][:, :, :, 0, -1]
        at_50: list[float | None] = [None] * self._classes
        at_all = list(at_50)
        for column, label in enumerate(summary["classes"].reshape(-1).tolist()):
            values = precision[:, :, column]
            if (values >= 0).all():  # otherwise the class was found but has no boxes
                at_50[label], at_all[label] = float(values[0].mean()), float(values.mean())
        return AveragePrecision(tuple(at_50), tuple(at_all))


def resampled_precision(
    found: Sequence[dict[str, Tensor]],
    targets: Sequence[Tensor],
    classes: int,
    counts: Sequence[Sequence[int]],
    stop: Callable[[], bool] = lambda: False,
) -> list[float]:
    """The mean average precision at 0.5 of each of B bootstrap samples of images.

    Args:
        found: the found boxes of N images; see ``PrecisionMeter.update``.
        targets: their targets.
        classes: C.
        counts: how often each image occurs in each sample, (B, N).
        stop: called before each sample; True stops the computation.

    Returns:
        B values in [0, 1].

    Raises:
        Stopped: ``stop`` returned True.
    """
    tables = [_Matches.of(found, targets, label) for label in range(classes)]
    values = []
    for sample in counts:
        if stop():
            raise Stopped
        drawn = np.asarray(sample)
        values.append(mean_over_classes([table.precision(drawn) for table in tables]))
    return values


@dataclass(frozen=True, slots=True)
class _Matches:
    """What was found of one class in N images: K boxes, the most confident first.

    The boxes of an image are matched once, as COCO does it, and not again for each sample.

    Attributes:
        images: the image of each box, (K,).
        right: whether it belongs to an object, (K,).
        objects: the number of objects in each image, (N,).
    """

    images: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor], label: int
    ) -> _Matches:
        rows: list[tuple[float, int, bool]] = []
        objects = []
        for row, (image, target) in enumerate(zip(found, targets, strict=True)):
            own = image["labels"] == label
            scores, order = image["scores"][own].sort(descending=True, stable=True)
            boxes = image["boxes"][own][order[:MOST_BOXES]].double()
            true = target[target[:, 4] == label, :4].double()
            right = _belong(box_iou(boxes, true).tolist())
            rows += [
                (score, row, is_right)
                for score, is_right in zip(scores[:MOST_BOXES].tolist(), right, strict=True)
            ]
            objects.append(len(true))
        rows.sort(key=lambda box: -box[0])
        return cls(
            np.array([image for _, image, _ in rows], np.int64),
            np.array([is_right for _, _, is_right in rows], np.bool_),
            np.array(objects, np.int64),
        )

    def precision(self, counts: npt.NDArray[np.int64]) -> float | None:
        """The average precision if each image occurs so often, (N,); None without objects."""
        total = int((self.objects * counts).sum())
        if not total:
            return None
        times = counts[self.images]
        hits = np.cumsum(times * self.right)
        precision = hits / np.maximum(np.cumsum(times), 1)
        best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(hits / total, RECALLS)
        return float(np.append(best_from_here, 0.0)[reached].mean())


def _belong(overlaps: Sequence[Sequence[float]]) -> list[bool]:
    """Whether each box, the most confident first, has an object that no box before it has.

    Args:
        overlaps: the intersection over union of K boxes with M objects, (K, M).
    """
    taken: set[int] = set()
    right = []
    for row in overlaps:
        free = [(overlap, place) for place, overlap in enumerate(row) if place not in taken]
        overlap, place = max(free, default=(0.0, -1))
        right.append(overlap >= OVERLAP)
        if overlap >= OVERLAP:
            taken.add(place)
    return right


def mean_over_classes(values: Sequence[float | None]) -> float:
    """The mean over the classes that have boxes; 0 if none has."""
    known = [value for value in values if value is not None]
    return float(torch.tensor(known).mean()) if known else 0.0


def box_confusion(
    found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor], classes: int
) -> Tensor:
    """Count which classes are found for the objects of which class.

    For each object, the most confident of the boxes that overlap it counts.

    Args:
        found: "boxes" (K, 4) and "labels" (K,) of each image, the most confident first.
        targets: the target (M, 5) of each image.
        classes: C.

    Returns:
        (C, C + 1) int64: a row per class of object, a column per class found, and a last column for
        objects that are missed.
    """
    confusion = torch.zeros((classes, classes + 1), dtype=torch.int64)
    for image, target in zip(found, targets, strict=True):
        overlaps = box_iou(target[:, :4], image["boxes"]) >= OVERLAP
        overlaps = torch.cat((overlaps, torch.ones(len(target), 1, dtype=torch.bool)), 1)
        labels = torch.cat((image["labels"], torch.tensor([classes])))
        first = overlaps.int().argmax(1)  # the first of equal ones, so the most confident
        confusion.index_put_((target[:, 4].long(), labels[first]), torch.tensor(1), accumulate=True)
    return confusion
