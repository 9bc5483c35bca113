"""Object detection on a frozen backbone: an anchor-free head at strides 8, 16 and 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, generalized_box_iou_loss

from cdal.models.class_rows import ClassRows
from cdal.models.dense_head import (
    DENSE_DEFAULTS,
    DenseHeadNetwork,
    DenseLayers,
    mirrored,
    separable,
)
from cdal.models.detection.boxes import MIN_SIDE, within
from cdal.models.detection.family import MAX_BOXES, MIN_SCORE, Detected
from cdal.models.detection.network import DetectionNetwork, DetectionPrediction
from cdal.models.detection.places import STRIDES, Places, assigned
from cdal.models.detection.regions import BoxCandidates
from cdal.models.errors import ModelError
from cdal.models.features import ImageFeatures
from cdal.models.letterbox import on_grid
from cdal.models.manifest import Manifest
from cdal.models.predictions import Detections, Finding
from cdal.models.recipe import Recipe
from cdal.models.tiling import MOST_TILES, Tile

WIDTH = 64
GROUPS = 16

DROPPED = 0.2
"""The share of the merged map's channels that are dropped in a training step."""

PRIOR = 0.02
"""The probability of each class at each place before training: most places show nothing."""

OVERLAP = 0.5
"""Of two boxes of a class that overlap by more than this, the less confident is dropped."""

SHOWN = 0.5
"""A tile teaches the boxes of which it shows at least this share of the area."""

BEFORE_NMS = 1000
"""The most confident boxes of an image among which non-maximum suppression chooses."""


class DetectionLayers(DenseLayers):
    """Standardised maps to class logits and distances for the places of three levels."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__(channels, WIDTH)
        self.drop = nn.Dropout2d(DROPPED)
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
        level = self.drop(self.merge(maps, size))
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

    defaults = DENSE_DEFAULTS

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
        rows, columns = self.seen_size(height, width)
        scale = torch.tensor([columns / width, rows / height] * 2)
        corners = within(target[:, :4].float() * scale, (rows, columns))
        kept = (corners[:, 2:] - corners[:, :2] >= MIN_SIDE).all(1)
        return torch.cat([corners, target[:, 4:].float()], 1)[kept]

    def within(self, target: Tensor, tile: Tile) -> Tensor:
        """Rows in pixels of a tile, clipped to it, of boxes of which it shows at least half."""
        down, across = tile
        start = torch.tensor([across.start, down.start] * 2)
        size = down.stop - down.start, across.stop - across.start
        corners = within(target[:, :4] - start, size)
        sides = corners[:, 2:] - corners[:, :2]
        area = (target[:, 2:4] - target[:, :2]).prod(1)
        kept = (sides >= MIN_SIDE).all(1) & (sides.prod(1) >= SHOWN * area)
        return torch.cat([corners, target[:, 4:]], 1)[kept]

    @property
    def most_boxes(self) -> int:
        return super().most_boxes * (1 if self.tiling is None else MOST_TILES)

    def _tiles(self, image: ImageFeatures) -> int:
        return 1 if self.tiling is None else len(self.tiling.tiles(*image.content))

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
                boxes = within(places.boxes(distances[number].float()), content)
                found[row] = logits[number][shown].float().sigmoid(), boxes[shown]
        order = range(len(features))
        tiles = [self._tiles(image) for image in features]
        candidates = BoxCandidates.of([found[row][0] for row in order], background=0, tiles=tiles)
        kept = [suppressed(*found[row], tiles[row]) for row in order]
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
        """Quality focal loss of the classes (Li et al., NeurIPS 2020, Eq. 4), and the loss of
        generalized intersection over union (Rezatofighi et al., CVPR 2019) of the boxes.

        So a place learns how well the box that it finds will fit, and the best box of an object is
        the most confident one.
        """
        if not any(len(target) for target in targets):
            raise ModelError("There are no boxes to learn from.")

        def loss(rows: list[int], flips: Tensor) -> Tensor:
            flipped = list(zip(rows, flips.tolist(), strict=True))
            images = [mirrored(features[row], flip) for row, flip in flipped]
            size = self.merged_size(images)
            logits, distances = self.module(self.stacked(images), size)
            places = Places.of(size, self.device)
            wanted = [
                assigned(
                    places,
                    mirrored_boxes(targets[row], features[row], flip).to(self.device),
                    len(self.classes),
                )
                for row, flip in flipped
            ]
            classes = torch.stack([each.classes for each in wanted])
            weights = torch.stack([each.weights for each in wanted])
            shown = classes.amax(2) > 0
            true = torch.stack([each.boxes for each in wanted])[shown]
            found = places.boxes(distances.float())[shown]
            classes[shown] *= overlaps(found.detach(), true)[:, None]
            inside = torch.stack(
                [places.inside(*mirrored_content(features[row], flip)) for row, flip in flipped]
            )
            losses = quality_focal_loss(logits.float(), classes).sum(2) * weights
            total = losses[inside].sum()
            total = total + (generalized_box_iou_loss(found, true) * weights[shown]).sum()
            mean: Tensor = total / weights[shown].sum().clamp(min=1)
            return mean

        return loss

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> Detected:
        return self.judge(self.features(batch)).detected


def suppressed(
    probabilities: Tensor, boxes: Tensor, tiles: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (K, 4), labels (K,) and scores (K,) that are left of the A boxes of an image.

    Args:
        probabilities: of each class at each place, (A, C).
        boxes: (A, 4).
        tiles: the number of tiles of the image, each of which may have ``MAX_BOXES``.
    """
    scores, labels = probabilities.flatten().sort(descending=True)
    most = int((scores[: BEFORE_NMS * tiles] > MIN_SCORE).sum())
    scores, flat = scores[:most], labels[:most]
    classes = probabilities.shape[1]
    rows, labels = flat // classes, flat % classes
    kept = batched_nms(boxes[rows], scores, labels, OVERLAP)[: MAX_BOXES * tiles]
    return boxes[rows[kept]], labels[kept], scores[kept]


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """The quality focal loss of each logit (Li et al., NeurIPS 2020, Eq. 4, with β = 2).

    Args:
        logits: of any shape.
        quality: in [0, 1], of the same shape: how well the box of a class fits, 0 without one.
    """
    away = (quality - logits.sigmoid()).abs()
    entropy = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return away.square() * entropy


def overlaps(found: Tensor, true: Tensor) -> Tensor:
    """The intersection over union of pairs of boxes, (K, 4) each: (K,)."""
    least = torch.maximum(found[:, :2], true[:, :2])
    most = torch.minimum(found[:, 2:], true[:, 2:])
    shared = (most - least).clamp(min=0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (found, true)]
    return shared / (areas[0] + areas[1] - shared)


def mirrored_content(image: ImageFeatures, flip: bool) -> tuple[tuple[int, int], int]:
    """The rows and columns of an image, and the first of its columns in its (mirrored) maps."""
    rows, columns = image.content
    return (rows, columns), on_grid(image.content)[1] - columns if flip else 0


def mirrored_boxes(target: Tensor, image: ImageFeatures, flip: bool) -> Tensor:
    """A target as it is, or as in the mirrored maps of its image."""
    if not flip:
        return target
    width = on_grid(image.content)[1]
    return torch.cat(
        [width - target[:, 2:3], target[:, 1:2], width - target[:, :1], target[:, 3:]], 1
    )
