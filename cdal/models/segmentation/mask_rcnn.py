"""Mask R-CNN: a Faster R-CNN that also paints a mask in each box.

He, Gkioxari, Dollár and Girshick, "Mask R-CNN", ICCV 2017; the layers are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from cdal.models.class_rows import ClassRows
from cdal.models.detection.family import Detected, Model, image_list
from cdal.models.detection.pyramid import FasterRcnn
from cdal.models.predictions import Segmentation

INSIDE = 0.5
"""The probability from which a pixel belongs to an object."""

CONFIDENT = 0.5
"""The confidence from which an object is found: from here on it is more likely to be there than
not."""


class MaskRcnn(FasterRcnn):
    """Proposes boxes, scores the classes of each, and paints a mask per class in each."""

    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        rows = {
            f"roi_heads.mask_predictor.mask_fcn_logits.{part}": ClassRows(before=1)
            for part in ("weight", "bias")
        }
        return super().class_rows(model) | rows

    def heads(self, model: Model) -> list[nn.Module]:
        return [*super().heads(model), model.roi_heads.mask_predictor]

    def detect_with_masks(self, model: Model, images: Tensor) -> tuple[Detected, list[Tensor]]:
        """Run the detector, and paint a mask in each box.

        Args:
            model: the network.
            images: normalised, (B, 3, S, S).

        Returns:
            What is detected; and of each image, how likely each of the M×M places in a box belongs
            to its object, (K, M, M) float32.
        """
        found, maps = self.detect_with_maps(model, images)
        heads = model.roi_heads
        pooled = heads.mask_roi_pool(dict(maps), found.boxes, image_list(images).image_sizes)
        logits = heads.mask_predictor(heads.mask_head(pooled))
        labels = torch.cat(found.labels) + self.background
        own: Tensor = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()
        return found, list(torch.split(own, [len(image) for image in found.labels]))


def painted(masks: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Masks in boxes as masks of the whole image.

    Args:
        masks: see ``MaskRcnn.detect_with_masks``, (K, M, M).
        boxes: in pixels, (K, 4).
        side: S.

    Returns:
        Which pixels belong to each object, (K, S, S) bool.
    """
    if not len(masks):
        return torch.zeros((0, side, side), dtype=torch.bool, device=masks.device)
    pasted: Tensor = paste_masks_in_image(masks[:, None], boxes, (side, side))
    return pasted[:, 0] >= INSIDE


def finding_of(masks: Tensor, labels: Tensor, scores: Tensor, background: int) -> Segmentation:
    """The class and the object of each pixel.

    A pixel belongs to the most confident object that covers it. Outside of the objects that are
    confident enough, it is background, the less so the more confident another object is there.

    Args:
        masks: of K objects, the most confident first, (K, S, S) bool.
        labels: their classes, (K,).
        scores: their confidences, (K,).
        background: the index of its class.
    """
    size = masks.shape[1:]
    classes = torch.full(size, background, dtype=torch.uint8, device=masks.device)
    objects = torch.zeros(size, dtype=torch.uint8, device=masks.device)
    confidences = torch.ones(size, device=masks.device)
    order = list(zip(labels.tolist(), scores.tolist(), masks, strict=True))
    for number, (label, score, mask) in reversed(list(enumerate(order, start=1))):
        if score < CONFIDENT:
            confidences[mask] = 1 - score
        else:
            classes[mask], objects[mask], confidences[mask] = label, number, score
    return Segmentation(classes.cpu(), confidences.cpu(), objects.cpu())


def objects_in(target: Tensor) -> dict[str, Tensor]:
    """The objects of a prepared target, (2, S, S) int16; see predictions.py.

    Returns:
        "masks" (K, S, S) bool, "boxes" (K, 4) float32 in pixels, and "labels" (K,) int64.
    """
    classes, numbers = target
    known = numbers.unique()
    known = known[known > 0]
    masks = numbers == known[:, None, None]
    boxes = torch.zeros((len(known), 4), device=target.device)
    labels = torch.zeros(len(known), dtype=torch.int64, device=target.device)
    for row, mask in enumerate(masks):
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        boxes[row] = torch.stack((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)).flatten()
        labels[row] = classes[rows[0, 0]][mask[rows[0, 0]]][0]
    return {"masks": masks, "boxes": boxes, "labels": labels}
