"""Semantic segmentation on a frozen backbone: a small convolutional head at stride 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from cdal.models.class_rows import ClassRows
from cdal.models.dense_head import (
    DENSE_DEFAULTS,
    STRIDE,
    DenseHeadNetwork,
    DenseLayers,
    inside,
    mirrored,
    separable,
)
from cdal.models.errors import ModelError
from cdal.models.features import ImageFeatures
from cdal.models.letterbox import on_grid, padded
from cdal.models.manifest import Manifest
from cdal.models.predictions import IGNORED, Finding, Segmentation
from cdal.models.recipe import Recipe, class_weights
from cdal.models.segmentation.label_maps import label_map
from cdal.models.segmentation.network import (
    SegmentationNetwork,
    SegmentationPrediction,
    check_classes,
    check_mask,
)
from cdal.models.tiling import Tile

WIDTH = 96

DROPPED = 0.2
"""The share of channels that are dropped in a training step."""


class SegmentationLayers(DenseLayers):
    """Standardised maps of all strides to logits at stride 8."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__(channels, WIDTH)
        self.block = separable(WIDTH, nn.BatchNorm2d(WIDTH))
        self.drop = nn.Dropout2d(DROPPED)
        self.classify = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, channels, h, w) to logits (B, C, h, w) of this size."""
        logits: Tensor = self.classify(self.drop(self.block(self.merge(maps, size))))
        return logits


@dataclass(frozen=True, slots=True)
class SegmentationHeadPrediction(SegmentationPrediction):
    """Predicted pixel classes: ``regions`` are the class probabilities (K, C) of the places of 8×8
    pixels of each image, without those that show only padding.

    Attributes:
        maps: the logits of each image and its padding, (C, h, w) float32.
        contents: the rows and columns that each image fills in its square.
    """

    maps: Sequence[Tensor]
    contents: Sequence[tuple[int, int]]

    @torch.inference_mode()
    def findings(self) -> list[Finding]:
        """The most probable class of each pixel of the image, at the size that the network saw."""
        found: list[Finding] = []
        for logits, (rows, columns) in zip(self.maps, self.contents, strict=True):
            seen = (logits.shape[1] * STRIDE, logits.shape[2] * STRIDE)
            labels = label_map(logits, seen)[:rows, :columns].contiguous().cpu()
            confidence = inside(logits, (rows, columns)).softmax(0).amax(0).cpu()
            found.append(Segmentation(labels, confidence))
        return found


class SegmentationHead(DenseHeadNetwork, SegmentationNetwork):
    """A convolutional head, trained on the feature maps of labelled images."""

    defaults = DENSE_DEFAULTS

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        weights: Mapping[str, Tensor] | None = None,  # noqa: ARG003 — the same layers for all
    ) -> nn.Module:
        check_classes(manifest.classes)
        return SegmentationLayers(cls.record(manifest).channels, len(manifest.classes))

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {"classify.weight": ClassRows(), "classify.bias": ClassRows()}

    def prepare_target(self, target: Tensor, height: int, width: int) -> Tensor:
        """A mask in a square, like its image; the padding is ``IGNORED``.

        If images are seen in tiles, the padding only reaches the next step of the grid.
        """
        check_mask(target, height, width, len(self.classes))
        rows, columns = self.seen_size(height, width)
        size = on_grid((rows, columns)) if self.tiling else (self.image_size, self.image_size)
        square = target.new_full(size, IGNORED)
        resized = transforms.resize(target[None], [rows, columns], InterpolationMode.NEAREST_EXACT)
        square[:rows, :columns] = resized[0]
        return square

    def within(self, target: Tensor, tile: Tile) -> Tensor:
        """The part of a mask that a tile shows."""
        down, across = tile
        return target[down.start : down.stop, across.start : across.stop]

    def predict(self, batch: Tensor) -> SegmentationHeadPrediction:
        """Logits and features of prepared images, (B, 3, S, S) uint8."""
        return self.judge(self.features(batch))

    @torch.inference_mode()
    def judge(self, features: Sequence[ImageFeatures]) -> SegmentationHeadPrediction:
        maps: dict[int, Tensor] = {}
        for rows, levels in self.alike(features):
            size = self.merged_size([features[row] for row in rows])
            with self.autocast():
                logits = self.module(levels, size)
            for number, row in enumerate(rows):
                maps[row] = logits[number].float()
        order = range(len(features))
        contents = [image.content for image in features]
        probabilities = [inside(maps[row], contents[row]).softmax(0).flatten(1).T for row in order]
        return SegmentationHeadPrediction(
            regions=probabilities,
            features=self.vectors(features),
            image_size=self.image_size,
            maps=[maps[row] for row in order],
            contents=contents,
        )

    def head_objective(
        self, features: Sequence[ImageFeatures], targets: Sequence[Tensor], recipe: Recipe
    ) -> Callable[[list[int], Tensor], Tensor]:
        """Cross entropy with the shares of the classes in each place of 8×8 pixels."""
        counts = torch.stack([self.count_classes(target) for target in targets]).sum(0)
        if not counts.any():
            raise ModelError("There are no labelled pixels to learn from.")
        weights = class_weights(counts, 0.5 if recipe.class_weights else 0.0)
        shares = [
            class_shares(target, image.content, len(self.classes)) * weights.view(-1, 1, 1)
            for image, target in zip(features, targets, strict=True)
        ]

        def objective(rows: list[int], flips: Tensor) -> Tensor:
            flipped = flips.tolist()
            images = [mirrored(features[r], f) for r, f in zip(rows, flipped, strict=True)]
            wanted = padded(
                [shares[r].flip(2) if f else shares[r] for r, f in zip(rows, flipped, strict=True)]
            ).to(self.device)
            logits = self.module(self.stacked(images), self.merged_size(images)).float()
            total = -(wanted * logits.log_softmax(1)).sum()
            loss: Tensor = total / wanted.sum().clamp(min=1e-6)
            return loss

        return objective

    @torch.inference_mode()
    def _infer(self, batch: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        """Features (B, D), and logits of whole squares, (C, S / 8, S / 8) each: beyond an image
        they are those of its border. If images are seen in tiles, there are no squares.
        """
        found = self.judge(self.features(batch))
        if self.tiling is not None:
            return found.features, found.maps
        side = self.image_size // STRIDE
        squares = [
            functional.pad(
                logits[None],
                (0, side - logits.shape[2], 0, side - logits.shape[1]),
                mode="replicate",
            )
            for logits in found.maps
        ]
        return found.features, [square[0] for square in squares]


def class_shares(mask: Tensor, content: tuple[int, int], classes: int) -> Tensor:
    """The share of each class in the pixels of each place, (C, h, w) float32.

    ``IGNORED`` pixels belong to no class, so a place's shares may sum to less than 1.
    """
    height, width = on_grid(content)
    shown = mask[:height, :width].long().clamp(max=classes)
    shown = functional.pad(
        shown, (0, width - shown.shape[1], 0, height - shown.shape[0]), value=classes
    )
    single = functional.one_hot(shown, classes + 1)[..., :classes].permute(2, 0, 1)
    return functional.avg_pool2d(single.float()[None], STRIDE)[0]
