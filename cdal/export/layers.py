"""A trained network as one module, from normalised images to what people use.

The module of a head includes its backbone. Non-maximum suppression is part of a detector. What
depends on an image's size is computed with tensors, so that a trace holds for images of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms

from cdal.export.tiles import Grid
from cdal.models import DetectionNetwork, TaskNetwork
from cdal.models.classification.network import ImageNetwork
from cdal.models.classification.pooled import PooledHead
from cdal.models.dense_head import STRIDE, DenseHeadNetwork
from cdal.models.detection.architectures import DETECTORS
from cdal.models.detection.family import MAX_BOXES, MIN_SCORE
from cdal.models.detection.head import BEFORE_NMS, OVERLAP, DetectionHead
from cdal.models.detection.places import Places
from cdal.models.segmentation.head import SegmentationHead
from cdal.models.segmentation.network import Segmenter, enlarge
from cdal.models.tiling import Tiling


class Exported(nn.Module):
    """A network that answers with plain tensors.

    Attributes:
        outputs: their names, and the names of their axes.
        fits: whether images keep their aspect ratio, in which case it takes any height and width
            that are multiples of 32, instead of being resized to a square.
        tiling: how it sees an image in tiles; None: as a whole.
        takes_several: whether it takes several images at once.
    """

    outputs: ClassVar[dict[str, tuple[str, ...]]]
    fits: ClassVar[bool] = False
    takes_several: bool = True
    tiling: Tiling | None = None


class Probabilities(Exported):
    """Images (N, 3, S, S) to probabilities (N, C)."""

    outputs: ClassVar = {"probabilities": ("N", "C")}

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, C) float32."""
        logits: Tensor = self.head(self.features(images))
        return logits.softmax(1)


class IndependentProbabilities(Probabilities):
    """Images (N, 3, S, S) to probabilities (N, C) of classes that do not exclude each other."""

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, C) float32."""
        logits: Tensor = self.head(self.features(images))
        return logits.sigmoid()


class PixelProbabilities(Exported):
    """Images (N, 3, S, S) to the probabilities of each pixel, (N, C, S, S)."""

    outputs: ClassVar = {"probabilities": ("N", "C", "H", "W")}

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, S, S) float32."""
        return enlarge(self.segmenter(images)[1], images.shape[2:]).softmax(1)


class Maps(nn.Module):
    """The standardised maps of a backbone, as a dense head takes them."""

    def __init__(self, network: DenseHeadNetwork) -> None:
        super().__init__()
        backbone, standardise = network.backbone, network.dense.standardise
        self.tiling = network.tiling
        self.backbone = backbone.module
        self.standardise = standardise
        # Not as an attribute of its own, which would register the same layers again.
        self._look = backbone.maps
        self._averaged = [max(1, STRIDE // stride) for stride in backbone.strides]
        self.strides = [max(STRIDE, stride) for stride in backbone.strides]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, channels, H / stride, W / stride), whose strides are at least 8."""
        levels = zip(self.levels(images), self.standardise, strict=True)
        return [standardise(level) for level, standardise in levels]

    def levels(self, images: Tensor) -> list[Tensor]:
        """The maps as the backbone makes them, merged if it sees tiles."""
        if self.tiling is None:
            return self.of_squares(images)
        grid = Grid.of(self.tiling, images)
        seen = self.of_squares(grid.cut(images))
        return [grid.merged(level, s) for level, s in zip(seen, self.strides, strict=True)]

    def of_squares(self, images: Tensor) -> list[Tensor]:
        """The maps of images that are seen as a whole."""
        levels = zip(self._look(images), self._averaged, strict=True)
        return [functional.avg_pool2d(lev, side) if side > 1 else lev for lev, side in levels]


class HeadPixelProbabilities(Exported):
    """Images (N, 3, H, W) to the probabilities of each pixel, (N, C, H, W)."""

    outputs: ClassVar = {"probabilities": ("N", "C", "H", "W")}
    fits: ClassVar = True

    def __init__(self, network: SegmentationHead) -> None:
        super().__init__()
        self.maps = Maps(network)
        self.head = network.module
        self.tiling = network.tiling
        self.takes_several = network.tiling is None

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W) float32."""
        logits = self.head(self.maps(images), map_size(images))
        return enlarge(logits, images.shape[2:]).softmax(1)


class HeadBoxes(Exported):
    """An image (1, 3, H, W) to its K boxes, the most confident first."""

    outputs: ClassVar = {"boxes": ("K", "4"), "labels": ("K",), "scores": ("K",)}
    fits: ClassVar = True
    takes_several = False

    def __init__(self, network: DetectionHead) -> None:
        super().__init__()
        self.maps = Maps(network)
        self.head = network.module
        self.tiling = network.tiling

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4) in pixels, labels (K,) int64, scores (K,) float32."""
        size = map_size(images)
        logits, distances = self.head(self.maps(images), size)
        places = Places.of(size, images.device)
        # Part of the trace, which Python's numbers are not.
        limits = torch._shape_as_tensor(images)[[3, 2, 3, 2]].to(distances.dtype)
        boxes = places.boxes(distances[0]).clamp(min=0).minimum(limits)
        # Sorted, not "the best 1,000": a small image has fewer.
        scores, order = logits[0].sigmoid().flatten().sort(descending=True)
        tiles = 1 if self.tiling is None else Grid.of(self.tiling, images).number()
        scores, order = scores[: BEFORE_NMS * tiles], order[: BEFORE_NMS * tiles]
        classes = logits.shape[2]
        boxes, labels = boxes[order // classes], order % classes
        kept = batched_nms(boxes, scores, labels, OVERLAP)[: MAX_BOXES * tiles]
        kept = kept[scores[kept] > MIN_SCORE]
        return boxes[kept], labels[kept], scores[kept]


class Boxes(Exported):
    """An image (1, 3, S, S) to its K boxes, the most confident first."""

    outputs: ClassVar = HeadBoxes.outputs
    takes_several = False

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.detector = network.module
        self._family = DETECTORS[network.manifest.architecture].family

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4) in pixels, labels (K,) int64, scores (K,) float32."""
        found = self._family.detect(self.detector, images)
        return found.boxes[0], found.labels[0], found.scores[0]


def map_size(images: Tensor) -> tuple[int, int]:
    """Rows and columns of the finest map of images (N, 3, H, W)."""
    return images.shape[2] // STRIDE, images.shape[3] // STRIDE


def layers_of(network: TaskNetwork) -> Exported:
    """The network as one module, on the CPU and in evaluation mode, sharing its weights.

    Raises:
        TypeError: it is a network of an unknown kind.
    """
    return _layers_of(network).to(torch.device("cpu")).eval()


def _layers_of(network: TaskNetwork) -> Exported:
    of_image = IndependentProbabilities if network.task == "multilabel" else Probabilities
    if isinstance(network, PooledHead):
        return of_image(network.backbone.module, network.module)
    if isinstance(network, DenseHeadNetwork):
        if isinstance(network, SegmentationHead):
            return HeadPixelProbabilities(network)
        if isinstance(network, DetectionHead):
            return HeadBoxes(network)
    if isinstance(network, ImageNetwork):
        return of_image(network.module.trunk, network.module.head)
    if isinstance(network, DetectionNetwork):
        return Boxes(network)
    if isinstance(network.module, Segmenter):
        return PixelProbabilities(network.module)
    raise TypeError(f"{type(network).__name__} cannot be exported")


def named(exported: Exported, outputs: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
    """The outputs of an exported network, or of what was written of it, by name."""
    each = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return dict(zip(exported.outputs, each, strict=True))
