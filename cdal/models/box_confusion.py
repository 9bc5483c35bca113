"""What a detector takes the objects of an image for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

OVERLAP = 0.5
"""Least intersection over union of a found box that is taken to be of the object."""


def confusion_of_boxes(
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
