"""Object detection on a frozen backbone: an anchor-free head at strides 8, 16 and 32.

It has a tilt for each box if it has learnt from rotated ones, see turned.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

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
from cdal.models.detection.turned import (
    MOST_TILT,
    corners_of,
    hulls_of,
    rectangles_of,
    spreads_of,
    turned_nms,
)
from cdal.models.errors import ModelError
from cdal.models.features import ImageFeatures
from cdal.models.head import Tell
from cdal.models.letterbox import on_grid
from cdal.models.manifest import Manifest
from cdal.models.predictions import Detections, Finding
from cdal.models.recipe import Plan, Recipe
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

BEFORE_TURNED_NMS = 300
"""The same if boxes may be rotated: their overlaps take longer to compute."""


class DetectionLayers(DenseLayers):
    """Standardised maps to class logits and distances for the places of three levels.

    Args:
        channels: the channels of the backbone's maps.
        classes: C.
        turning: whether boxes have tilts.
    """

    def __init__(self, channels: Sequence[int], classes: int, turning: bool = False) -> None:
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
        self.turn: nn.Conv2d | None = None
        if turning:
            self.begin_turning()

    def begin_turning(self) -> None:
        """Add tilts, all of which are 0 at first."""
        self.turn = nn.Conv2d(WIDTH, 1, 1).to(self.get_parameter("measure.bias").device)
        nn.init.zeros_(self.turn.weight)
        nn.init.zeros_(self.get_parameter("turn.bias"))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Maps (B, channels, h, w) to the logits (B, A, C) of A places, and the logarithms of
        their distances to the sides of a box in strides, (B, A, 4), and its tilt where there are
        tilts, (B, A, 5).
        """
        level = self.drop(self.merge(maps, size))
        levels = [level]
        for coarser in self.coarser:
            level = coarser(level)
            levels.append(level)
        blocks = [self.blocks(level) for level in levels]
        logits = torch.cat([self.classify(block).flatten(2) for block in blocks], 2)
        distances = torch.cat([self._measured(block).flatten(2) for block in blocks], 2)
        return logits.transpose(1, 2), distances.transpose(1, 2)

    def _measured(self, block: Tensor) -> Tensor:
        distances: Tensor = self.measure(block)
        return distances if self.turn is None else torch.cat((distances, self.turn(block)), 1)


@dataclass(frozen=True, slots=True)
class DetectionHeadPrediction(DetectionPrediction):
    """Detected boxes, in pixels of a square that the image may fill only in part.

    Attributes:
        contents: the rows and columns that each image fills in its square.
        places: the probability of each class at each place of each image, (A, C) float32.
    """

    contents: Sequence[tuple[int, int]]
    places: Sequence[Tensor]

    def findings(self) -> list[Finding]:
        """The boxes found in each image, as shares of its width and height."""
        return [self._finding(number) for number in range(len(self.contents))]

    def _finding(self, number: int) -> Detections:
        rows, columns = self.contents[number]
        boxes, turns = self.detected.boxes[number].cpu(), None
        if self.detected.tilts is not None:
            corners = rectangles_of(boxes, self.detected.tilts[number].cpu())
            boxes, turns = hulls_of(corners)
        return Detections(
            boxes=(boxes / torch.tensor([columns, rows, columns, rows])).clamp(0, 1),
            labels=self.detected.labels[number].cpu(),
            confidences=self.detected.scores[number].cpu(),
            turns=turns,
        )


