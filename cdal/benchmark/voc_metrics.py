"""Average precision by the rules of VOC 2007: eleven points, and difficult objects not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cdal.models import Metrics
from cdal.models.data import Examples
from cdal.models.detection.metrics import OVERLAP, mean_over_classes
from cdal.models.detection.network import DetectionNetwork

NAME = "map_voc2007"
RECALLS = [place / 10 for place in range(11)]


def measure_by_voc(
    network: DetectionNetwork, images: Examples, difficult: Sequence[Tensor]
) -> Metrics:
    """The network's metrics, of which "map_voc2007" is the main one.

    Precision is averaged at the eleven recalls 0, 0.1, …, 1, where it is the highest at that recall
    or a higher one (VOC 2007's development kit, section 3.4). A box that shows a difficult object
    is neither right nor wrong. Boxes are matched as COCO does it, to the best object that no
    better box has; VOC matches to the best object and counts a second box as wrong, which differs
    only where objects of a class overlap.

    Args:
        network: a detector.
        images: test images, whose targets have no difficult objects.
        difficult: the difficult objects of each image, as targets prepared for the network.
    """
    found, targets = network.find(images)
    metrics = network.metrics_of(found, targets)
    values = average_precisions(found, targets, difficult, len(network.classes))
    per_class = {
        name: replace(score, score=values[row])
        for row, (name, score) in enumerate(metrics.per_class.items())
    }
    return replace(
        metrics,
        main_name=NAME,
        values={NAME: mean_over_classes(values), **metrics.values},
        per_class=per_class,
    )


def average_precisions(
    found: Sequence[dict[str, Tensor]],
    targets: Sequence[Tensor],
    difficult: Sequence[Tensor],
    classes: int,
) -> list[float | None]:
    """The average precision of each class; None for a class without objects that count.

    Args:
        found: "boxes" (K, 4), "scores" (K,) and "labels" (K,) of each image.
        targets: objects that count, (M, 5) per image.
        difficult: objects that do not, (M, 5) per image.
        classes: C.
    """
    # Imported here, because only detection needs pycocotools.
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        iou_thresholds=[OVERLAP], rec_thresholds=RECALLS, extended_summary=True
    )
    metric.warn_on_many_detections = False
    true = []
    for easy, hard in zip(targets, difficult, strict=True):
        rows = torch.cat([easy, hard])
        crowd = torch.cat([torch.zeros(len(easy)), torch.ones(len(hard))]).long()
        true.append({"boxes": rows[:, :4], "labels": rows[:, 4].long(), "iscrowd": crowd})
    metric.update(list(found), true)
    summary: dict[str, Any] = metric.compute()
    values: list[float | None] = [None] * classes
    counts = torch.cat(list(targets))[:, 4].long().bincount(minlength=classes)
    for column, label in enumerate(summary["classes"].reshape(-1).tolist()):
        precision = summary["precision"][0, :, column, 0, -1]
        if counts[label] and (precision >= 0).all():
            values[label] = float(precision.mean())
    return values
