"""Metrics of detections: average precision by COCO's rules, and confusion between classes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from cdal.models.detection.turned import rectangles_of, turned_overlaps
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
        most: so many boxes per image and class count.
        of_masks: whether objects have masks, and not only boxes.

    Raises:
        ModelError: pycocotools is not installed.
    """

    def __init__(
        self,
        classes: int,
        thresholds: list[float] | None = None,
        most: int = MOST_BOXES,
        of_masks: bool = False,
    ) -> None:
        try:
            # Imported here, because only detection needs pycocotools.
            from torchmetrics.detection import MeanAveragePrecision

            self._metric = MeanAveragePrecision(
                iou_type="segm" if of_masks else "bbox",
                sync_on_compute=False,
                iou_thresholds=thresholds,
                max_detection_thresholds=[1, 10, most],
                extended_summary=True,
            )
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

    def update_masks(
        self, found: Sequence[dict[str, Tensor]], true: Sequence[dict[str, Tensor]]
    ) -> None:
        """Add images whose objects have masks.

        Args:
            found: "masks" (K, S, S) bool, "scores" (K,) and "labels" (K,) of each image, on the
                CPU.
            true: "masks" and "labels" of each image.
        """
        self._metric.update(list(found), list(true))

    def compute(self) -> AveragePrecision:
        """The average precision over all images added so far."""
        summary = self._metric.compute()
        # Thresholds × 101 recalls × seen classes, for all areas and the largest number of boxes.
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
    most: int = MOST_BOXES,
) -> list[float]:
    """The mean average precision at 0.5 of each of B bootstrap samples of images.

    Args:
        found: the found boxes of N images; see ``PrecisionMeter.update``.
        targets: their targets.
        classes: C.
        counts: how often each image occurs in each sample, (B, N).
        stop: called before each sample; True stops the computation.
        most: so many boxes per image and class count.

    Returns:
        B values in [0, 1].

    Raises:
        Stopped: ``stop`` returned True.
    """
    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        judge = _judge(found, targets, classes)
        wanted = judge.params
        wanted.iouThrs, wanted.recThrs = np.array([OVERLAP]), np.array(RECALLS)
        wanted.areaRng, wanted.areaRngLbl = [[0, 1e10]], ["all"]
        wanted.maxDets = [most]
        # Boxes and objects of an image are matched once, and not again for each sample.
        judge.evaluate()
        matches = np.array(judge.evalImgs, object).reshape(classes, len(found))
        values = []
        for sample in counts:
            if stop():
                raise Stopped
            drawn = matches.repeat(sample, axis=1)
            judge.evalImgs = drawn.reshape(-1).tolist()
            judge._paramsEval.imgIds = wanted.imgIds = list(range(drawn.shape[1]))
            judge.accumulate()
            # 101 recalls × classes; -1 for a class without objects.
            precision = judge.eval["precision"][0, :, :, 0, 0]
            values.append(mean_over_classes([float(of) for of in precision.mean(0) if of >= 0]))
    return values


def may_be_turned(found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor]) -> bool:
    """Whether some boxes of images have tilts, in which case the rotated boxes are compared."""
    return any("tilts" in image for image in found) or any(rows.shape[1] > 5 for rows in targets)


def turned_precision(
    found: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Tensor],
    classes: int,
    most: int = MOST_BOXES,
) -> AveragePrecision:
    """The average precision of boxes that may be rotated; arguments as `resampled_precision`."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge = _judge(found, targets, classes)
        judge.params.recThrs = np.array(RECALLS)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.maxDets = [most]
        judge.evaluate()
        judge.accumulate()
    # Thresholds × 101 recalls × classes; -1 for a class without objects.
    precision = judge.eval["precision"][:, :, :, 0, 0]
    known = [(precision[:, :, label] >= 0).all() for label in range(classes)]
    return AveragePrecision(
        tuple(
            float(precision[0, :, label].mean()) if known[label] else None
            for label in range(classes)
        ),
        tuple(
            float(precision[:, :, label].mean()) if known[label] else None
            for label in range(classes)
        ),
    )


def _judge(found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor], classes: int) -> Any:
    """The evaluation of pycocotools, by the overlaps of the rotated boxes if there are such."""
    from pycocotools.cocoeval import COCOeval

    judge = COCOeval(*_coco(found, targets, classes), "bbox")
    if may_be_turned(found, targets):
        judge.computeIoU = partial(_turned_overlaps, judge)
    return judge


def _turned_overlaps(judge: Any, image: int, label: int) -> Any:
    """As `COCOeval.computeIoU`: those of the most confident boxes with the objects, (K, M)."""
    objects = judge._gts[image, label]
    boxes = sorted(judge._dts[image, label], key=lambda box: -box["score"])
    boxes = boxes[: judge.params.maxDets[-1]]
    if not objects or not boxes:
        return []
    one, other = (
        rectangles_of(
            torch.tensor([row["spread"] for row in rows]),
            torch.tensor([row["tilt"] for row in rows]),
        )
        for rows in (boxes, objects)
    )
    pairs = turned_overlaps(one.repeat_interleave(len(other), 0), other.repeat(len(one), 1, 1))
    return pairs.view(len(one), len(other)).numpy()


def _coco(
    found: Sequence[Mapping[str, Tensor]], targets: Sequence[Tensor], classes: int
) -> tuple[Any, Any]:
    """Objects and found boxes of images, as pycocotools takes them."""
    from pycocotools.coco import COCO

    objects = [
        (
            row[:, :4],
            row[:, 4],
            torch.ones(len(row)),
            row[:, 5] if row.shape[1] > 5 else torch.zeros(len(row)),
        )
        for row in targets
    ]
    boxes = [
        (
            image["boxes"],
            image["labels"],
            image["scores"],
            image.get("tilts", torch.zeros(len(image["scores"]))),
        )
        for image in found
    ]
    made = []
    for images in (objects, boxes):
        rows: list[dict[str, Any]] = []
        for image, columns in enumerate(images):
            for corners, label, score, tilt in zip(
                *(each.tolist() for each in columns), strict=True
            ):
                left, top, right, bottom = corners
                width, height = right - left, bottom - top
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": image,
                        "category_id": int(label),
                        "bbox": [left, top, width, height],
                        "area": width * height,
                        "score": score,
                        "iscrowd": 0,
                        "spread": corners,
                        "tilt": tilt,
                    }
                )
        table = COCO()
        table.dataset = {
            "images": [{"id": image} for image in range(len(images))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": rows,
        }
        table.createIndex()
        made.append(table)
    return made[0], made[1]


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