class DetectionHead(DenseHeadNetwork, DetectionNetwork):
    """A convolutional head, trained on the feature maps of labelled images."""

    defaults = DENSE_DEFAULTS
    learns_turns = True

    @classmethod
    def build(cls, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
        turning = weights is not None and "turn.weight" in weights
        return DetectionLayers(cls.record(manifest).channels, len(manifest.classes), turning)

    @property
    def is_turning(self) -> bool:
        """Whether it has learnt from rotated boxes, and finds such."""
        return cast(DetectionLayers, self.module).turn is not None

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {"classify.weight": ClassRows(), "classify.bias": ClassRows()}

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """Rescale boxes to pixels of the prepared image and clip them to it.

        Boxes with a side shorter than ``MIN_SIDE`` there are dropped. Of rotated boxes, the rows
        become spread, class and tilt, (K, 6).
        """
        self.check_boxes(target)
        rows, columns = self.seen_size(height, width)
        scale = torch.tensor([columns / width, rows / height] * 2)
        boxes, more = target[:, :4].float() * scale, target[:, 4:5].float()
        if target.shape[1] > 5:
            boxes, tilts = spreads_of(corners_of(boxes, target[:, 5:].float()))
            more = torch.cat((more, tilts[:, None]), 1)
        boxes = within(boxes, (rows, columns))
        kept = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(1)
        return torch.cat([boxes, more], 1)[kept]

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
        found: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}
        for rows, levels in self.alike(features):
            size = self.merged_size([features[row] for row in rows])
            with self.autocast():
                logits, distances = self.module(levels, size)
            places = Places.of(size, self.device)
            for number, row in enumerate(rows):
                content = features[row].content
                shown = places.inside(content)
                boxes = within(places.boxes(distances[number, :, :4].float()), content)
                tilts = tilts_in(distances[number])
                found[row] = (
                    logits[number][shown].float().sigmoid(),
                    boxes[shown],
                    None if tilts is None else tilts[shown],
                )
        order = range(len(features))
        tiles = [self._tiles(image) for image in features]
        vectors = [found[row][0] for row in order]
        candidates = BoxCandidates.of(vectors, background=0, tiles=tiles)
        kept = [suppressed(*found[row], tiles=tiles[row]) for row in order]
        pooled = self.vectors(features)
        detected = Detected(
            candidates=candidates,
            features=pooled,
            boxes=[each.boxes for each in kept],
            labels=[each.labels for each in kept],
            scores=[each.scores for each in kept],
            tilts=[each.tilts for each in kept if each.tilts is not None] or None,
        )
        contents = [image.content for image in features]
        return DetectionHeadPrediction(
            candidates.regions(), pooled, detected, self.image_size, contents, vectors
        )

    def learn(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,
        plan: Plan,
        tell: Tell,
        stop: Callable[[], bool],
    ) -> list[float]:
        """As for every dense head; tilts are added if there are rotated boxes."""
        if not self.is_turning and any(target.shape[1] > 5 for target in targets):
            cast(DetectionLayers, self.module).begin_turning()
        return super().learn(features, targets, recipe, plan, tell, stop)

    def head_objective(
        self,
        features: Sequence[ImageFeatures],
        targets: Sequence[Tensor],
        recipe: Recipe,  # noqa: ARG002 — the focal loss has its own balance
    ) -> Callable[[list[int], Tensor], Tensor]:
        """Quality focal loss of the classes (Li et al., NeurIPS 2020, Eq. 4), and the loss of
        generalized intersection over union (Rezatofighi et al., CVPR 2019) of the boxes.

        So a place learns how well the box that it finds will fit, and the best box of an object is
        the most confident one. If boxes may be rotated, these are their spreads, and the distance
        of the tilts is added.
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
            found = places.boxes(distances[..., :4].float())[shown]
            quality, cost = overlaps(found.detach(), true), generalized_box_iou_loss(found, true)
            tilts = tilts_in(distances)
            if tilts is not None:
                away = (tilts - torch.stack([each.tilts for each in wanted]))[shown].abs()
                quality, cost = quality * (-away.detach()).exp(), cost + away
            classes[shown] *= quality[:, None]
            inside = torch.stack(
                [places.inside(*mirrored_content(features[row], flip)) for row, flip in flipped]
            )
            losses = quality_focal_loss(logits.float(), classes).sum(2) * weights
            total = losses[inside].sum()
            total = total + (cost * weights[shown]).sum()
            mean: Tensor = total / weights[shown].sum().clamp(min=1)
            return mean

        return loss

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> Detected:
        return self.judge(self.features(batch)).detected


class Kept(NamedTuple):
    """The K boxes that are left of an image's, the most confident first.

    Attributes:
        boxes: (K, 4).
        labels: (K,).
        scores: (K,).
        tilts: (K,); None if no box is rotated.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    tilts: Tensor | None


def suppressed(
    probabilities: Tensor, boxes: Tensor, tilts: Tensor | None = None, tiles: int = 1
) -> Kept:
    """What non-maximum suppression leaves of the A boxes of an image.

    Args:
        probabilities: of each class at each place, (A, C).
        boxes: (A, 4); if there are tilts, spreads.
        tilts: (A,).
        tiles: the number of tiles of the image, each of which may have ``MAX_BOXES``.
    """
    considered = BEFORE_NMS if tilts is None else BEFORE_TURNED_NMS
    scores, labels = probabilities.flatten().sort(descending=True)
    most = int((scores[: considered * tiles] > MIN_SCORE).sum())
    scores, flat = scores[:most], labels[:most]
    classes = probabilities.shape[1]
    rows, labels = flat // classes, flat % classes
    if tilts is None:
        kept = batched_nms(boxes[rows], scores, labels, OVERLAP)[: MAX_BOXES * tiles]
        return Kept(boxes[rows[kept]], labels[kept], scores[kept], None)
    kept = turned_nms(rectangles_of(boxes[rows], tilts[rows]), labels, OVERLAP)
    kept = kept[: MAX_BOXES * tiles]
    return Kept(boxes[rows[kept]], labels[kept], scores[kept], tilts[rows[kept]])


def tilts_in(distances: Tensor) -> Tensor | None:
    """The tilts of what the layers measure, (..., A, 4) or (..., A, 5): (..., A)."""
    if distances.shape[-1] == 4:
        return None
    return distances[..., 4].float().clamp(-MOST_TILT, MOST_TILT)


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
    left, right = width - target[:, 2:3], width - target[:, :1]
    return torch.cat([left, target[:, 1:2], right, target[:, 3:5], -target[:, 5:]], 1)
