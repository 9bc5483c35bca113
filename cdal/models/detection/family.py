"""Families of torchvision's detectors: how they are built, run and taken apart.

A detector is run part by part, so that one forward pass gives the boxes before non-maximum
suppression, from which Contextual Diversity is computed, and those after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from cdal.models.class_rows import ClassRows
from cdal.models.detection.regions import BoxCandidates
from cdal.models.manifest import Manifest

Model = Any
"""A detector of torchvision, whose parts have no declared types."""

MIN_SCORE = 0.05
"""Boxes with a lower score are discarded."""

MAX_BOXES = 100
"""The maximum number of boxes per image, as in COCO's metric."""


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """The output of a detector for B images.

    Attributes:
        candidates: the most confident boxes before non-maximum suppression.
        features: (B, D) float32.
        boxes: left, top, right, bottom in pixels after non-maximum suppression, (K, 4) per image.
        labels: class indices, (K,) int64 per image.
        scores: (K,) float32 per image, descending.
        tilts: (K,) float32 per image if boxes may be rotated, which are given by their spreads
            then, see turned.py; otherwise None.
    """

    candidates: BoxCandidates
    features: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]
    tilts: list[Tensor] | None = None

    @classmethod
    def of(
        cls,
        candidates: BoxCandidates,
        deepest: Tensor,
        found: list[dict[str, Tensor]],
        background: int,
    ) -> Self:
        """Collect what the parts of a detector return.

        Args:
            candidates: the boxes before non-maximum suppression.
            deepest: the feature map (B, D, h, w) whose mean is the image's feature vector.
            found: "boxes", "labels" and "scores" of each image after non-maximum suppression.
            background: the number of classes that precede the project's own.
        """
        return cls(
            candidates=candidates,
            features=deepest.float().mean((2, 3)),
            boxes=[image["boxes"].float() for image in found],
            labels=[image["labels"] - background for image in found],
            scores=[image["scores"].float() for image in found],
        )


class AsPrepared(nn.Module):
    """Replaces torchvision's resizing and normalisation, because images are prepared already."""

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        return image_list(torch.stack(images)), targets

    def postprocess(self, found: list[Any], *_: object) -> list[Any]:
        """Return boxes unchanged."""
        return found


class Family(ABC):
    """How detectors of one family are built, run and taken apart."""

    background: ClassVar[int] = 1
    """The number of classes that precede the project's own."""

    @abstractmethod
    def build(self, manifest: Manifest, weights: Mapping[str, Tensor] | None = None) -> Model:
        """The detector with random weights, all of them trainable.

        Args:
            manifest: the description of the detector.
            weights: the weights that will be loaded, if any; see ``TaskNetwork.build``.
        """

    @abstractmethod
    def class_rows(self, model: Model) -> dict[str, ClassRows]:
        """Where each tensor of the detector's state has rows for classes, by the tensor's name."""

    @abstractmethod
    def heads(self, model: Model) -> list[nn.Module]:
        """The layers that predict the classes and positions of boxes."""

    @abstractmethod
    def detect(self, model: Model, images: Tensor) -> Detected:
        """Run the detector on normalised images, (B, 3, S, S)."""

    def losses(
        self, model: Model, images: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The terms of the loss, by name.

        Args:
            model: the detector, in training mode.
            images: normalised images, (B, 3, S, S).
            targets: "boxes" (K, 4) and "labels" (K,) of each image; labels count the background.
        """
        found: dict[str, Tensor] = model(list(images), targets)
        return found

    @abstractmethod
    def backbone_name(self, name: str) -> str:
        """The detector's name for a tensor that has this name in its classification backbone."""


def torchvision_detector(manifest: Manifest, background: int, **settings: float) -> Model:
    """Build torchvision's detector with random weights in all its parts."""
    return torchvision.models.get_model(
        manifest.architecture,
        weights=None,
        weights_backbone=None,
        num_classes=background + len(manifest.classes),
        **settings,
    )


def in_float32(*layers: nn.Module) -> None:
    """Convert the outputs of layers to float32, in mixed precision too.

    Anchors inherit their type from the feature maps, and above 256 bfloat16 only represents every
    second pixel.
    """

    def cast(_: nn.Module, __: object, output: Any) -> Any:
        if isinstance(output, Tensor):
            return output.float()
        if isinstance(output, dict):
            return type(output)((name, cast(_, __, value)) for name, value in output.items())
        return type(output)(cast(_, __, value) for value in output)

    for layer in layers:
        layer.register_forward_hook(cast)


def image_list(images: Tensor) -> ImageList:
    """A batch of images (B, 3, S, S) in the type that torchvision's parts expect."""
    return ImageList(images, [(images.shape[2], images.shape[3])] * len(images))
