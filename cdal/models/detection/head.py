"""Object detection on a frozen backbone: an anchor-free head at strides 8, 16 and 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, sigmoid_focal_loss

from cdal.models.class_rows import ClassRows
from cdal.models.dense_head import (
    DENSE_DEFAULTS,
    DenseHeadNetwork,
    DenseLayers,
    mirrored,
    separable,
)
from cdal.models.detection.boxes import MIN_SIDE
from cdal.models.detection.family import MAX_BOXES, MIN_SCORE, Detected
from cdal.models.detection.network import DetectionNetwork, DetectionPrediction
from cdal.models.detection.places import STRIDES, Places, assigned
from cdal.models.detection.regions import BoxCandidates
from cdal.models.errors import ModelError
from cdal.models.features import ImageFeatures
from cdal.models.letterbox import content_size, on_grid
from cdal.models.manifest import Manifest
from cdal.models.predictions import Detections, Finding
from cdal.models.recipe import Recipe

WIDTH = 128
GROUPS = 16

PRIOR = 0.02
"""The probability of each class at each place before training: most places show nothing."""

OVERLAP = 0.5
"""Of two boxes of a class that overlap by more than this, the less confident is dropped."""

BEFORE_NMS = 1000
"""The most confident boxes of an image among which non-maximum suppression chooses."""

BOX_WEIGHT = 1.0
"""Of the loss of the distances, beside that of the classes."""


class DetectionLayers(DenseLayers):
    """Standardised maps to class logits and distances for the places of three levels."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__(channels, WIDTH)
        self.coarser = nn.ModuleList(
            separable(WIDTH, nn.BatchNorm2d(WIDTH), stride=2) for _ in STRIDES[1:]
        )
        # Not batch norms: one set of running statistics would not suit all levels.
        self.blocks = nn.Sequential(
            *(separable(WIDTH, nn.GroupNorm(GROUPS, WIDTH)) for _ in range(2))
        )
        self.classify = nn.Conv2d(WIDTH, classes, 1)
        self.measure = nn.Conv2d(WIDTH, 4, 1)
        nn.init.normal_(self.classify.weight, std=0.01)
        with torch.no_grad():
            self.get_parameter("classify.bias").fill_(math.log(PRIOR / (1 - PRIOR)))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps (B, channels, h, w) to the logits (B, A, C) of A places, and the logarithms of
        their distances to the sides of a box in strides, (B, A, 4).
        """
        level = self.merge(maps, size)
        levels = [level]
        for coarser in self.coarser:
            level = coarser(level)
            levels.append(level)
        blocks = [self.blocks(level) for level in levels]
        logits = torch.cat([self.classify(block).flatten(2) for block in blocks], 2)
        distances = torch.cat([self.measure(block).flatten(2) for block in blocks], 2)
        return logits.transpose(1, 2), distances.transpose(1, 2)


@dataclass(frozen=True, slots=True)
class DetectionHeadPrediction(DetectionPrediction):
    """Detected boxes, in pixels of a square that the image may fill only in part.

    Attributes:
        contents: the rows and columns that each image fills in its square.
    """

    contents: Sequence[tuple[int, int]]

    def findings(self) -> list[Finding]:
        """The boxes found in each image, as shares of its width and height."""
        return [
            Detections(
                boxes=(boxes.cpu() / torch.tensor([columns, rows, columns, rows])).clamp(0, 1),
                labels=labels.cpu(),
                confidences=scores.cpu(),
            )
            for boxes, labels, scores, (rows, columns) in zip(
                self.detected.boxes,
                self.detected.labels,
                self.detected.scores,
                self.contents,
                strict=True,
            )
        ]


class DetectionHead(DenseHeadNetwork, DetectionNetwork):
    """A convolutional head, trained on the feature maps of labelled images."""

    defaults = replace(DENSE_DEFAULTS, steps=400, max_epochs=400, max_side=(480, 640))

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG003 — the same layers for all
    ) -> nn.Module:
        return DetectionLayers(cls.record(manifest).channels, len(manifest.classes))

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {"classify.weight": ClassRows(), "classify.bias": ClassRows()}

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Rescale boxes to pixels of the prepared image and clip them to it.

        Boxes with a side shorter than ``MIN_SIDE`` there are dropped.
        """
        self.check_boxes(target)
        rows, columns = content_size(height, width, self.image_size)
        scale = torch.tensor([columns / width, rows / height] * 2)
        limits = torch.tensor([columns, rows] * 2)
        corners = (target[:, :4].float() * scale).clamp(min=0).minimum(limits)
        kept = (corners[:, 2:] - corners[:, :2] >= MIN_SIDE).all(1)
        return torch.cat([corners, target[:, 4:].float()], 1)[kept]

    def predict(self, batch: Tensor) -> DetectionHeadPrediction:
        """Boxes and features of prepared images, (B, 3, S, S) uint8."""
        return self.judge(self.features(batch))

    @torch.inference_mode()
    def judge(self, features: Sequence[ImageFeatures]) -> DetectionHeadPrediction:
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for rows, levels in self.alike(features):
            size = self.merged_size([features[row] for row in rows])
            with self.autocast():
                logits, distances = self.module(levels, size)
            places = Places.of(size, self.device)
            for number, row in enumerate(rows):
                content = features[row].content
                shown = places.inside(content)
                boxes = places.boxes(distances[number].float(), content)
                found[row] = logits[number][shown].float().sigmoid(), boxes[shown]
        order = range(len(features))
        candidates = BoxCandidates.of([found[row][0] for row in order], background=0)
        kept = [suppressed(*found[row]) for row in order]
        pooled = self.vectors(features)
        detected = Detected(
            candidates=candidates,
            features=pooled,
            boxes=[boxes for boxes, _, _ in kept],
            labels=[labels for _, labels, _ in kept],
            scores=[scores for _, _, scores in kept],
        )
        contents = [image.content for image in features]
        return DetectionHeadPrediction(
            candidates.regions(), pooled, detected, self.image_size, contents
        )

    def head_objective(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,  # noqa: ARG002 — the focal loss has its own balance
    ) -> Callable[[list[int], Tensor], Tensor]:
        """Focal loss of the classes (Lin et al., ICCV 2017, Eq. 5), and smooth L1 of the
        logarithms of the distances where there is a box.
        """
        if not any(len(target) for target in targets):
            raise ModelError("There are no boxes to learn from.")

        def loss(rows: list[int], flips: Tensor) -> Tensor:
            images = [
                mirrored(features[row], flip)
                for row, flip in zip(rows, flips.tolist(), strict=True)
            ]
            size = self.merged_size(images)
            logits, distances = self.module(self.stacked(images), size)
            places = Places.of(size, self.device)
            wanted = [
                assigned(
                    places,
                    mirrored_boxes(targets[row], features[row], flip).to(self.device),
                    len(self.classes),
                )
                for row, flip in zip(rows, flips.tolist(), strict=True)
            ]
            classes = torch.stack([each for each, _ in wanted])
            sides = torch.stack([each for _, each in wanted])
            shown = classes.amax(2) > 0
            found = shown.sum().clamp(min=1)
            focal = sigmoid_focal_loss(logits.float(), classes, reduction="sum")
            boxes = functional.smooth_l1_loss(
                distances.float()[shown], sides[shown], reduction="sum", beta=0.1
            )
            total: Tensor = (focal + BOX_WEIGHT * boxes) / found
            return total

        return loss

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> Detected:
        return self.judge(self.features(batch)).detected


def suppressed(probabilities: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (K, 4), labels (K,) and scores (K,) that are left of the A boxes of an image.

    Args:
        probabilities: of each class at each place, (A, C).
        boxes: (A, 4).
    """
    scores, labels = probabilities.flatten().sort(descending=True)
    most = int((scores[:BEFORE_NMS] > MIN_SCORE).sum())
    scores, flat = scores[:most], labels[:most]
    classes = probabilities.shape[1]
    rows, labels = flat // classes, flat % classes
    kept = batched_nms(boxes[rows], scores, labels, OVERLAP)[:MAX_BOXES]
    return boxes[rows[kept]], labels[kept], scores[kept]


def mirrored_boxes(target: Tensor, image: ImageFeatures, flip: bool) -> Tensor:
    """A target as it is, or as in the mirrored maps of its image."""
    if not flip:
        return target
    width = on_grid(image.content)[1]
    return torch.cat(
        [width - target[:, 2:3], target[:, 1:2], width - target[:, :1], target[:, 3:]], 1
    )
