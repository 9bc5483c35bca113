"""Average precision of detections, by COCO's rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from cdal.models.errors import ModelError, Stopped


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """The precision of detections, averaged over the recall.

    Attributes:
        at_50: where a box with an intersection over union of 0.5 counts as found, a value for
            each of C classes; None for a class without boxes.
        at_all: the mean over the thresholds 0.5, 0.55, …, 0.95.
    """

    at_50: tuple[float | None, ...]
    at_all: tuple[float | None, ...]


class PrecisionMeter:
    """Collects found and true boxes of images.

    Args:
        classes: C.
        thresholds: of the intersection over union, ascending, the first one 0.5; None: COCO's ten.

    Raises:
        ModelError: pycocotools is not installed.
    """

    def __init__(self, classes: int, thresholds: list[float] | None = None) -> None:
        try:
            # Not all who train classifiers have what this metric needs.
            from torchmetrics.detection import MeanAveragePrecision

            self._metric = MeanAveragePrecision(iou_thresholds=thresholds, extended_summary=True)
        except ImportError as error:
            raise ModelError(
                "Detectors are measured with pycocotools, which is not installed here: "
                "pip install pycocotools"
            ) from error
        self._classes = classes

    def update(self, found: Sequence[dict[str, Tensor]], targets: Sequence[Tensor]) -> None:
        """Add images.

        Args:
            found: boxes (K, 4), scores (K,) and labels (K,) of each, on the CPU.
            targets: rows (K, 5) of each.
        """
        true = [{"boxes": rows[:, :4], "labels": rows[:, 4].long()} for rows in targets]
        self._metric.update(list(found), true)

    def compute(self) -> AveragePrecision:
        """Average precision over all images so far."""
        summary = self._metric.compute()
        # Thresholds, 101 recalls, seen classes; then all areas, and at most 100 boxes an image.
        precision = summary["precision"][:, :, :, 0, -1]
        at_50: list[float | None] = [None] * self._classes
        at_all = list(at_50)
        for column, label in enumerate(summary["classes"].reshape(-1).tolist()):
            values = precision[:, :, column]
            if (values >= 0).all():  # otherwise the class has no boxes, but was found
                at_50[label], at_all[label] = float(values[0].mean()), float(values.mean())
        return AveragePrecision(tuple(at_50), tuple(at_all))


def resampled_precision(
    found: Sequence[dict[str, Tensor]],
    targets: Sequence[Tensor],
    classes: int,
    counts: Sequence[Sequence[int]],
    stop: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Average precision at 0.5, mean over the classes, of bootstrap samples of images.

    Args:
        found: of each of N images, see ``PrecisionMeter.update``.
        targets: of each.
        classes: C.
        counts: how often each image is in each of B samples, (B, N).
        stop: asked before each sample.

    Returns:
        Of each sample.

    Raises:
        Stopped: ``stop`` said so.
    """
    values = []
    for sample in counts:
        if stop():
            raise Stopped
        rows = [row for row, count in enumerate(sample) for _ in range(count)]
        meter = PrecisionMeter(classes, [0.5])
        meter.update([found[row] for row in rows], [targets[row] for row in rows])
        values.append(mean_over_classes(meter.compute().at_50))
    return values


def mean_over_classes(values: Sequence[float | None]) -> float:
    """The mean over the classes that have boxes; 0 where none has."""
    known = [value for value in values if value is not None]
    return float(torch.tensor(known).mean()) if known else 0.0


OVERLAP = 0.5
"""Least intersection over union of a found box that is taken to be of the object."""


def box_confusion(
    found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor], classes: int
) -> Tensor:
    """Count what is found where there is an object: of what overlaps, the most confident counts.

    Args:
        found: of each image boxes (K, 4) and labels (K,), the most confident first.
        targets: of each image rows of left, top, right, bottom and class, (M, 5).
        classes: C.

    Returns:
        (C, C + 1) int64: rows are the objects' classes, columns what is found there; the last one
        is for objects where nothing is.
    """
    confusion = torch.zeros((classes, classes + 1), dtype=torch.int64)
    for image, target in zip(found, targets, strict=True):
        overlaps = box_iou(target[:, :4], image["boxes"]) >= OVERLAP
        overlaps = torch.cat((overlaps, torch.ones(len(target), 1, dtype=torch.bool)), 1)
        labels = torch.cat((image["labels"], torch.tensor([classes])))
        first = overlaps.int().argmax(1)  # of equals the first
        confusion.index_put_((target[:, 4].long(), labels[first]), torch.tensor(1), accumulate=True)
    return confusion
